"""What every gradient asks of its arrays: one floating dtype, arrays, one device. And that every op is in the other tests."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import tinynet.functional as F
from tests.checking import Backend, check_refused
from tests.device_double import device_module
from tinynet.errors import DeviceError

MAP, MAP2, INDICES = np.ones((2, 3, 4, 4)), np.ones((2, 3, 2, 2)), np.zeros((2, 3, 2, 2), np.int64)
FILTERS, ROWS, CLASSES = np.ones((5, 3, 3, 3)), np.ones((4, 3)), np.array([0, 1, 2, 0])
THREE = np.ones(3)


def sized(array: np.ndarray, n: int) -> np.ndarray:
    """The same with n spatial axes of that array's last size."""
    return np.ones((*array.shape[:2], *array.shape[-1:] * n), array.dtype) * array.ravel()[0]


CALLS: dict[str, dict[str, Any]] = {
    "conv_bias_gradient": {"dy": MAP},
    "adaptive_avg_pool2d_input_gradient": {"dy": MAP2, "input_size": MAP.shape},
    "linear_input_gradient": {"dy": ROWS, "weight": np.ones((3, 5))},
    "linear_weight_gradient": {"dy": ROWS, "input": np.ones((4, 5))},
    "linear_bias_gradient": {"dy": ROWS},
    "relu_input_gradient": {"dy": ROWS, "output": ROWS},
    "relu6_input_gradient": {"dy": ROWS, "output": ROWS},
    "leaky_relu_input_gradient": {"dy": ROWS, "input": ROWS},
    "sigmoid_input_gradient": {"dy": ROWS, "output": ROWS},
    "tanh_input_gradient": {"dy": ROWS, "output": ROWS},
    "softmax_input_gradient": {"dy": ROWS, "output": ROWS, "dim": 1},
    "log_softmax_input_gradient": {"dy": ROWS, "output": ROWS, "dim": 1},
    "cross_entropy_input_gradient": {"input": ROWS, "target": CLASSES, "weight": THREE, "dy": np.ones(())},
    "nll_loss_input_gradient": {"input": ROWS, "target": CLASSES, "weight": THREE, "dy": np.ones(())},
    "mse_loss_input_gradient": {"input": ROWS, "target": ROWS, "weight": ROWS, "dy": np.ones(())},
    "group_logsumexp_input_gradient": {
        "dy": np.ones((4, 2)), "input": ROWS, "output": np.ones((4, 2)), "groups": [[1], [0, 2]]
    },
    "dropout_input_gradient": {"dy": ROWS, "mask": ROWS},
    "batch_norm_input_gradient": {
        "dy": ROWS, "input": ROWS, "running_mean": THREE, "running_var": THREE, "weight": THREE
    },
    "batch_norm_weight_gradient": {"dy": ROWS, "input": ROWS, "running_mean": THREE, "running_var": THREE},
    "batch_norm_bias_gradient": {"dy": ROWS},
    "local_response_norm_input_gradient": {"dy": MAP, "input": MAP, "size": 2},
    "pad_input_gradient": {"dy": np.ones((2, 3, 6)), "input_size": (2, 3, 4), "pad": (1, 1)},
    "interpolate_input_gradient": {"dy": MAP, "input_size": MAP2.shape, "size": 4},
}  # fmt: skip
for n in (1, 2, 3):
    big, small, w = sized(MAP, n), sized(MAP2, n), sized(FILTERS, n)
    back = np.ones((2, 5, *[2] * n))
    CALLS |= {
        f"conv{n}d_input_gradient": {"input_size": big.shape, "weight": w, "dy": back},
        f"conv{n}d_weight_gradient": {"input": big, "weight_size": w.shape, "dy": back},
        f"conv_transpose{n}d_input_gradient": {"dy": big, "weight": np.ones((5, 3, *[3] * n))},
        f"conv_transpose{n}d_weight_gradient": {"input": back, "weight_size": (5, 3, *[3] * n), "dy": big},
        f"max_pool{n}d_input_gradient": {"dy": small, "indices": sized(INDICES, n), "input_size": big.shape},
        f"max_unpool{n}d_input_gradient": {"dy": big, "indices": sized(INDICES, n)},
        f"avg_pool{n}d_input_gradient": {"dy": small, "input_size": big.shape, "kernel_size": 2},
    }


def place(backend: Backend, arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: backend.array(v) if isinstance(v, np.ndarray) else v for name, v in arguments.items()}


def test_every_gradient_is_in_the_table() -> None:
    assert set(CALLS) == {name for name in F.__all__ if name.endswith("_gradient")}


@pytest.mark.parametrize("name", CALLS)
def test_the_call_itself_is_valid(backend: Backend, name: str) -> None:
    result = getattr(F, name)(**place(backend, CALLS[name]))
    assert backend.host(result).dtype == np.float64


