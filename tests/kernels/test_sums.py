"""Sums of squares block by block: all numbers once, wherever blocks and runs end, and in float32 to float32's own digits."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from tests.checking import values
from tinynet.kernels import blocks, sums
from tinynet.kernels.sums import channel_sums, squared_distance


@pytest.mark.parametrize("run", [1, 7, 1 << 13])
@pytest.mark.parametrize("block", [10, 64, 1 << 18])
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (63,), (64,), (65,), (5, 41), (3, 4, 5)])
def test_every_number_once(shape: tuple[int, ...], block: int, run: int) -> None:
    x, y = values(0, shape), values(1, shape)
    with mock.patch.object(blocks, "NUMBERS", block), mock.patch.object(sums, "_RUN", run):
        for a, b in ((x, y), (x.T, y.T)):
            found = squared_distance(a, b)
            assert found.dtype == np.float64 and found.shape == ()
            np.testing.assert_allclose(found, ((x - y) ** 2).sum(), rtol=1e-12)


def test_many_float32_numbers_lose_no_digits() -> None:
    x = (1000 + values(0, (1 << 21,))).astype(np.float32)
    y = np.zeros_like(x)
    found = squared_distance(x, y)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (x.astype(np.float64) ** 2).sum(), rtol=2e-6)


@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 5), (2, 3, 15), (2, 3, 16), (1, 1, 40), (0, 3, 20), (3, 2, 0), (4, 2), (5, 7, 3, 9, 2)],
)
def test_sums_of_channels(shape: tuple[int, ...]) -> None:
    x = values(0, shape)
    axes = (0, *range(2, len(shape)))
    for layout in (x, np.asfortranarray(x), np.concatenate([x, x], axis=1)[:, : shape[1]]):
        found = channel_sums(layout)
        assert found.shape == (shape[1],) and found.dtype == x.dtype
        np.testing.assert_allclose(found, x.sum(axis=axes), atol=1e-12)
