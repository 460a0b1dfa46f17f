"""Pooling a few planes at a time: wherever the blocks end and whichever way an axis goes, PyTorch's numbers."""

from __future__ import annotations

import tracemalloc
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet import functional as F
from tinynet import nn
from tinynet.kernels import pooling


@st.composite
def cases(draw):
    window = [[draw(st.integers(1, most)) for most in (4, 3, 2)] for _ in range(2)]     # kernel, stride, dilation
    padding = [draw(st.integers(0, k // 2)) for k, _, _ in window]
    size = [(k - 1) * d + 1 + draw(st.integers(0, 9)) for k, _, d in window]
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), *size)
    patched = {
        "_BLOCK": draw(st.sampled_from([1, 300, 2000, 1 << 20])), "_SWITCHES": draw(st.sampled_from([1, 300, 2000, 1 << 20])),
        "_LONG": draw(st.sampled_from([1, 8, 64])), "_PLACES": draw(st.sampled_from([1, 50, 1 << 17])),
    }
    dtype, seed = draw(st.sampled_from([np.float32, np.float64])), draw(st.integers(0, 2**32 - 1))
    x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return window, padding, np.repeat(x, 2, axis=3)[..., ::2] if draw(st.booleans()) else x, patched


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_blocks_of_any_size_give_pytorchs_maxima_switches_and_means(case):
    window, padding, x, patched = case
    kernel, stride, dilation = zip(*window, strict=True)
    with mock.patch.multiple(pooling, **patched):
        y = F.max_pool2d(x, kernel, stride, padding, dilation)
        again, indices = F.max_pool2d(x, kernel, stride, padding, dilation, return_indices=True)
        means = F.avg_pool2d(x, kernel, stride, padding)
    theirs, places = torch.nn.functional.max_pool2d(torch.from_numpy(x), kernel, stride, padding, dilation, return_indices=True)
    np.testing.assert_array_equal(y, theirs.numpy())
    np.testing.assert_array_equal(again, theirs.numpy())
    np.testing.assert_array_equal(indices, places.numpy())
    expected = torch.nn.functional.avg_pool2d(torch.from_numpy(x), kernel, stride, padding).numpy()
    np.testing.assert_allclose(means, expected, rtol=0, atol=1e-5 if x.dtype == np.float32 else 1e-14)


@settings(max_examples=150, deadline=None)
@given(case=cases(), ceil=st.booleans(), like=st.sampled_from(["values", "ties", "NaN and infinities"]))
def test_the_layers_record_holds_the_switches_and_its_ways_back_lead_to_them(case, ceil, like):
    window, padding, x, patched = case
    kernel, stride, dilation = zip(*window, strict=True)
    if like == "ties":
        x = np.round(x)
    elif like == "NaN and infinities":
        x = np.where(abs(x) > 1, np.array([np.nan, np.inf, -np.inf], x.dtype)[(x * 1000).astype(int) % 3], x)
    layer = nn.MaxPool2d(kernel, stride, padding, dilation, ceil)
    with mock.patch.multiple(pooling, **patched):
        y, saved = layer.forward(x)
        again = layer(x)
        dy = np.random.default_rng(0).standard_normal(y.shape).astype(x.dtype)
        dx, strongest = layer.back(saved, dy), layer.back(saved, dy, "largest")
    given = torch.from_numpy(x).requires_grad_()
    theirs, places = torch.nn.functional.max_pool2d(given, kernel, stride, padding, dilation, ceil, return_indices=True)
    theirs.backward(torch.from_numpy(dy))
    np.testing.assert_array_equal(y, theirs.detach().numpy())
    np.testing.assert_array_equal(again, y)
    np.testing.assert_array_equal(saved.indices, places.numpy())
    assert saved.indices.dtype == np.int64 and saved.switches.kept.dtype == np.uint8
    np.testing.assert_allclose(dx, given.grad.numpy(), rtol=0, atol=1e-5 if x.dtype == np.float32 else 1e-13)
    expected = np.zeros(x.shape, x.dtype)
    for plane in np.ndindex(*x.shape[:2]):
        for place in np.unique(places[plane]):
            expected[plane].ravel()[place] = dy[plane][places[plane].numpy() == place].max()
    np.testing.assert_array_equal(strongest, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_windows_of_one_cell_pick_every_second_number_of_any_layout(dtype: type) -> None:
    wide = np.random.default_rng(0).standard_normal((2, 3, 8, 16)).astype(dtype)
    for x in (wide, wide[..., ::2], wide[:, ::2], wide[..., 3:], wide.transpose(0, 1, 3, 2)):
        np.testing.assert_array_equal(F.max_pool2d(x, 1, 2), x[..., ::2, ::2])
        np.testing.assert_array_equal(F.avg_pool2d(x, 1, 2), x[..., ::2, ::2])
        np.testing.assert_array_equal(F.max_pool2d(x, 1, 2, return_indices=True)[0], x[..., ::2, ::2])


@pytest.mark.parametrize("pool", ["maxima", "switches", "means"])
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_no_padded_copy_of_the_whole_input_is_made(pool: str, layout: str) -> None:
    """What arises on the way are frames of a block: with an input of a hundred blocks, far less than the input."""
    x = np.random.default_rng(0).standard_normal((20, 30, 40, 80), dtype=np.float32)[..., :40]
    x = x.copy() if layout == "contiguous" else x
    ops = {
        "maxima": lambda: F.max_pool2d(x, 5, 4, 2), "switches": lambda: nn.MaxPool2d(5, 4, 2).forward(x),
        "means": lambda: F.avg_pool2d(x, 5, 4, 2),
    }
    with mock.patch.multiple(pooling, _BLOCK=x.nbytes // 100, _SWITCHES=x.nbytes // 100):
        tracemalloc.start()
        try:
            ops[pool]()
            assert tracemalloc.get_traced_memory()[1] < x.nbytes / 3
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("width, dtype", [(254, np.uint8), (255, np.uint16), (65534, np.uint16), (65535, np.uint32)])
def test_a_switch_takes_no_more_bytes_than_it_must_and_no_fewer(width, dtype):
    """In a window of 2×2 the last cell stands width + 1 cells behind the first."""
    x = np.zeros((1, 1, 4, width), np.float32)
    x[..., 1, 1] = x[..., 3, 2] = 1
    y, saved = nn.MaxPool2d(2).forward(x)
    assert saved.switches.kept.dtype == dtype
    assert saved.indices[0, 0, 0, 0] == width + 1 and saved.indices[0, 0, 1, 1] == 3 * width + 2
    np.testing.assert_array_equal(nn.MaxPool2d(2).input_gradient(saved, y), x)


@pytest.mark.parametrize("long", [1, 64])
def test_numbers_of_other_windows_leave_no_trace(long: int) -> None:
    """Rows that go as one line meet their neighbours' infinities on the way, and nothing of that is kept."""
    x = np.ones((2, 3, 6, 6), np.float32)
    x[0, 1], x[1, 2] = np.inf, -np.inf
    with mock.patch.object(pooling, "_LONG", long):
        y, means = F.max_pool2d(x, 2), F.avg_pool2d(x, 2)
    for result in (y, means):
        np.testing.assert_array_equal(result[0, 1], np.inf)
        np.testing.assert_array_equal(result[1, 2], -np.inf)
        np.testing.assert_array_equal(np.delete(result.reshape(6, -1), [1, 5], axis=0), 1)