@pytest.mark.parametrize("name", CALLS)
def test_arrays_of_another_kind_are_refused(backend: Backend, name: str) -> None:
    good = CALLS[name]
    arrays = [key for key, value in good.items() if isinstance(value, np.ndarray)]
    floats = [key for key in arrays if good[key].dtype == np.float64]
    for key in arrays:
        kinds = [np.int32, np.float16]
        if len(floats) > 1 or key not in floats:  # a single float32 among float64, or in the place of class numbers or switches
            kinds.append(np.float32)
        for kind in kinds:
            bad = place(backend, good | {key: good[key].astype(kind)})
            check_refused(lambda bad=bad: getattr(F, name)(**bad), None, name)
        for foreign in ([[1.0]], 1.0, "dy"):
            bad = place(backend, good) | {key: foreign}
            check_refused(lambda bad=bad: getattr(F, name)(**bad), None, name)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_of_two_devices_are_refused(name: str) -> None:
    good = CALLS[name]
    arrays = [key for key, value in good.items() if isinstance(value, np.ndarray)]
    for key in arrays if len(arrays) > 1 else []:
        with pytest.raises(DeviceError, match="to_device"):
            getattr(F, name)(**good | {key: device_module.asarray(good[key])})


SIX, NONE = np.ones((1,) * 6), np.zeros((1,) * 6, np.int64)  # more axes than any op takes
BAD_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "conv": [
        {"stride": 0}, {"stride": -1}, {"stride": 1.5}, {"stride": (1,) * 4}, {"dilation": 0}, {"padding": -1},
        {"padding": 0.5}, {"groups": 0}, {"groups": 2},
    ],
    "avg_pool": [
        {"kernel_size": 0}, {"kernel_size": 9}, {"stride": 0}, {"padding": 2}, {"padding": -1}, {"input_size": (2, 0, 4, 4)},
    ],
    "adaptive": [
        {"dy": SIX, "input_size": SIX.shape}, {"input_size": (2, 4, 4, 4)}, {"input_size": (3, 3, 4, 4)},
        {"input_size": (3, 4, 4)},
    ],
    "softmax": [{"dim": 2}, {"dim": -3}, {"dim": 1.0}],
    "log_softmax": [{"dim": 2}, {"dim": -3}, {"dim": 1.0}],
    "cross_entropy": [{"reduction": "average"}, {"label_smoothing": 1.5}, {"target": CLASSES + 1}, {"target": CLASSES[:3]}],
    "nll_loss": [{"reduction": "average"}, {"target": CLASSES + 1}, {"target": CLASSES[:3]}],
    "mse_loss": [{"reduction": "average"}, {"target": ROWS[:3]}, {"weight": THREE}],
    "batch_norm": [{"running_mean": None}, {"running_var": np.ones(2)}],
    "local_response_norm": [{"size": 0}, {"size": 1.5}],
    "pad": [{"pad": (1,)}, {"pad": (-5, 7)}, {"mode": "mirror"}, {"input_size": (2, 3, 5)}],
    "interpolate": [{"size": 5}, {"size": None}, {"mode": "cubic"}, {"input_size": (2, 3, 2)}, {"align_corners": True}],
    "max_pool": [
        {"input_size": (2, 4, 4, 4)}, {"input_size": (3, 4, 4)}, {"dy": SIX, "indices": NONE, "input_size": SIX.shape},
    ],
    "group": [
        {"dy": np.ones((4, 1))}, {"groups": [[0, 1]]}, {"groups": [[0], [1, 2], []]}, {"groups": [[0, 1], [1, 2]]},
        {"input": ROWS[0]},
    ],
    "max_unpool": [{"dy": SIX, "indices": NONE}],
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_options_that_do_not_fit_are_refused(backend: Backend, name: str) -> None:
    bad = next((options for prefix, options in BAD_OPTIONS.items() if name.startswith(prefix)), [])
    taken = inspect.signature(getattr(F, name)).parameters
    for options in bad if name != "batch_norm_bias_gradient" else []:
        if set(options) <= set(taken):
            call = place(backend, CALLS[name] | options)
            check_refused(lambda call=call: getattr(F, name)(**call), None, name)


def test_names_and_defaults_are_pytorchs() -> None:
    import torch

    own = ("dropout_mask", "group_logsumexp", "conv_relu", "conv_gradients")
    ops = [name for name in F.__all__ if not name.endswith("_gradient") and name not in own]
    assert len(ops) == 32
    for name in ops:
        ours = inspect.signature(getattr(F, name)).parameters
        try:
            theirs = inspect.signature(getattr(torch.nn.functional, name)).parameters
        except ValueError:  # written in C++: conv, avg_pool, linear, …; their arguments are in the parity tests
            continue
        if {"args", "kwargs"} & set(theirs):
            continue
        left_out = {"_stacklevel", "size_average", "reduce"}
        assert [n for n in ours if n != "rng"] == [n for n in theirs if n in ours], name  # the order too
        assert set(theirs) - set(ours) <= left_out, name
        for n, parameter in ours.items():
            if n != "rng":
                assert parameter.default == theirs[n].default, f"{name}({n}=)"
