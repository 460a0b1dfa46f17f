"""max_unpool1d/2d/3d against PyTorch: values, gradient, output_size, its relation to max-pooling, invalid calls."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, adjoint, check_op, check_refused, values

TORCH = {n: getattr(torch.nn.functional, f"max_unpool{n}d") for n in (1, 2, 3)}


@st.composite
def unpoolings(draw: st.DrawFn) -> dict[str, Any]:
    """Distinct random switches, and an output size within a stride of the default (or none)."""
    n = draw(st.integers(1, 3))
    numbers = partial(st.lists, min_size=n, max_size=n)
    kernel, stride, size = draw(numbers(st.integers(1, 3))), draw(numbers(st.integers(1, 3))), draw(numbers(st.integers(1, 3)))
    padding = draw(numbers(st.integers(0, 1)))
    given_stride = draw(st.booleans())
    steps = stride if given_stride else kernel
    default = [(m - 1) * s + k - 2 * p for m, s, k, p in zip(size, steps, kernel, padding, strict=True)]
    wanted = [d + draw(st.integers(1 - s, s - 1)) for d, s in zip(default, steps, strict=True)]
    form = draw(st.sampled_from(["none", "sizes", "shape"]))
    out = default if form == "none" else wanted
    assume(min(out) >= 1 and np.prod(out) >= np.prod(size))
    batch = draw(st.sampled_from([(), (0,), (1,), (2,)]))
    channels = draw(st.integers(1, 2))
    seed = draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    planes = int(np.prod((*batch, channels)))
    switches = np.array([rng.permutation(np.prod(out))[: np.prod(size)] for _ in range(planes)], dtype=np.int64)
    return {
        "n": n,
        "input": (*batch, channels, *size),
        "indices": switches.reshape(*batch, channels, *size),
        "options": {
            "kernel_size": tuple(kernel),
            "stride": tuple(stride) if given_stride else None,
            "padding": tuple(padding),
            "output_size": {"none": None, "sizes": tuple(out), "shape": (*(batch or (1,)), channels, *out)}[form],
        },
        "seed": seed,
    }


@given(unpoolings(), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS))
def test_max_unpool_and_its_gradient(backend: Backend, case: dict[str, Any], dtype: str, layout: str) -> None:
    n, options, seed = case["n"], case["options"], case["seed"]
    indices = backend.array(case["indices"], layout)
    check_op(
        backend,
        lambda input: getattr(F, f"max_unpool{n}d")(input, indices, **options),
        lambda input: TORCH[n](input, torch.from_numpy(case["indices"]), **options),
        {"input": values(seed, case["input"])},
        {"input": lambda a, y, dy: getattr(F, f"max_unpool{n}d_input_gradient")(dy, indices)},
        dtype=dtype,
        layout=layout,
        seed=seed,
    )
    np.testing.assert_array_equal(backend.host(indices), case["indices"])


@given(unpoolings())
def test_the_gradient_is_the_adjoint(backend: Backend, case: dict[str, Any]) -> None:
    n, indices = case["n"], backend.array(case["indices"])
    x = backend.array(values(case["seed"], case["input"]))
    y = getattr(F, f"max_unpool{n}d")(x, indices, **case["options"])
    dy = backend.array(values(case["seed"] + 1, tuple(y.shape)))
    adjoint(backend, y, dy, x, getattr(F, f"max_unpool{n}d_input_gradient")(dy, indices))


def test_unpooling_inverts_pooling_at_the_maxima(backend: Backend) -> None:
    x = backend.array(values(1, (2, 3, 8, 6)))
    y, switches = F.max_pool2d(x, 2, return_indices=True)
    back = F.max_unpool2d(y, switches, 2)
    host = backend.host(back)
    np.testing.assert_array_equal(host[host != 0], backend.host(x)[host != 0])
    again, same = F.max_pool2d(backend.array(np.where(host == 0, -9, host)), 2, return_indices=True)
    np.testing.assert_array_equal(backend.host(again), backend.host(y))
    np.testing.assert_array_equal(backend.host(same), backend.host(switches))


def test_where_windows_share_a_cell_the_last_one_stays(backend: Backend) -> None:
    # PyTorch writes in order on a CPU; each of the windows receives the cell's gradient.
    x, indices = np.array([[[1.0, 2.0, 3.0]]]), np.array([[[0, 2, 2]]])
    y = F.max_unpool1d(backend.array(x), backend.array(indices), 3, 1, 1)
    assert y.shape == (1, 1, 3)
    assert backend.host(y)[0, 0, 0] == 1
    if backend.name != "cupy":  # the order of a GPU's writes is not defined, as in PyTorch
        np.testing.assert_array_equal(backend.host(y), [[[1, 0, 3]]])
    dy = backend.array(np.array([[[5.0, 6.0, 7.0]]]))
    np.testing.assert_array_equal(backend.host(F.max_unpool1d_input_gradient(dy, backend.array(indices))), [[[5, 7, 7]]])


GOOD = np.zeros((1, 2, 2, 2), np.int64)
INVALID = {
    "indices of another shape": ((1, 2, 2, 2), GOOD[..., :1], {"kernel_size": 2}),
    "indices of another number of axes": ((1, 2, 2, 2), GOOD[0], {"kernel_size": 2}),
    "indices of int32": ((1, 2, 2, 2), GOOD.astype(np.int32), {"kernel_size": 2}),
    "indices of float64": ((1, 2, 2, 2), GOOD.astype(np.float64), {"kernel_size": 2}),
    "an index behind the plane": ((1, 2, 2, 2), GOOD + 16, {"kernel_size": 2}),
    "a negative index": ((1, 2, 2, 2), GOOD - 1, {"kernel_size": 2}),
    "input of two axes": ((2, 2), np.zeros((2, 2), np.int64), {"kernel_size": 2}),
    "no channels": ((1, 0, 2, 2), GOOD[:, :0], {"kernel_size": 2}),
    "no cells": ((1, 2, 0, 2), GOOD[:, :, :0], {"kernel_size": 2}),
    "output_size too large": ((1, 2, 2, 2), GOOD, {"kernel_size": 2, "output_size": (6, 4)}),
    "output_size too small": ((1, 2, 2, 2), GOOD, {"kernel_size": 2, "output_size": (4, 2)}),
    "output_size of one number": ((1, 2, 2, 2), GOOD, {"kernel_size": 2, "output_size": (4,)}),
    "kernel of three numbers": ((1, 2, 2, 2), GOOD, {"kernel_size": (2, 2, 2)}),
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_calls(backend: Backend, what: str) -> None:
    shape, indices, options = INVALID[what]
    check_refused(
        lambda: F.max_unpool2d(backend.array(np.zeros(shape)), backend.array(indices), **options),
        lambda: torch.nn.functional.max_unpool2d(torch.zeros(shape), torch.from_numpy(indices), **options),
        "max_unpool2d",
    )


def test_padding_that_leaves_nothing_is_refused(backend: Backend) -> None:
    # PyTorch returns an empty array here, and what was to be unpooled is lost without a word.
    call = lambda: F.max_unpool2d(backend.array(np.zeros((1, 2, 2, 2))), backend.array(GOOD), 2, padding=2)  # noqa: E731
    check_refused(call, None, "max_unpool2d")


def test_the_gradient_refuses_what_does_not_belong_together(backend: Backend) -> None:
    dy, indices = backend.array(np.zeros((1, 2, 4, 4))), backend.array(GOOD)
    for call in (
        lambda: F.max_unpool2d_input_gradient(dy, indices[0]),
        lambda: F.max_unpool2d_input_gradient(dy[:, :1], indices),
        lambda: F.max_unpool2d_input_gradient(dy[0, 0], indices[0, 0]),
        lambda: F.max_unpool2d_input_gradient(dy, indices + 16),
        lambda: F.max_unpool2d_input_gradient(dy, dy),
    ):
        check_refused(call, None, "max_unpool2d_input_gradient")
