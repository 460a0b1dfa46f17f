"""relu, relu6, leaky_relu, sigmoid and tanh against PyTorch, at kinks, infinities, NaN and far out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, TOLERANCE, Backend, check_op, check_refused, values
from tinynet.kernels import blocks

Activation = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]

ACTIVATIONS: dict[str, Activation] = {
    "relu": (F.relu, torch.nn.functional.relu, lambda a, y, dy: F.relu_input_gradient(dy, y)),
    "relu6": (
        F.relu6, torch.nn.functional.relu6, lambda a, y, dy: F.relu6_input_gradient(dy, y)
    ),
    "leaky_relu": (
        F.leaky_relu, torch.nn.functional.leaky_relu, lambda a, y, dy: F.leaky_relu_input_gradient(dy, a["input"])
    ),
    "leaky_relu 0.3": (
        lambda input: F.leaky_relu(input, 0.3),
        lambda input: torch.nn.functional.leaky_relu(input, 0.3),
        lambda a, y, dy: F.leaky_relu_input_gradient(dy, a["input"], 0.3),
    ),
    "leaky_relu -2": (
        lambda input: F.leaky_relu(input, -2.0),
        lambda input: torch.nn.functional.leaky_relu(input, -2.0),
        lambda a, y, dy: F.leaky_relu_input_gradient(dy, a["input"], -2.0),
    ),
    "sigmoid": (F.sigmoid, torch.sigmoid, lambda a, y, dy: F.sigmoid_input_gradient(dy, y)),
    "tanh": (F.tanh, torch.tanh, lambda a, y, dy: F.tanh_input_gradient(dy, y)),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(
    st.lists(st.integers(0, 4), max_size=4), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS),
    st.integers(0, 1000),
)  # fmt: skip
def test_activation_and_its_gradient(
    backend: Backend, name: str, shape: list[int], dtype: str, layout: str, seed: int
) -> None:
    forward, reference, gradient = ACTIVATIONS[name]
    inputs = {"input": values(seed, tuple(shape), special=0.3)}
    if name == "relu6":  # at NaN PyTorch says 0 or dy by the number's place in memory: the upper kink instead
        np.nan_to_num(inputs["input"], copy=False, nan=6.0, posinf=np.inf, neginf=-np.inf)
    check_op(backend, forward, reference, inputs, {"input": gradient}, dtype=dtype, layout=layout, seed=seed)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_far_out_and_close_to_zero(backend: Backend, name: str, dtype: str) -> None:
    # Relative to each number, not to the largest: sigmoid(−80) = 2e-35 and tanh(1e-30) = 1e-30 must not be lost.
    forward, reference, _ = ACTIVATIONS[name]
    size = np.array([1e-30, 1e-8, 1e-3, 0.7, 5.0, 20.0, 80.0, 700.0, 1e5, 1e30, np.inf])
    x = np.concatenate([size, -size, [0.0, -0.0]]).astype(dtype)
    with np.errstate(under="ignore"):
        y = backend.host(forward(backend.array(x)))
    expected = reference(torch.from_numpy(x.astype(np.float64))).numpy()
    smallest = float(np.finfo(dtype).tiny)
    np.testing.assert_allclose(y, expected, rtol=10 * TOLERANCE[dtype] if dtype == "float32" else 1e-14, atol=smallest)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_infinite_signal_passes_where_the_slope_is_zero(backend: Backend, name: str) -> None:
    # PyTorch selects instead of multiplying where it can: relu's gradient of an infinite dy is 0 at x < 0 and not NaN.
    forward, reference, gradient = ACTIVATIONS[name]
    x, dy = np.array([-1.0, 0.0, 1.0]), np.array([np.inf, -np.inf, np.nan])
    tensor = torch.tensor(x, requires_grad=True)
    reference(tensor).backward(torch.from_numpy(dy))
    a = {"input": backend.array(x)}
    np.testing.assert_array_equal(
        backend.host(gradient(a, forward(a["input"]), backend.array(dy))), tensor.grad.numpy()
    )


@pytest.mark.parametrize("op", [F.relu, F.relu6, F.leaky_relu])
def test_in_place_writes_into_its_input_and_returns_it(backend: Backend, op: Callable[..., Any]) -> None:
    x = backend.array(values(0, (2, 3)), "strided")
    expected = backend.host(op(x))
    assert op(x, inplace=True) is x
    np.testing.assert_array_equal(backend.host(x), expected)


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "sigmoid", "tanh"])
def test_invalid_calls(backend: Backend, name: str) -> None:
    op = getattr(F, name)
    for dtype in ("int64", "float16", "bool"):  # PyTorch computes some of these; tinynet documents float32 and float64 only
        check_refused(lambda dtype=dtype: op(backend.array(np.zeros(3, dtype))), None, name)
    check_refused(lambda: op([1.0, 2.0]), lambda: getattr(torch, name, torch.relu)([1.0, 2.0]), name)
    gradient = getattr(F, f"{name}_input_gradient")
    x = backend.array(np.zeros((2, 3)))
    for dy in (np.zeros((3, 2)), np.zeros((1, 3)), np.zeros(()), np.zeros((2, 3), np.float32)):
        check_refused(lambda dy=dy: gradient(backend.array(dy), x), None, f"{name}_input_gradient")


@pytest.mark.parametrize("name", ["relu", "sigmoid"])
def test_blocks_join(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What is computed a block at a time, the last of them smaller, is what it is at once."""
    monkeypatch.setattr(blocks, "NUMBERS", 7)
    for shape in ((3, 6), (28,), (4, 2, 5)):
        inputs = {"input": values(0, shape, special=0.2)}
        op, reference, gradient = ACTIVATIONS[name]
        check_op(Backend("numpy", np), op, reference, inputs, {"input": gradient})
