"""mse_loss against PyTorch: values, gradients, weights, invalid calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, check_op, check_refused, values

REDUCTIONS = st.sampled_from(["none", "mean", "sum"])


@given(
    st.lists(st.integers(0, 4), max_size=3), REDUCTIONS, st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS),
    st.integers(0, 1000),
)  # fmt: skip
def test_mse_loss(backend: Backend, shape: list[int], reduction: str, dtype: str, layout: str, seed: int) -> None:
    target = values(seed + 1, tuple(shape))
    on_device = backend.array(target.astype(dtype), layout)
    check_op(
        backend,
        lambda input: F.mse_loss(input, on_device, reduction=reduction),
        lambda input: torch.nn.functional.mse_loss(input, torch.from_numpy(target), reduction=reduction),
        {"input": values(seed, tuple(shape))},
        {"input": lambda a, y, dy: F.mse_loss_input_gradient(a["input"], on_device, reduction=reduction, dy=dy)},
        dtype=dtype,
        layout=layout,
        seed=seed,
    )


@given(st.lists(st.integers(0, 4), max_size=3), REDUCTIONS, st.integers(0, 1000))
def test_weighted_mse_loss(backend: Backend, shape: list[int], reduction: str, seed: int) -> None:
    target, weight = values(seed + 1, tuple(shape)), np.asarray(np.abs(values(seed + 2, tuple(shape))))
    arrays = backend.array(target), backend.array(weight)
    check_op(
        backend,
        lambda input: F.mse_loss(input, arrays[0], reduction=reduction, weight=arrays[1]),
        lambda input: torch.nn.functional.mse_loss(
            input, torch.from_numpy(target), reduction=reduction, weight=torch.from_numpy(weight)
        ),
        {"input": values(seed, tuple(shape))},
        {
            "input": lambda a, y, dy: F.mse_loss_input_gradient(
                a["input"], arrays[0], reduction=reduction, weight=arrays[1], dy=dy
            )
        },
        seed=seed,
    )


def test_without_dy_the_gradient_is_that_of_the_loss_itself(backend: Backend) -> None:
    x, goal = backend.array(values(0, (4, 3))), backend.array(values(1, (4, 3)))
    one = backend.array(np.array(1.0))
    np.testing.assert_array_equal(
        backend.host(F.mse_loss_input_gradient(x, goal)), backend.host(F.mse_loss_input_gradient(x, goal, dy=one))
    )


def test_what_tinynet_refuses_and_pytorch_does_not(backend: Backend) -> None:
    x, other = backend.array(np.zeros((4, 3))), backend.array(np.zeros((4, 3), np.float32))
    check_refused(lambda: F.mse_loss(x, other), None, "mse_loss")
    for shape in [(3,), (1, 3), (4, 1), ()]:  # PyTorch broadcasts, with a warning
        check_refused(lambda shape=shape: F.mse_loss(x, backend.array(np.zeros(shape))), None, "mse_loss")
    check_refused(lambda: F.mse_loss(x, backend.array(np.zeros((4, 3), np.int64))), None, "mse_loss")


@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
def test_invalid_mse_calls(backend: Backend) -> None:
    for target, options in ((np.zeros(3), {"reduction": "x"}), (np.zeros(4), {}), (np.zeros(4), {"reduction": "none"})):
        check_refused(
            lambda t=target, o=options: F.mse_loss(backend.array(np.zeros(3)), backend.array(t), **o),
            lambda t=target, o=options: torch.nn.functional.mse_loss(torch.zeros(3), torch.from_numpy(t), **o),
            "mse_loss",
        )


def test_the_gradient_refuses_a_signal_of_the_wrong_shape(backend: Backend) -> None:
    x, goal, four = (backend.array(np.zeros(shape)) for shape in ((4, 3), (4, 3), 4))
    check_refused(lambda: F.mse_loss_input_gradient(x, goal, dy=four), None, "mse_loss_input_gradient")
    check_refused(
        lambda: F.mse_loss_input_gradient(x, goal, reduction="none", dy=four[:3]), None, "mse_loss_input_gradient"
    )
