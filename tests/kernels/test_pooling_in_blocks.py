"""Pooling a few planes at a time: wherever the blocks end and whichever way an axis goes, PyTorch's numbers."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet import functional as F
from tinynet.kernels import pooling


@st.composite
def cases(draw):
    window = [[draw(st.integers(1, most)) for most in (4, 3, 2)] for _ in range(2)]     # kernel, stride, dilation
    padding = [draw(st.integers(0, k // 2)) for k, _, _ in window]
    size = [(k - 1) * d + 1 + draw(st.integers(0, 9)) for k, _, d in window]
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), *size)
    patched = {
        "_BLOCK": draw(st.sampled_from([1, 300, 2000, 1 << 20])), "_SWITCHES": draw(st.sampled_from([1, 300, 2000, 1 << 20])),
        "_LONG": draw(st.sampled_from([1, 8, 64])),
    }
    dtype, seed = draw(st.sampled_from([np.float32, np.float64])), draw(st.integers(0, 2**32 - 1))
    return window, padding, np.random.default_rng(seed).standard_normal(shape).astype(dtype), patched


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
