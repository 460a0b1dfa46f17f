"""cross_entropy and nll_loss against PyTorch: values, gradients, weights, ignored targets, smoothing, invalid calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, check_op, check_refused, values
from tinynet.kernels import cuda

REDUCTIONS = st.sampled_from(["none", "mean", "sum"])


@st.composite
def classifications(draw: st.DrawFn) -> dict[str, Any]:
    """Logits (C,), (N, C) or (N, C, d1, …), class numbers of which some are ignored, class weights of which some are 0."""
    classes = draw(st.integers(1, 5))
    rest = draw(st.one_of(st.none(), st.lists(st.integers(1, 3), max_size=3)))
    seed = draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    shape = (classes,) if rest is None else (draw(st.integers(0, 4)), classes, *rest)
    target = rng.integers(0, classes, () if rest is None else (shape[0], *shape[2:]))
    ignore = draw(st.sampled_from([-100, -1, 0, 2]))
    if draw(st.booleans()):
        target = np.where(rng.random(target.shape) < 0.3, ignore, target)
    weight = np.abs(values(seed + 1, (classes,))) if draw(st.booleans()) else None
    if weight is not None and classes > 1:
        weight[draw(st.integers(0, classes - 1))] = 0.0
    return {
        "shape": shape,
        "target": target,
        "weight": weight,
        "ignore_index": ignore,
        "reduction": draw(REDUCTIONS),
        "seed": seed,
    }


def check_classes(backend: Backend, name: str, case: dict[str, Any], dtype: str, layout: str, **more: Any) -> None:
    options = {"ignore_index": case["ignore_index"], "reduction": case["reduction"]} | more
    weight = None if case["weight"] is None else backend.array(case["weight"].astype(dtype))
    torch_weight = None if case["weight"] is None else torch.from_numpy(case["weight"])
    target, seed = np.asarray(case["target"]), case["seed"]
    on_device = backend.array(target.astype(dtype) if target.dtype.kind == "f" else target)
    check_op(
        backend,
        lambda input: getattr(F, name)(input, on_device, weight, **options),
        lambda input: getattr(torch.nn.functional, name)(input, torch.from_numpy(target), torch_weight, **options),
        {"input": values(seed, case["shape"])},
        {
            "input": lambda a, y, dy: getattr(F, f"{name}_input_gradient")(
                a["input"], on_device, weight, **options, dy=dy
            )
        },
        dtype=dtype,
        layout=layout,
        seed=seed,
    )


@given(
    classifications(), st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS)
)
def test_cross_entropy_with_class_numbers(
    backend: Backend, case: dict[str, Any], smoothing: float, dtype: str, layout: str
) -> None:
    check_classes(backend, "cross_entropy", case, dtype, layout, label_smoothing=smoothing)


@given(classifications(), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS))
def test_nll_loss(backend: Backend, case: dict[str, Any], dtype: str, layout: str) -> None:
    check_classes(backend, "nll_loss", case, dtype, layout)


@given(
    classifications(), st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS)
)
def test_cross_entropy_with_class_probabilities(
    backend: Backend, case: dict[str, Any], smoothing: float, dtype: str, layout: str
) -> None:
    # Any numbers will do as "probabilities", as in PyTorch; nothing is normalised.
    probabilities = np.abs(values(case["seed"] + 2, case["shape"])).astype(np.float32).astype(np.float64)
    case = case | {"target": probabilities, "ignore_index": -100}
    check_classes(backend, "cross_entropy", case, dtype, layout, label_smoothing=smoothing)


def test_without_dy_the_gradient_is_that_of_the_loss_itself(backend: Backend) -> None:
    x, target = backend.array(values(0, (4, 3))), backend.array(np.array([0, 2, 1, 1]))
    one = backend.array(np.array(1.0))
    for name in ("cross_entropy", "nll_loss"):
        gradient = getattr(F, f"{name}_input_gradient")
        np.testing.assert_array_equal(backend.host(gradient(x, target)), backend.host(gradient(x, target, dy=one)))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_extreme_logits(backend: Backend, reduction: str, smoothing: float) -> None:
    x = np.array([[1e4, 0, -1e4], [-1e4, 0, 1e4], [-np.inf, 0.0, 1.0], [np.inf, 0, 0], [np.nan, 0, 0]])
    target = np.array([0, 0, 1, 1, 1])
    for rows in ([0], [1], [2], [3], [4], [0, 1, 2]):
        tensor = torch.tensor(x[rows], requires_grad=True)
        expected = torch.nn.functional.cross_entropy(
            tensor, torch.from_numpy(target[rows]), reduction=reduction, label_smoothing=smoothing
        )
        expected.sum().backward()
        a, t = backend.array(x[rows]), backend.array(target[rows])
        got = backend.host(F.cross_entropy(a, t, reduction=reduction, label_smoothing=smoothing))
        np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-12)
        dx = F.cross_entropy_input_gradient(a, t, reduction=reduction, label_smoothing=smoothing)
        np.testing.assert_allclose(backend.host(dx), tensor.grad.numpy(), atol=1e-12)


def test_no_samples_of_no_classes(backend: Backend) -> None:
    x, target = np.zeros((0, 0)), np.zeros(0, np.int64)
    for smoothing in (0.0, 0.1):
        value = F.cross_entropy(backend.array(x), backend.array(target), label_smoothing=smoothing, reduction="sum")
        assert backend.host(value) == 0


def test_uint8_class_numbers(backend: Backend) -> None:
    x, target = values(0, (4, 3)), np.array([0, 2, 1, 1], np.uint8)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(x), torch.from_numpy(target)).numpy()
    np.testing.assert_allclose(backend.host(F.cross_entropy(backend.array(x), backend.array(target))), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_everything_ignored_is_nan_for_the_mean_and_quietly_so(backend: Backend, name: str, dtype: str) -> None:
    x, target = np.zeros((2, 3), dtype), np.full(2, -100)
    for reduction in ("none", "mean", "sum"):
        tensor = torch.tensor(x, requires_grad=True)
        expected = getattr(torch.nn.functional, name)(tensor, torch.from_numpy(target), reduction=reduction)
        expected.sum().backward()
        a, t = backend.array(x), backend.array(target)
        got = backend.host(getattr(F, name)(a, t, reduction=reduction))
        np.testing.assert_array_equal(got, expected.detach().numpy())
        assert got.dtype == dtype
        dx = backend.host(getattr(F, f"{name}_input_gradient")(a, t, reduction=reduction))
        np.testing.assert_array_equal(dx, tensor.grad.numpy())


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_a_mean_over_no_weight(backend: Backend, name: str) -> None:
    x, target, weight = values(0, (2, 3)), np.array([1, 1]), np.array([1.0, 0.0, 2.0])
    tensor = torch.tensor(x, requires_grad=True)
    expected = getattr(torch.nn.functional, name)(tensor, torch.from_numpy(target), torch.from_numpy(weight))
    expected.backward()
    arrays = [backend.array(a) for a in (x, target, weight)]
    np.testing.assert_array_equal(backend.host(getattr(F, name)(*arrays)), expected.detach().numpy())
    np.testing.assert_array_equal(backend.host(getattr(F, f"{name}_input_gradient")(*arrays)), tensor.grad.numpy())


# (input, target, weight, options)
T4 = np.array([0, 1, 2, 0])
INVALID = {
    "a target too large": ((4, 3), T4 + 1, None, {}),
    "a target below 0": ((4, 3), T4 - 1, None, {}),
    "fewer targets": ((4, 3), T4[:3], None, {}),
    "one target": ((4, 3), T4[:1], None, {}),
    "targets as a column": ((4, 3), T4[:, None], None, {}),
    "targets of int32": ((4, 3), T4.astype(np.int32), None, {}),
    "targets of bool": ((4, 3), T4.astype(bool), None, {}),
    "class numbers as floats": ((4, 3), T4.astype(np.float64), None, {}),
    "targets of another map size": ((2, 3, 4), np.zeros((2, 5), np.int64), None, {}),
    "no classes": ((2, 0, 3), np.full((2, 3), -100), None, {}),
    "an input without axes": ((), np.array(0), None, {}),
    "weights for other classes": ((4, 3), T4, np.ones(2), {}),
    "a weight for all": ((4, 3), T4, np.ones(1), {}),
    "weights of two axes": ((4, 3), T4, np.ones((1, 3)), {}),
    "weights of another dtype": ((4, 3), T4, np.ones(3, np.float32), {}),
    "unknown reduction": ((4, 3), T4, None, {"reduction": "average"}),
    "one-hot targets as integers": ((4, 3), np.eye(4, 3, dtype=np.int64), None, {}),
}
INVALID_CROSS_ENTROPY = {
    "smoothing above 1": ((4, 3), T4, None, {"label_smoothing": 1.5}),
    "ignore_index with probabilities": ((4, 3), np.ones((4, 3)), None, {"ignore_index": 1}),
    "probabilities for other classes": ((4, 3), np.ones((4, 2)), None, {}),
}


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("what", INVALID | INVALID_CROSS_ENTROPY)
def test_invalid_calls(backend: Backend, name: str, what: str) -> None:
    if what in INVALID_CROSS_ENTROPY and name == "nll_loss":
        return
    shape, target, weight, options = (INVALID | INVALID_CROSS_ENTROPY)[what]
    x = np.zeros(shape)
    arrays = [backend.array(x), backend.array(target), None if weight is None else backend.array(weight)]
    if what.startswith("a target") and cuda.here(arrays[0]):
        assert np.isnan(backend.host(getattr(F, name)(*arrays)))    # the host does not wait to find out
        bad = (target < 0) | (target > 2)
        dx = backend.host(getattr(F, f"{name}_input_gradient")(*arrays))
        assert (np.isnan(dx).any(axis=1) == bad).all()
        return
    check_refused(
        lambda: getattr(F, name)(*arrays, **options),
        lambda: getattr(torch.nn.functional, name)(
            torch.from_numpy(x), torch.from_numpy(target), None if weight is None else torch.from_numpy(weight), **options
        ),
        name,
    )
    check_refused(lambda: getattr(F, f"{name}_input_gradient")(*arrays, **options), None, f"{name}_input_gradient")


def test_what_tinynet_refuses_and_pytorch_does_not(backend: Backend) -> None:
    x, target = backend.array(np.zeros((4, 3))), backend.array(T4)
    check_refused(lambda: F.cross_entropy(x, target, label_smoothing=-0.1), None, "cross_entropy")  # makes no distribution
    other = backend.array(np.zeros((4, 3), np.float32))
    check_refused(lambda: F.cross_entropy(x, other), None, "cross_entropy")  # would be upcast


def test_gradients_refuse_a_signal_of_the_wrong_shape(backend: Backend) -> None:
    x, target = backend.array(np.zeros((4, 3))), backend.array(T4)
    four = backend.array(np.zeros(4))
    for name in ("cross_entropy", "nll_loss"):
        gradient = getattr(F, f"{name}_input_gradient")
        check_refused(lambda g=gradient: g(x, target, dy=four), None, f"{name}_input_gradient")
        check_refused(lambda g=gradient: g(x, target, reduction="none", dy=four[:3]), None, f"{name}_input_gradient")
