"""avg_pool1d/2d/3d and adaptive_avg_pool2d against PyTorch: values, gradients, exactly PyTorch's valid calls."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, adjoint, check_op, check_refused, values
from tinynet.errors import TinynetError

TORCH = {n: getattr(torch.nn.functional, f"avg_pool{n}d") for n in (1, 2, 3)}


@st.composite
def poolings(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(1, 3))
    numbers = partial(st.lists, min_size=n, max_size=n)
    kernel, stride = draw(numbers(st.integers(1, 4))), draw(numbers(st.integers(1, 5)))
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    # PyTorch's avg_pool3d refuses an input smaller than the kernel, whatever the padding.
    least = kernel if n == 3 else [max(1, k - 2 * p) for k, p in zip(kernel, padding, strict=True)]
    size = [smallest + draw(st.integers(0, 5)) for smallest in least]
    options = {
        "kernel_size": tuple(kernel),
        "stride": draw(st.sampled_from([None, tuple(stride)])),
        "padding": tuple(padding),
        "ceil_mode": draw(st.booleans()),
        "count_include_pad": draw(st.booleans()),
    }
    if n > 1:
        options["divisor_override"] = draw(st.sampled_from([None, None, 1, 3, -2]))
    return {
        "n": n,
        "input": (*draw(st.sampled_from([(), (0,), (1,), (2,)])), draw(st.integers(1, 2)), *size),
        "options": options,
        "seed": draw(st.integers(0, 1000)),
    }


@given(poolings(), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS))
def test_avg_pool_and_its_gradient(backend: Backend, case: dict[str, Any], dtype: str, layout: str) -> None:
    n, options = case["n"], case["options"]
    check_op(
        backend,
        partial(getattr(F, f"avg_pool{n}d"), **options),
        partial(TORCH[n], **options),
        {"input": values(case["seed"], case["input"])},
        {"input": lambda a, y, dy: getattr(F, f"avg_pool{n}d_input_gradient")(dy, a["input"].shape, **options)},
        dtype=dtype,
        layout=layout,
        seed=case["seed"],
    )


@given(poolings())
def test_the_gradient_is_the_adjoint(backend: Backend, case: dict[str, Any]) -> None:
    n, x = case["n"], backend.array(values(case["seed"], case["input"]))
    y = getattr(F, f"avg_pool{n}d")(x, **case["options"])
    dy = backend.array(values(case["seed"] + 1, tuple(y.shape)))
    adjoint(backend, y, dy, x, getattr(F, f"avg_pool{n}d_input_gradient")(dy, x.shape, **case["options"]))


def test_nan_stays_in_the_windows_that_see_it(backend: Backend) -> None:
    x = np.zeros((1, 1, 6))
    x[0, 0, 2] = np.nan
    y = backend.host(F.avg_pool1d(backend.array(x), 2, 1))
    np.testing.assert_array_equal(np.isnan(y[0, 0]), [False, True, True, False, False])


@settings(max_examples=150)
@given(
    st.integers(1, 3), st.lists(st.integers(0, 4), min_size=0, max_size=6), st.integers(-1, 3), st.integers(-1, 3),
    st.integers(-1, 2), st.booleans(), st.booleans(),
)  # fmt: skip
def test_exactly_the_calls_that_pytorch_refuses_are_refused(
    backend: Backend, n: int, shape: list[int], kernel: int, stride: int, padding: int, ceil_mode: bool, include: bool
) -> None:
    x, arguments = values(0, tuple(shape)), (kernel, stride, padding, ceil_mode, include)
    try:
        expected = TORCH[n](torch.from_numpy(x), *arguments).numpy()
    except (RuntimeError, ValueError, TypeError, IndexError):
        with pytest.raises(TinynetError, match=rf"^avg_pool{n}d"):
            getattr(F, f"avg_pool{n}d")(backend.array(x), *arguments)
        return
    got = backend.host(getattr(F, f"avg_pool{n}d")(backend.array(x), *arguments))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)


@given(
    st.sampled_from([(), (0,), (1,), (3,)]), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9),
    st.one_of(st.none(), st.integers(1, 11), st.tuples(*[st.one_of(st.none(), st.integers(1, 11))] * 2)),
    st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS), st.integers(0, 1000),
)  # fmt: skip
def test_adaptive_avg_pool2d_and_its_gradient(
    backend: Backend, batch: tuple[int, ...], channels: int, height: int, width: int, output_size: Any, dtype: str,
    layout: str, seed: int,
) -> None:  # fmt: skip
    # torch.nn.functional takes None for both axes only as (None, None)
    torch_size = (None, None) if output_size is None else output_size
    check_op(
        backend,
        lambda input: F.adaptive_avg_pool2d(input, output_size),
        lambda input: torch.nn.functional.adaptive_avg_pool2d(input, torch_size),
        {"input": values(seed, (*batch, channels, height, width))},
        {"input": lambda a, y, dy: F.adaptive_avg_pool2d_input_gradient(dy, a["input"].shape)},
        dtype=dtype,
        layout=layout,
        seed=seed,
    )


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_three_dimensions_do_not_take_less_than_a_kernel(backend: Backend, ceil_mode: bool) -> None:
    x = np.zeros((1, 1, 3, 2, 3))
    check_refused(
        lambda: F.avg_pool3d(backend.array(x), 3, 1, 1, ceil_mode),
        lambda: torch.nn.functional.avg_pool3d(torch.from_numpy(x), 3, 1, 1, ceil_mode),
        "avg_pool3d",
    )


INVALID = {
    "kernel of three numbers": {"kernel_size": (2, 2, 2)},
    "kernel not an integer": {"kernel_size": 2.0},
    "padding of more than half a window": {"kernel_size": 3, "padding": 2},
    "kernel larger than the input": {"kernel_size": 9},
    "divisor 0": {"kernel_size": 2, "divisor_override": 0},
    "divisor not an integer": {"kernel_size": 2, "divisor_override": 1.5},
}
INVALID_ADAPTIVE = {
    "three sizes": ((2, 3, 5, 5), (2, 2, 2)),
    "a negative size": ((2, 3, 5, 5), (2, -1)),
    "a size not an integer": ((2, 3, 5, 5), (2, 1.5)),
    "an input of two axes": ((5, 5), (2, 2)),
    "an input of five axes": ((1, 1, 1, 5, 5), (2, 2)),
    "an input without cells": ((2, 3, 0, 5), (2, 2)),
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_calls(backend: Backend, what: str) -> None:
    x = np.zeros((2, 3, 5, 5))
    check_refused(
        lambda: F.avg_pool2d(backend.array(x), **INVALID[what]),
        lambda: torch.nn.functional.avg_pool2d(torch.from_numpy(x), **INVALID[what]),
        "avg_pool2d",
    )


@pytest.mark.parametrize("what", INVALID_ADAPTIVE)
def test_invalid_adaptive_calls(backend: Backend, what: str) -> None:
    shape, size = INVALID_ADAPTIVE[what]
    check_refused(
        lambda: F.adaptive_avg_pool2d(backend.array(np.zeros(shape)), size),
        lambda: torch.nn.functional.adaptive_avg_pool2d(torch.zeros(shape), size),
        "adaptive_avg_pool2d",
    )


def test_gradients_refuse_a_signal_of_the_wrong_shape(backend: Backend) -> None:
    for shape in [(2, 3, 2, 3), (1, 3, 2, 2), (2, 4, 2, 2), (3, 2, 2), (2, 3, 2)]:
        dy = backend.array(np.zeros(shape))
        check_refused(lambda dy=dy: F.avg_pool2d_input_gradient(dy, (2, 3, 5, 5), 2), None, "avg_pool2d_input_gradient")
    for shape in [(1, 3, 2, 2), (2, 4, 2, 2), (3, 2, 2), (2, 3, 2)]:
        dy = backend.array(np.zeros(shape))
        check_refused(
            lambda dy=dy: F.adaptive_avg_pool2d_input_gradient(dy, (2, 3, 5, 5)), None, "adaptive_avg_pool2d_input_gradient"
        )
