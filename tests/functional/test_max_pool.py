"""max_pool1d/2d/3d against PyTorch: values, switches, gradient; ties, NaN and −∞; exactly PyTorch's valid calls."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, adjoint, check_op, check_refused, ties, values
from tinynet.errors import TinynetError

TORCH = {n: getattr(torch.nn.functional, f"max_pool{n}d") for n in (1, 2, 3)}


@st.composite
def poolings(draw: st.DrawFn) -> dict[str, Any]:
    """A pooling that PyTorch accepts: any window that fits the padded input, up to half a window of padding."""
    n = draw(st.integers(1, 3))
    numbers = partial(st.lists, min_size=n, max_size=n)
    kernel, stride = draw(numbers(st.integers(1, 4))), draw(numbers(st.integers(1, 5)))
    dilation = draw(numbers(st.sampled_from([1, 1, 2, 3])))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    # PyTorch bounds the padding by half of the dilated span, max_pool1d by half of the kernel.
    padding = [draw(st.integers(0, min(s, k) // 2)) for s, k in zip(spans, kernel, strict=True)]
    size = [max(1, s - 2 * p) + draw(st.integers(0, 5)) for s, p in zip(spans, padding, strict=True)]
    return {
        "n": n,
        "input": (*draw(st.sampled_from([(), (0,), (1,), (2,)])), draw(st.integers(1, 2)), *size),
        "options": {
            "kernel_size": tuple(kernel),
            "stride": draw(st.sampled_from([None, tuple(stride)])),
            "padding": tuple(padding),
            "dilation": tuple(dilation),
            "ceil_mode": draw(st.booleans()),
        },
        "seed": draw(st.integers(0, 1000)),
    }


def check(backend: Backend, case: dict[str, Any], x: np.ndarray, dtype: str, layout: str) -> None:
    n, options = case["n"], case["options"]
    pool = getattr(F, f"max_pool{n}d")

    def gradient(a: dict[str, Any], y: Any, dy: Any) -> Any:
        indices = pool(a["input"], return_indices=True, **options)[1]
        return getattr(F, f"max_pool{n}d_input_gradient")(dy, indices, a["input"].shape)

    value, switches = pool(backend.array(x, layout), return_indices=True, **options)
    expected = TORCH[n](torch.from_numpy(x), return_indices=True, **options)
    np.testing.assert_array_equal(backend.host(value), expected[0].numpy())
    np.testing.assert_array_equal(backend.host(switches), expected[1].numpy())
    assert backend.host(switches).dtype == np.int64
    cells = np.prod(case["input"][-n:])
    if ((expected[1] < 0) | (expected[1] >= int(cells))).any():
        # A window of which every cell is padding: PyTorch's gradient writes outside its memory here; tinynet's refuses, for it
        # knows the switches alone. (The layers' way back knows the windows, too.)
        with pytest.raises(TinynetError, match=rf"^max_pool{n}d_input_gradient"):
            gradient({"input": backend.array(x)}, value, value)
        return
    check_op(
        backend, partial(pool, **options), partial(TORCH[n], **options), {"input": x}, {"input": gradient},
        dtype=dtype, layout=layout, seed=case["seed"],
    )  # fmt: skip


@given(poolings(), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS))
def test_max_pool_its_switches_and_gradient(backend: Backend, case: dict[str, Any], dtype: str, layout: str) -> None:
    check(backend, case, values(case["seed"], case["input"]), dtype, layout)


@given(poolings())
def test_of_a_tie_the_first_is_the_maximum(backend: Backend, case: dict[str, Any]) -> None:
    check(backend, case, ties(case["seed"], case["input"]), "float64", "contiguous")


@given(poolings())
def test_nan_and_infinities(backend: Backend, case: dict[str, Any]) -> None:
    check(backend, case, values(case["seed"], case["input"], special=0.5), "float64", "contiguous")


@given(poolings(), st.sampled_from([-np.inf, np.nan, 0.0]))
def test_a_plane_of_one_value(backend: Backend, case: dict[str, Any], value: float) -> None:
    # −∞ equals the padding: the switch must still point to a cell of the input.
    check(backend, case, np.full(case["input"], value), "float64", "contiguous")


@given(poolings())
def test_the_gradient_is_the_adjoint_of_taking_the_switches(backend: Backend, case: dict[str, Any]) -> None:
    n, x = case["n"], values(case["seed"], case["input"])
    y, switches = getattr(F, f"max_pool{n}d")(backend.array(x), return_indices=True, **case["options"])
    assume(np.isfinite(backend.host(y)).all())  # not so where a window sees nothing but padding
    dy = backend.array(values(case["seed"] + 1, tuple(y.shape)))
    adjoint(backend, y, dy, backend.array(x), getattr(F, f"max_pool{n}d_input_gradient")(dy, switches, x.shape))


@settings(max_examples=150)
@given(
    st.integers(1, 3), st.lists(st.integers(0, 4), min_size=0, max_size=6), st.integers(-1, 3), st.integers(-1, 3),
    st.integers(-1, 2), st.integers(-1, 2), st.booleans(),
)  # fmt: skip
def test_exactly_the_calls_that_pytorch_refuses_are_refused(
    backend: Backend, n: int, shape: list[int], kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> None:
    x = values(0, tuple(shape))
    # Two calls in which PyTorch contradicts itself: max_pool1d without switches takes another road and looks at less.
    arguments = (kernel, stride, padding, dilation, ceil_mode)
    try:
        expected = TORCH[n](torch.from_numpy(x), *arguments, return_indices=True)[0].numpy()
    except (RuntimeError, ValueError, TypeError, IndexError):
        with pytest.raises(TinynetError, match=rf"^max_pool{n}d"):
            getattr(F, f"max_pool{n}d")(backend.array(x), *arguments, return_indices=True)
        with pytest.raises(TinynetError, match=rf"^max_pool{n}d"):
            getattr(F, f"max_pool{n}d")(backend.array(x), *arguments)
        return
    np.testing.assert_array_equal(
        backend.host(getattr(F, f"max_pool{n}d")(backend.array(x), *arguments)), expected
    )


INVALID = {
    "kernel of three numbers": {"kernel_size": (2, 2, 2)},
    "kernel not an integer": {"kernel_size": 2.0},
    "stride of three numbers": {"kernel_size": 2, "stride": (1, 1, 1)},
    "padding of more than half a window": {"kernel_size": 3, "padding": 2},
    "kernel larger than the input": {"kernel_size": 9},
    "no kernel": {"kernel_size": None},
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_calls(backend: Backend, what: str) -> None:
    x = np.zeros((2, 3, 5, 5))
    check_refused(
        lambda: F.max_pool2d(backend.array(x), **INVALID[what]),
        lambda: torch.nn.functional.max_pool2d(torch.from_numpy(x), **INVALID[what]),
        "max_pool2d",
    )


def test_the_gradient_refuses_what_does_not_belong_together(backend: Backend) -> None:
    dy, indices = backend.array(np.zeros((2, 3, 2, 2))), backend.array(np.zeros((2, 3, 2, 2), np.int64))
    gradient = F.max_pool2d_input_gradient
    for call in (
        lambda: gradient(dy[:1], indices, (2, 3, 5, 5)),
        lambda: gradient(dy, indices[..., :1], (2, 3, 5, 5)),
        lambda: gradient(dy, indices, (2, 4, 5, 5)),
        lambda: gradient(dy, indices, (1, 3, 5, 5)),
        lambda: gradient(dy, indices, (3, 5, 5)),
        lambda: gradient(dy, dy, (2, 3, 5, 5)),
        lambda: gradient(dy, backend.array(np.zeros((2, 3, 2, 2), np.int32)), (2, 3, 5, 5)),
        lambda: gradient(dy, indices + 25, (2, 3, 5, 5)),
        lambda: gradient(dy, indices - 1, (2, 3, 5, 5)),
    ):
        check_refused(call, None, "max_pool2d_input_gradient")


def test_ints_and_tuples_mean_the_same(backend: Backend) -> None:
    x = backend.array(values(3, (2, 3, 7, 7)))
    expected = backend.host(F.max_pool2d(x, 3, 2, 1))
    np.testing.assert_array_equal(expected, backend.host(F.max_pool2d(x, (3, 3), [2, 2], (1,))))
    np.testing.assert_array_equal(backend.host(F.max_pool2d(x, 3)), backend.host(F.max_pool2d(x, 3, 3)))
