"""batch_norm against PyTorch: values, running statistics, all gradients, invalid calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, check_op, check_refused, close, values


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Any]:
    shape = (draw(st.integers(0, 4)), draw(st.integers(1, 3)), *draw(st.lists(st.integers(0, 3), max_size=3)))
    training = draw(st.booleans())
    statistics = draw(st.booleans()) or not training
    assume(not training or shape[0] * int(np.prod(shape[2:])) != 1)
    return {
        "shape": shape,
        "training": training,
        "statistics": statistics,
        "weight": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "momentum": draw(st.sampled_from([0.1, 0.0, 1.0, 0.5, -1.2])),
        "eps": draw(st.sampled_from([1e-5, 0.5])),
        "seed": draw(st.integers(0, 1000)),
    }


@given(batches(), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS))
def test_batch_norm_its_statistics_and_gradients(backend: Backend, case: dict[str, Any], dtype: str, layout: str) -> None:
    shape, seed, training, eps = case["shape"], case["seed"], case["training"], case["eps"]
    channels = (shape[1],)
    start = values(seed + 3, channels), np.abs(values(seed + 4, channels)) + 0.5
    start = tuple(v.astype(np.float32).astype(np.float64) for v in start)
    running = [backend.array(v.astype(dtype)) if case["statistics"] else None for v in start]
    fixed = [backend.array(v.astype(dtype)) if case["statistics"] else None for v in start]
    torch_running = [torch.from_numpy(v.copy()) if case["statistics"] else None for v in start]
    check_op(
        backend,
        lambda input, weight, bias: F.batch_norm(input, *running, weight, bias, training, case["momentum"], eps),
        lambda input, weight, bias: torch.nn.functional.batch_norm(
            input, *torch_running, weight, bias, training, case["momentum"], eps
        ),
        {
            "input": values(seed, shape),
            "weight": values(seed + 1, channels) if case["weight"] else None,
            "bias": values(seed + 2, channels) if case["bias"] else None,
        },
        {
            "input": lambda a, y, dy: F.batch_norm_input_gradient(dy, a["input"], *fixed, a["weight"], training, eps),
            "weight": lambda a, y, dy: F.batch_norm_weight_gradient(dy, a["input"], *fixed, training, eps),
            "bias": lambda a, y, dy: F.batch_norm_bias_gradient(dy),
        },
        dtype=dtype,
        layout=layout,
        seed=seed,
    )
    for got, expected, name in zip(running, torch_running, ("running_mean", "running_var"), strict=True):
        if got is not None:
            close(backend.host(got), expected.numpy(), dtype, name)


def test_a_large_mean_does_not_drown_the_variance(backend: Backend) -> None:
    # Two passes: Σx²/n − mean² would lose every digit here.
    x = (values(0, (64, 2, 4)) + 1e4).astype(np.float32)
    y = backend.host(F.batch_norm(backend.array(x), None, None, training=True))
    expected = torch.nn.functional.batch_norm(torch.from_numpy(x).double(), None, None, training=True).numpy()
    np.testing.assert_allclose(y, expected, atol=2e-3)


def test_gradients_of_a_batch_add_up_to_nothing(backend: Backend) -> None:
    # The output does not change when a channel is shifted or scaled, so the gradient is orthogonal to both directions.
    x, dy = values(1, (5, 3, 4)), values(2, (5, 3, 4))
    dx = backend.host(F.batch_norm_input_gradient(backend.array(dy), backend.array(x), None, None, None, True, 0.0))
    np.testing.assert_allclose(dx.sum((0, 2)), 0, atol=1e-13)
    np.testing.assert_allclose((dx * (x - x.mean((0, 2), keepdims=True))).sum((0, 2)), 0, atol=1e-12)


ONES, THREE = np.ones(3), (4, 3)
# (input shape, running_mean, running_var, weight, bias, options)
INVALID = {
    "an input of one axis": ((3,), ONES, ONES, None, None, {}),
    "a mean for other channels": (THREE, np.ones(2), ONES, None, None, {}),
    "a variance for other channels": (THREE, ONES, np.ones(4), None, None, {}),
    "a weight for other channels": (THREE, ONES, ONES, np.ones(1), None, {}),
    "a bias for other channels": (THREE, ONES, ONES, None, np.ones(4), {}),
    "no statistics": (THREE, None, None, None, None, {}),
    "no variance": (THREE, ONES, None, None, None, {}),
    "no mean": (THREE, None, ONES, None, None, {}),
    "no variance in training": (THREE, ONES, None, None, None, {"training": True}),
    "one value a channel": ((1, 3), ONES, ONES, None, None, {"training": True}),
    "one value a channel of a map": ((1, 3, 1, 1), ONES, ONES, None, None, {"training": True}),
    "a negative eps": (THREE, ONES, ONES, None, None, {"eps": -1.0}),
    "statistics of another dtype": (THREE, ONES.astype(np.float32), ONES.astype(np.float32), None, None, {}),
    "a weight of another dtype": (THREE, ONES, ONES, ONES.astype(np.float32), None, {}),
    "integers": ((4, 3, 2), ONES, ONES, None, None, {"dtype": np.int64}),
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_batch_norm_calls(backend: Backend, what: str) -> None:
    shape, *vectors, options = INVALID[what]
    options = dict(options)
    x = np.ones(shape, options.pop("dtype", np.float64))
    check_refused(
        lambda: F.batch_norm(backend.array(x), *(None if v is None else backend.array(v) for v in vectors), **options),
        lambda: torch.nn.functional.batch_norm(
            torch.from_numpy(x), *(None if v is None else torch.from_numpy(v.copy()) for v in vectors), **options
        ),
        "batch_norm",
    )


def test_gradients_refuse_a_signal_of_the_wrong_shape(backend: Backend) -> None:
    x, ones = backend.array(np.ones((4, 3, 2))), backend.array(ONES)
    for shape in [(4, 3), (4, 3, 1), (1, 3, 2), (3, 4, 2)]:
        dy = backend.array(np.ones(shape))
        check_refused(lambda dy=dy: F.batch_norm_input_gradient(dy, x, ones, ones), None, "batch_norm_input_gradient")
        check_refused(lambda dy=dy: F.batch_norm_weight_gradient(dy, x, ones, ones), None, "batch_norm_weight_gradient")
    check_refused(lambda: F.batch_norm_input_gradient(x, x, ones, None), None, "batch_norm_input_gradient")
    check_refused(lambda: F.batch_norm_input_gradient(x, x, None, None), None, "batch_norm_input_gradient")
    check_refused(lambda: F.batch_norm_weight_gradient(x, x, None, None), None, "batch_norm_weight_gradient")
