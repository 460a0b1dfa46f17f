"""conv1d/2d/3d against PyTorch: values, all gradients, tiles, invalid calls."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, adjoint, check_op, check_refused, values
from tinynet.errors import DeviceError, DtypeError
from tinynet.kernels import im2col
from tinynet.kernels.tiles import tiles

TORCH = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    """A convolution that PyTorch accepts: n axes, shapes and options; sizes of one and strides that do not divide included."""
    n = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    dilation = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    stride = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    word = draw(st.sampled_from([None, None, None, "same", "valid"]))
    padding: Any = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    if word == "same":
        stride = [1] * n
    if word:
        padding = word
    cells = [0] * n if word == "valid" else [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if not word:
        cells = [2 * p for p in padding]
    size = [
        max(1, d * (k - 1) + 1 - extra) + draw(st.integers(0, 4))
        for d, k, extra in zip(dilation, kernel, cells, strict=True)
    ]
    channels, filters = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    batch = draw(st.sampled_from([(), (0,), (1,), (2,), (3,)]))
    same = all(v == stride[0] for v in stride)
    return {
        "n": n,
        "input": (*batch, channels, *size),
        "weight": (filters, channels // groups, *kernel),
        "bias": draw(st.booleans()),
        "options": {
            "stride": stride[0] if same and draw(st.booleans()) else tuple(stride),
            "padding": padding if isinstance(padding, str) else tuple(padding),
            "dilation": tuple(dilation),
            "groups": groups,
        },
        "seed": draw(st.integers(0, 1000)),
    }


def check_conv(backend: Backend, case: dict[str, Any], dtype: str, layout: str) -> None:
    n, options, seed = case["n"], case["options"], case["seed"]
    inputs = {
        "input": values(seed, case["input"]),
        "weight": values(seed + 1, case["weight"]),
        "bias": values(seed + 2, case["weight"][:1]) if case["bias"] else None,
    }
    input_gradient = getattr(F, f"conv{n}d_input_gradient")
    weight_gradient = getattr(F, f"conv{n}d_weight_gradient")
    check_op(
        backend,
        partial(getattr(F, f"conv{n}d"), **options),
        partial(TORCH[n], **options),
        inputs,
        {
            "input": lambda a, y, dy: input_gradient(a["input"].shape, a["weight"], dy, **options),
            "weight": lambda a, y, dy: weight_gradient(a["input"], a["weight"].shape, dy, **options),
            "bias": lambda a, y, dy: F.conv_bias_gradient(dy, unbatched=a["input"].ndim == n + 1),
        },
        dtype=dtype,
        layout=layout,
        seed=seed,
    )


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@given(convolutions(), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS))
def test_conv_and_its_gradients(backend: Backend, case: dict[str, Any], dtype: str, layout: str) -> None:
    check_conv(backend, case, dtype, layout)


@pytest.mark.parametrize("workspace", [1, 1500, 6000])
def test_conv_in_many_tiles(backend: Backend, workspace: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A workspace of 1 byte makes one row a tile, 1500 a few rows, 6000 two images.
    monkeypatch.setattr(im2col, "tiles", lambda *a: tiles(*a[:3], workspace))
    for groups in (1, 2):
        options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": groups}
        case = {"n": 2, "input": (5, 4, 9, 6), "weight": (6, 4 // groups, 3, 2), "bias": True, "options": options, "seed": groups}
        check_conv(backend, case, "float64", "contiguous")


@given(convolutions())
def test_the_input_gradient_is_the_adjoint(backend: Backend, case: dict[str, Any]) -> None:
    n, options, seed = case["n"], case["options"], case["seed"]
    x, w = backend.array(values(seed, case["input"])), backend.array(values(seed + 1, case["weight"]))
    y = getattr(F, f"conv{n}d")(x, w, **options)
    dy = backend.array(values(seed + 2, tuple(y.shape)))
    dx = getattr(F, f"conv{n}d_input_gradient")(x.shape, w, dy, **options)
    adjoint(backend, y, dy, x, dx)
    dw = getattr(F, f"conv{n}d_weight_gradient")(x, w.shape, dy, **options)
    adjoint(backend, y, dy, w, dw)


def test_nan_and_infinity_reach_the_windows_that_see_them_and_no_other(backend: Backend) -> None:
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 0, 0], x[0, 0, 4, 4] = np.nan, np.inf
    y = backend.host(F.conv2d(backend.array(x), backend.array(np.ones((1, 1, 2, 2)))))
    expected = np.zeros((1, 1, 4, 4))
    expected[0, 0, 0, 0], expected[0, 0, 3, 3] = np.nan, np.inf
    np.testing.assert_array_equal(y, expected)


# (input, weight, bias, options)
INVALID = {
    "channels differ": ((2, 3, 5, 5), (4, 2, 3, 3), None, {}),
    "weight of another number of axes": ((2, 3, 5, 5), (4, 3, 3), None, {}),
    "input of too few axes": ((5, 5), (4, 3, 3, 3), None, {}),
    "input of too many axes": ((1, 2, 3, 5, 5), (4, 3, 3, 3), None, {}),
    "kernel larger than the input": ((2, 3, 2, 5), (4, 3, 3, 3), None, {}),
    "dilated kernel larger than the padded input": ((2, 3, 5, 5), (4, 3, 3, 3), None, {"dilation": 4, "padding": 1}),
    "bias of the wrong length": ((2, 3, 5, 5), (4, 3, 3, 3), (3,), {}),
    "bias of two axes": ((2, 3, 5, 5), (4, 3, 3, 3), (4, 1), {}),
    "bias of length one for four filters": ((2, 3, 5, 5), (4, 3, 3, 3), (1,), {}),
    "stride 0": ((2, 3, 5, 5), (4, 3, 3, 3), None, {"stride": 0}),
    "negative stride": ((2, 3, 5, 5), (4, 3, 3, 3), None, {"stride": (1, -1)}),
    "stride of three numbers": ((2, 3, 5, 5), (4, 3, 3, 3), None, {"stride": (1, 1, 1)}),
    "stride not an integer": ((2, 3, 5, 5), (4, 3, 3, 3), None, {"stride": 1.5}),
    "negative padding": ((2, 3, 5, 5), (4, 3, 3, 3), None, {"padding": -1}),
    "unknown padding": ((2, 3, 5, 5), (4, 3, 3, 3), None, {"padding": "full"}),
    "same with a stride": ((2, 3, 5, 5), (4, 3, 3, 3), None, {"padding": "same", "stride": 2}),
    "dilation 0": ((2, 3, 5, 5), (4, 3, 3, 3), None, {"dilation": 0}),
    "groups 0": ((2, 3, 5, 5), (4, 3, 3, 3), None, {"groups": 0}),
    "groups that do not divide the filters": ((2, 4, 5, 5), (3, 2, 3, 3), None, {"groups": 2}),
    "groups that do not divide the channels": ((2, 3, 5, 5), (4, 1, 3, 3), None, {"groups": 2}),
    "an input without cells, but padding": ((2, 3, 0, 5), (4, 3, 3, 3), None, {"padding": 2}),
    "a kernel without cells": ((2, 3, 5, 5), (4, 3, 0, 3), None, {}),
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_calls(backend: Backend, what: str) -> None:
    shapes, options = INVALID[what][:3], INVALID[what][3]
    arrays = [None if shape is None else np.zeros(shape) for shape in shapes]
    line = check_refused(
        lambda: F.conv2d(*(None if x is None else backend.array(x) for x in arrays), **options),
        lambda: torch.nn.functional.conv2d(*(None if x is None else torch.from_numpy(x) for x in arrays), **options),
        "conv2d",
    )
    assert "expected" in line or "takes" in line


def test_no_channels_are_refused(backend: Backend) -> None:
    # PyTorch returns (2, 0, 3, 3) for these four filters.
    x, w = backend.array(np.zeros((2, 0, 5, 5))), backend.array(np.zeros((4, 0, 3, 3)))
    check_refused(lambda: F.conv2d(x, w), None, "conv2d")


def test_no_samples_may_have_any_size(backend: Backend) -> None:
    y = F.conv2d(backend.array(np.zeros((0, 3, 0, 5))), backend.array(np.zeros((4, 3, 3, 3))), padding=2)
    assert y.shape == torch.nn.functional.conv2d(torch.zeros(0, 3, 0, 5), torch.zeros(4, 3, 3, 3), padding=2).shape


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float32"), ("int64", "float64"), ("float64", "int64")])
def test_mixed_dtypes(backend: Backend, dtypes: tuple[str, str]) -> None:
    x, w = np.zeros((1, 2, 4, 4), dtypes[0]), np.zeros((3, 2, 2, 2), dtypes[1])
    check_refused(
        lambda: F.conv2d(backend.array(x), backend.array(w)),
        lambda: torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w)),
        "conv2d",
    )


@pytest.mark.parametrize("dtype", ["float16", "int64", "uint8", "bool", "complex128"])
def test_dtypes_that_are_not_offered(dtype: str) -> None:
    # PyTorch takes float16 and complex numbers; tinynet says so in its documentation and refuses.
    x, w = np.zeros((1, 2, 4, 4), dtype), np.zeros((3, 2, 2, 2), dtype)
    with pytest.raises(DtypeError, match="conv2d: expected input of float32 or float64, got " + dtype):
        F.conv2d(x, w)
    with pytest.raises(DtypeError, match="conv2d"):
        F.conv2d([[1.0]], w)


def test_gradients_refuse_a_signal_of_the_wrong_shape(backend: Backend) -> None:
    x, w = backend.array(np.zeros((2, 3, 5, 5))), backend.array(np.zeros((4, 3, 3, 3)))
    for shape in [(2, 4, 2, 3), (1, 4, 3, 3), (2, 1, 3, 3), (2, 4, 1, 1), (4, 3, 3), (2, 4, 9)]:
        dy = backend.array(np.zeros(shape))
        check_refused(lambda dy=dy: F.conv2d_input_gradient(x.shape, w, dy), None, "conv2d_input_gradient")
        check_refused(lambda dy=dy: F.conv2d_weight_gradient(x, w.shape, dy), None, "conv2d_weight_gradient")


def test_devices_are_not_mixed() -> None:
    from tests.device_double import device_module

    x, w = np.zeros((1, 2, 4, 4)), np.zeros((3, 2, 2, 2))
    for a, b in ((device_module.asarray(x), w), (x, device_module.asarray(w))):
        with pytest.raises(DeviceError, match="different devices"):
            F.conv2d(a, b)
