"""conv_transpose1d/2d/3d against PyTorch: values, all gradients, adjointness to the convolution, invalid calls."""

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
from tinynet.kernels import im2col
from tinynet.kernels.tiles import tiles

TORCH = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


@st.composite
def transposed(draw: st.DrawFn) -> dict[str, Any]:
    """A transposed convolution that PyTorch accepts; output_padding below stride or dilation, whichever is larger."""
    n = draw(st.integers(1, 3))
    numbers = partial(st.lists, min_size=n, max_size=n)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel, dilation, stride = (draw(numbers(st.integers(1, 3))) for _ in range(3))
    size = draw(numbers(st.integers(1, 4)))
    extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
    full = [
        (m - 1) * s + d * (k - 1) + e + 1 for m, s, d, k, e in zip(size, stride, dilation, kernel, extra, strict=True)
    ]
    padding = [draw(st.integers(0, min(2, (f - 1) // 2))) for f in full]
    channels, filters = groups * draw(st.integers(1, 2)), draw(st.integers(1, 3))
    batch = draw(st.sampled_from([(), (0,), (1,), (2,), (3,)]))
    return {
        "n": n,
        "input": (*batch, channels, *size),
        "weight": (channels, filters, *kernel),
        "bias": draw(st.booleans()),
        "options": {
            "stride": tuple(stride),
            "padding": tuple(padding),
            "output_padding": tuple(extra),
            "groups": groups,
            "dilation": tuple(dilation),
        },
        "seed": draw(st.integers(0, 1000)),
    }


def check(backend: Backend, case: dict[str, Any], dtype: str, layout: str) -> None:
    n, options, seed = case["n"], case["options"], case["seed"]
    inputs = {
        "input": values(seed, case["input"]),
        "weight": values(seed + 1, case["weight"]),
        "bias": values(seed + 2, (case["weight"][1] * options["groups"],)) if case["bias"] else None,
    }
    input_gradient = getattr(F, f"conv_transpose{n}d_input_gradient")
    weight_gradient = getattr(F, f"conv_transpose{n}d_weight_gradient")
    check_op(
        backend,
        partial(getattr(F, f"conv_transpose{n}d"), **options),
        partial(TORCH[n], **options),
        inputs,
        {
            "input": lambda a, y, dy: input_gradient(dy, a["weight"], **options),
            "weight": lambda a, y, dy: weight_gradient(a["input"], a["weight"].shape, dy, **options),
            "bias": lambda a, y, dy: F.conv_bias_gradient(dy, unbatched=a["input"].ndim == n + 1),
        },
        dtype=dtype,
        layout=layout,
        seed=seed,
    )


@given(transposed(), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS))
def test_conv_transpose_and_its_gradients(backend: Backend, case: dict[str, Any], dtype: str, layout: str) -> None:
    check(backend, case, dtype, layout)


@pytest.mark.parametrize("workspace", [1, 1500, 6000])
def test_conv_transpose_in_many_tiles(backend: Backend, workspace: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(im2col, "tiles", lambda *a: tiles(*a[:3], workspace))
    for groups in (1, 2):
        options = {"stride": (2, 1), "padding": (1, 0), "output_padding": (1, 0), "groups": groups, "dilation": (1, 2)}
        case = {"n": 2, "input": (5, 4, 5, 4), "weight": (4, 3, 3, 2), "bias": True, "options": options, "seed": groups}
        check(backend, case, "float64", "contiguous")


@given(transposed())
def test_it_is_the_adjoint_of_the_convolution(backend: Backend, case: dict[str, Any]) -> None:
    # ⟨conv(z, w), x⟩ = ⟨z, conv_transpose(x, w)⟩ with the same weights, strides, paddings, dilations and groups.
    n, seed = case["n"], case["seed"]
    options = {k: v for k, v in case["options"].items() if k != "output_padding"}
    x, w = backend.array(values(seed, case["input"])), backend.array(values(seed + 1, case["weight"]))
    y = getattr(F, f"conv_transpose{n}d")(x, w, **case["options"])
    z = backend.array(values(seed + 2, tuple(y.shape)))
    back = getattr(F, f"conv{n}d")(z, w, **options)
    if back.shape == x.shape:  # an output_padding of a whole stride gives the convolution one window more
        adjoint(backend, back, x, z, y)
    adjoint(backend, y, z, x, getattr(F, f"conv_transpose{n}d_input_gradient")(z, w, **case["options"]))
    adjoint(backend, y, z, w, getattr(F, f"conv_transpose{n}d_weight_gradient")(x, w.shape, z, **case["options"]))


INVALID = {
    "channels differ": ((2, 3, 5, 5), (2, 4, 3, 3), None, {}),
    "weight of another number of axes": ((2, 3, 5, 5), (3, 4, 3), None, {}),
    "input of too few axes": ((5, 5), (3, 4, 3, 3), None, {}),
    "bias of the wrong length": ((2, 3, 5, 5), (3, 4, 3, 3), (3,), {}),
    "bias of length one": ((2, 3, 5, 5), (3, 4, 3, 3), (1,), {}),
    "bias of two axes": ((2, 3, 5, 5), (3, 4, 3, 3), (4, 1), {}),
    "stride 0": ((2, 3, 5, 5), (3, 4, 3, 3), None, {"stride": 0}),
    "stride of three numbers": ((2, 3, 5, 5), (3, 4, 3, 3), None, {"stride": (1, 1, 1)}),
    "negative padding": ((2, 3, 5, 5), (3, 4, 3, 3), None, {"padding": -1}),
    "padding as a word": ((2, 3, 5, 5), (3, 4, 3, 3), None, {"padding": "same"}),
    "padding that leaves nothing": ((2, 3, 1, 1), (3, 4, 2, 2), None, {"padding": 1}),
    "output_padding as large as the stride": ((2, 3, 5, 5), (3, 4, 3, 3), None, {"stride": 2, "output_padding": 2}),
    "negative output_padding": ((2, 3, 5, 5), (3, 4, 3, 3), None, {"stride": 2, "output_padding": -1}),
    "dilation 0": ((2, 3, 5, 5), (3, 4, 3, 3), None, {"dilation": 0}),
    "groups 0": ((2, 3, 5, 5), (3, 4, 3, 3), None, {"groups": 0}),
    "groups that do not divide": ((2, 3, 5, 5), (3, 4, 3, 3), None, {"groups": 2}),
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_calls(backend: Backend, what: str) -> None:
    shapes, options = INVALID[what][:3], INVALID[what][3]
    arrays = [None if shape is None else np.zeros(shape) for shape in shapes]
    check_refused(
        lambda: F.conv_transpose2d(*(None if x is None else backend.array(x) for x in arrays), **options),
        lambda: torch.nn.functional.conv_transpose2d(*(None if x is None else torch.from_numpy(x) for x in arrays), **options),
        "conv_transpose2d",
    )


def test_gradients_refuse_a_signal_of_the_wrong_shape(backend: Backend) -> None:
    x, w = backend.array(np.zeros((2, 3, 5, 5))), backend.array(np.zeros((3, 4, 3, 3)))
    for shape in [(2, 4, 7), (2, 3, 7, 7), (2, 4, 2, 7)]:
        dy = backend.array(np.zeros(shape))
        check_refused(lambda dy=dy: F.conv_transpose2d_input_gradient(dy, w), None, "conv_transpose2d_input_gradient")
    for shape in [(2, 4, 7), (2, 3, 7, 7), (2, 4, 6, 7), (1, 4, 7, 7), (4, 7, 7)]:
        dy = backend.array(np.zeros(shape))
        check_refused(
            lambda dy=dy: F.conv_transpose2d_weight_gradient(x, w.shape, dy), None, "conv_transpose2d_weight_gradient"
        )


def test_cells_that_no_window_reaches_are_zero(backend: Backend) -> None:
    """With output_padding and dilation at stride 1 the last row belongs to no window."""
    x, w = values(0, (1, 2, 3, 3)), values(1, (2, 2, 2, 2))
    options = {"dilation": 2, "output_padding": 1}
    expected = torch.nn.functional.conv_transpose2d(torch.from_numpy(x), torch.from_numpy(w), **options)
    got = backend.host(F.conv_transpose2d(backend.array(x), backend.array(w), **options))
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-12)
    assert (got[..., -1, :] == 0).all()
