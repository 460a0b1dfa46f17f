"""PyTorch's own sample inputs and error inputs for these ops, values and gradients.

PyTorch tests its operators with a database of sample calls (`op_db`); tinynet must give the same results for every one of
them and refuse every one of its invalid calls. What is left out stands in MODES, with the reason; the number of cases is
asserted, so that they cannot silently become none.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import tinynet.functional as F
from tests.checking import Backend, close
from tinynet.errors import TinynetError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.opinfo.core import OpInfo, SampleInput

Bound = dict[str, Any]  # arguments by name
Gradient = Callable[[Any, Bound, Any], Any]  # (y, arguments, dy) ↦ ∂ℓ/∂argument

# Database name → how many samples and how many invalid calls it has at least, for one dtype.
OPS = {
    "nn.functional.conv1d": (10, 10),
    "nn.functional.conv2d": (30, 10),
    "nn.functional.conv3d": (20, 10),
    "nn.functional.conv_transpose1d": (10, 0),
    "nn.functional.conv_transpose2d": (12, 0),
    "nn.functional.conv_transpose3d": (10, 0),
    "nn.functional.max_pool1d": (864, 12),
    "nn.functional.max_pool2d": (1440, 7),
    "nn.functional.max_pool3d": (576, 7),
    "nn.functional.max_unpool1d": (144, 1),
    "nn.functional.max_unpool2d": (288, 1),
    "nn.functional.max_unpool3d": (96, 1),
    "nn.functional.avg_pool1d": (9, 2),
    "nn.functional.avg_pool2d": (7, 5),
    "nn.functional.avg_pool3d": (8, 5),
    "nn.functional.adaptive_avg_pool2d": (10, 1),
    "nn.functional.linear": (18, 0),
    "nn.functional.relu": (4, 0),
    "nn.functional.relu6": (6, 0),
    "nn.functional.leaky_relu": (9, 0),
    "sigmoid": (3, 0),
    "tanh": (1, 0),
    "softmax": (14, 0),
    "log_softmax": (14, 0),
    "nn.functional.cross_entropy": (21, 0),
    "nn.functional.nll_loss": (61, 0),
    "nn.functional.mse_loss": (6, 0),
    "nn.functional.dropout": (19, 0),
    "nn.functional.batch_norm": (12, 0),
    "nn.functional.local_response_norm": (11, 0),
    "nn.functional.pad": (89, 0),
    "nn.functional.interpolate": (114, 0),
}

# What tinynet documents as not offered; a sample is left out only if its call says so.
MODES = {
    "nn.functional.pad": ("constant", "reflect", "replicate", "circular"),  # all there are
    "nn.functional.interpolate": ("nearest", "nearest-exact", "linear", "bilinear", "trilinear"),  # no bicubic, no area
}


def excluded(name: str, sample: SampleInput) -> bool:
    if name in MODES:
        arguments = inspect.signature(getattr(torch.nn.functional, name.rpartition(".")[2])).bind(
            sample.input, *sample.args, **sample.kwargs
        )
        arguments.apply_defaults()
        antialias = arguments.arguments.get("antialias", False)  # of interpolate: not offered
        return arguments.arguments["mode"] not in MODES[name] or antialias
    if name == "nn.functional.relu6":
        return bool(sample.input.isnan().any())  # there PyTorch's gradient is 0 or dy, by the number's place in memory
    return False


def samples_of(name: str, dtype: torch.dtype) -> Iterator[tuple[OpInfo, SampleInput]]:
    """Every sample of every variant of that op; where there are reference inputs (extremal values, odd shapes), those."""
    for op in op_db:
        if op.name == name and not excluded_variant(op):
            make = op.reference_inputs if op.reference_inputs_func is not None else op.sample_inputs
            for sample in make("cpu", dtype, requires_grad=False):
                if not excluded(name, sample):
                    yield op, sample


def excluded_variant(op: OpInfo) -> bool:
    return op.variant_test_name == "without_cudnn"  # the samples of batch_norm once more, for a GPU


def bind(function: Callable[..., Any], backend: Backend, sample: SampleInput, dtype: Any = None) -> tuple[tuple, dict]:
    def convert(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return backend.array(value.detach().numpy(), "transposed" if not value.is_contiguous() else "contiguous")
        if isinstance(value, torch.dtype):
            return getattr(np, str(value).removeprefix("torch."))
        return value

    return tuple(convert(v) for v in (sample.input, *sample.args)), {k: convert(v) for k, v in sample.kwargs.items()}


def pick(a: Bound, *names: str) -> Bound:
    return {name: a[name] for name in names}


def gradients_of(name: str) -> dict[str, Gradient]:
    """The hand-written gradients of that op, by the argument that they are the gradients of."""

    def f(suffix: str) -> Callable[..., Any]:
        return getattr(F, f"{name}_{suffix}")

    def pool(y: Any, a: Bound, dy: Any) -> Any:
        if name.startswith("max"):
            indices = getattr(F, name)(**(a | {"return_indices": True}))[1]
            return f("input_gradient")(dy, indices, a["input"].shape)
        windows = pick(a, *(k for k in a if k != "input"))
        return f("input_gradient")(dy, a["input"].shape, **windows)

    def loss(y: Any, a: Bound, dy: Any) -> Any:
        return f("input_gradient")(**a, dy=dy)

    if name.startswith("conv_transpose"):
        options = ("stride", "padding", "output_padding", "groups", "dilation")
        return {
            "input": lambda y, a, dy: f("input_gradient")(dy, a["weight"], **pick(a, *options)),
            "weight": lambda y, a, dy: f("weight_gradient")(a["input"], a["weight"].shape, dy, **pick(a, *options)),
            "bias": lambda y, a, dy: F.conv_bias_gradient(dy, unbatched=dy.ndim < a["weight"].ndim),
        }
    if name.startswith("conv"):
        options = ("stride", "padding", "dilation", "groups")
        return {
            "input": lambda y, a, dy: f("input_gradient")(a["input"].shape, a["weight"], dy, **pick(a, *options)),
            "weight": lambda y, a, dy: f("weight_gradient")(a["input"], a["weight"].shape, dy, **pick(a, *options)),
            "bias": lambda y, a, dy: F.conv_bias_gradient(dy, unbatched=dy.ndim < a["weight"].ndim),
        }
    if name.startswith("max_unpool"):
        return {"input": lambda y, a, dy: f("input_gradient")(dy, a["indices"])}
    if "pool" in name:
        if name.startswith("adaptive"):
            return {"input": lambda y, a, dy: f("input_gradient")(dy, a["input"].shape)}
        return {"input": pool}
    if name in ("cross_entropy", "nll_loss", "mse_loss"):
        return {"input": loss}
    statistics = ("input", "running_mean", "running_var", "training", "eps")
    return {
        "linear": {
            "input": lambda y, a, dy: F.linear_input_gradient(dy, a["weight"]),
            "weight": lambda y, a, dy: F.linear_weight_gradient(dy, a["input"]),
            "bias": lambda y, a, dy: F.linear_bias_gradient(dy),
        },
        "relu": {"input": lambda y, a, dy: F.relu_input_gradient(dy, y)},
        "relu6": {"input": lambda y, a, dy: F.relu6_input_gradient(dy, y)},
        "leaky_relu": {"input": lambda y, a, dy: F.leaky_relu_input_gradient(dy, a["input"], a["negative_slope"])},
        "sigmoid": {"input": lambda y, a, dy: F.sigmoid_input_gradient(dy, y)},
        "tanh": {"input": lambda y, a, dy: F.tanh_input_gradient(dy, y)},
        "softmax": {"input": lambda y, a, dy: F.softmax_input_gradient(dy, y, a["dim"]).astype(a["input"].dtype)},
        "log_softmax": {"input": lambda y, a, dy: F.log_softmax_input_gradient(dy, y, a["dim"]).astype(a["input"].dtype)},
        "batch_norm": {
            "input": lambda y, a, dy: F.batch_norm_input_gradient(dy, weight=a["weight"], **pick(a, *statistics)),
            "weight": lambda y, a, dy: F.batch_norm_weight_gradient(dy, **pick(a, *statistics)),
            "bias": lambda y, a, dy: F.batch_norm_bias_gradient(dy),
        },
        "local_response_norm": {
            "input": lambda y, a, dy: F.local_response_norm_input_gradient(dy, **pick(a, "input", "size", "alpha", "beta", "k"))
        },
        "pad": {"input": lambda y, a, dy: F.pad_input_gradient(dy, a["input"].shape, a["pad"], a["mode"])},
        "interpolate": {
            "input": lambda y, a, dy: F.interpolate_input_gradient(
                dy, a["input"].shape, **pick(a, "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
            )
        },
        "dropout": {},  # a comparison of random numbers: see compare_dropout
    }[name]


def reference(op: OpInfo, sample: SampleInput, wanted: set[str], names: list[str]) -> tuple[Any, dict[str, torch.Tensor]]:
    """PyTorch's result in float64 on the same numbers, and the tensors whose gradients are wanted, by argument name.

    interpolate is compared in its own dtype: where it samples is a rounded number, and with float32 not that of float64.
    """
    double = not op.name.endswith("interpolate")

    def convert(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        value = value.detach().clone()
        return value.double() if double and value.is_floating_point() else value

    positional = [convert(v) for v in (sample.input, *sample.args)]
    keywords = {k: convert(v) for k, v in sample.kwargs.items()}
    if "dtype" in keywords:
        keywords["dtype"] = torch.float64
    tensors = dict(zip(names, positional, strict=False)) | keywords
    leaves = {
        k: v.requires_grad_() for k, v in tensors.items() if k in wanted and isinstance(v, torch.Tensor) and v.is_floating_point()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, e.g. that padding="same" may copy
        return op(*positional, **keywords), leaves


def compare(backend: Backend, op: OpInfo, sample: SampleInput, seed: int) -> None:
    name = op.name.rpartition(".")[2]
    function = getattr(F, name)
    args, kwargs = bind(function, backend, sample)
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    a = dict(bound.arguments)
    if name == "dropout":
        return compare_dropout(backend, a, seed)
    dtype = str(a["input"].dtype) if a.get("dtype") is None else np.dtype(a["dtype"]).name
    gradients = gradients_of(name)
    arrays = {k: v for k, v in a.items() if isinstance(v, backend.xp.ndarray) and not k.startswith("running")}
    before = {k: backend.host(v).copy() for k, v in arrays.items()}
    result = function(*args, **kwargs)
    expected, leaves = reference(op, sample, set(gradients), list(inspect.signature(function).parameters))
    if isinstance(expected, tuple):
        np.testing.assert_array_equal(backend.host(result[1]), expected[1].numpy())
        assert backend.host(result[1]).dtype == np.int64
        result, expected = result[0], expected[0]
    # A place between n cells is known to n roundings, and from one cell to the next the map may change by twice its scale.
    slack = 2 * max(a["input"].shape) * float(np.finfo(dtype).eps) if name == "interpolate" else 0.0
    close(backend.host(result), expected.detach().numpy(), dtype, slack=slack)
    rng = np.random.default_rng(seed)
    dy = rng.standard_normal(tuple(expected.shape)).astype(dtype)
    if leaves and expected.requires_grad:
        wanted = torch.autograd.grad(expected, list(leaves.values()), torch.from_numpy(dy).to(expected.dtype))
        for key, want in zip(leaves, wanted, strict=True):
            got = gradients[key](result, a, backend.array(dy))
            close(backend.host(got), want.numpy(), str(a[key].dtype), f"gradient of {key}", slack)
    for key, value in before.items():
        np.testing.assert_array_equal(backend.host(a[key]), value, err_msg=f"{key} was changed")
    return None


def compare_dropout(backend: Backend, a: Bound, seed: int) -> None:
    """What holds for every draw: each number is dropped or scaled by 1/(1 − p), and no training means no change."""
    a["rng"] = np.random.default_rng(seed)
    x, y = backend.host(a["input"]), backend.host(F.dropout(**a))
    kept = np.ones_like(x) if not a["training"] else (y != 0) | (x == 0)
    scale = 1.0 if not a["training"] else (0.0 if a["p"] == 1.0 else 1 / (1 - a["p"]))
    close(y, x * kept * scale, str(x.dtype))
    assert a["p"] == 0.5 or kept.all() == (a["p"] == 0.0 or not a["training"])


def describe(sample: SampleInput) -> str:
    def short(value: Any) -> Any:
        return f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}" if isinstance(value, torch.Tensor) else value

    return f"{[short(v) for v in (sample.input, *sample.args)]} { {k: short(v) for k, v in sample.kwargs.items()} }"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPS)
def test_samples(backend: Backend, name: str, dtype: str) -> None:
    torch.manual_seed(0)
    count, failures = 0, []
    for count, (op, sample) in enumerate(samples_of(name, getattr(torch, dtype)), start=1):
        try:
            compare(backend, op, sample, count)
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            failures.append(f"{describe(sample)}: {type(error).__name__}: {' '.join(lines[:6])[:300]}")
    assert not failures, f"{len(failures)} of {count} samples of {name} differ:\n" + "\n".join(failures[:20])
    assert count >= OPS[name][0], f"only {count} samples of {name}"


@pytest.mark.parametrize("name", [name for name, (_, errors) in OPS.items() if errors])
def test_invalid_calls(backend: Backend, name: str) -> None:
    count, accepted = 0, []
    for op in op_db:
        if op.name != name or op.error_inputs_func is None or excluded_variant(op):
            continue
        for invalid in op.error_inputs("cpu"):
            count += 1
            sample = invalid.sample_input
            function = getattr(F, name.rpartition(".")[2])
            with pytest.raises((RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)):
                op(sample.input, *sample.args, **sample.kwargs)
            args, kwargs = bind(function, backend, sample)
            try:
                function(*args, **kwargs)
            except TinynetError as error:
                line = str(error)
                if "\n" in line or not line.startswith(function.__name__):
                    accepted.append(f"{describe(sample)}: not one line with the op's name: {line}")
            except Exception as error:
                accepted.append(f"{describe(sample)}: {type(error).__name__}: {error}")
            else:
                accepted.append(f"{describe(sample)}: accepted")
    assert not accepted, f"{len(accepted)} of {count} invalid calls of {name}:\n" + "\n".join(accepted)
    assert count >= OPS[name][1], f"only {count} invalid calls of {name}"
