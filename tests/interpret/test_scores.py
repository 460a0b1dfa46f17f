"""The figures of a picture against SciPy, loops written out, and cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.checking import values
from tinynet.errors import ArgumentError, ShapeError
from tinynet.interpret import scores

# Spearman's correlation.


@pytest.mark.parametrize("seed", range(6))
def test_rank_correlation_is_that_of_all_pairs(seed: int) -> None:
    """Pearson's correlation of ranks that are counted pair by pair."""
    a, b = np.round(2 * values(seed, (3, 4, 5))), np.round(2 * values(seed + 50, (3, 4, 5)))
    a[:, :2, :2], b[:, :2, :2] = 0, 0
    b[0, 0, 0] = 1                                              # zero in one alone counts
    kept = [(abs(p), abs(q)) for p, q in zip(a.ravel(), b.ravel(), strict=True) if p != 0 or q != 0]
    ranks = [[sum(w < v for w in side) + (1 + sum(w == v for w in side)) / 2 for v in side] for side in zip(*kept, strict=True)]
    assert scores.rank_correlation(a, b) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)


def test_rank_correlation_knows_order_alone() -> None:
    a = values(0, (3, 6, 6))
    assert scores.rank_correlation(a, -np.sign(a) * np.abs(a) ** 3) == pytest.approx(1)
    assert scores.rank_correlation(a, 1 / a) == pytest.approx(-1)
    assert scores.rank_correlation(np.array([1.0, 2]), np.array([3.0, 5])) == pytest.approx(1)
    assert scores.rank_correlation(a, np.ones_like(a)) == 0
    assert scores.rank_correlation(a * 0, a * 0) == 0
    assert abs(scores.rank_correlation(values(1, (3, 99, 99)), values(2, (3, 99, 99)))) < 0.03


# Structural similarity.


def brute_ssim(a: np.ndarray, b: np.ndarray, window: int, sigma: float) -> float:
    """Equation 13 with loops over every window."""
    a, b = (0.5 + 0.5 * np.clip(v / (np.percentile(np.abs(v), 99) or np.abs(v).max()), -1, 1) for v in (a, b))
    offsets = np.arange(window) - window // 2
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    found = []
    for c in range(a.shape[0]):
        for y in range(a.shape[1] - window + 1):
            for x in range(a.shape[2] - window + 1):
                p, q = a[c, y : y + window, x : x + window], b[c, y : y + window, x : x + window]
                mp, mq = (weights * p).sum(), (weights * q).sum()
                vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                top = (2 * mp * mq + 0.0001) * (2 * (weights * (p - mp) * (q - mq)).sum() + 0.0009)
                found.append(top / ((mp**2 + mq**2 + 0.0001) * (vp + vq + 0.0009)))
    return float(np.mean(found))


@pytest.mark.parametrize(("shape", "window", "sigma", "used"), [
    ((3, 14, 17), 11, 1.5, 11), ((1, 9, 20), 11, 1.5, 9), ((2, 8, 8), 11, 2.0, 7), ((1, 12, 12), 5, 0.8, 5),
])  # fmt: skip
def test_ssim_is_the_formula(shape: tuple[int, ...], window: int, sigma: float, used: int) -> None:
    a, b = values(1, shape), values(1, shape) + 0.7 * values(2, shape)
    assert scores.ssim(a, b, window, sigma) == pytest.approx(brute_ssim(a, b, used, sigma), abs=1e-12)


def test_ssim_looks_only_where_something_is_shown() -> None:
    a, b = (np.zeros((3, 40, 50)) for _ in range(2))
    a[:, 5:20, 30:46], b[:, 5:20, 30:46] = values(1, (3, 15, 16)), values(2, (3, 15, 16))
    assert scores.ssim(a, b) == pytest.approx(brute_ssim(a[:, 5:20, 30:46], b[:, 5:20, 30:46], 11, 1.5), abs=1e-12)
    for y, x, top, left in ((0, 0, 0, 0), (39, 49, 29, 39), (0, 49, 0, 39), (20, 20, 15, 15)):
        a, b = np.zeros((40, 50)), np.zeros((40, 50))
        a[y, x], b[y, x] = 1, -1                                # the box is grown to a window, which stays inside
        part = (slice(top, top + 11), slice(left, left + 11))
        assert scores.ssim(a, b) == pytest.approx(brute_ssim(a[part][None], b[part][None], 11, 1.5), abs=1e-12)
    assert scores.ssim(a, b) < 0.9
    a, b = np.zeros((1, 40, 50)), np.zeros((1, 40, 50))
    a[:, 5:20, 3:18], b[:, 10:30, 20:46] = values(1, (1, 15, 15)), values(2, (1, 20, 26))
    part = (slice(None), slice(5, 30), slice(3, 46))            # the box holds what either shows
    assert scores.ssim(a, b) == pytest.approx(brute_ssim(a[part], b[part], 11, 1.5), abs=1e-12)


def test_ssim_of_equal_opposite_and_empty_pictures() -> None:
    a = values(3, (3, 20, 20))
    assert scores.ssim(a, 7 * a) == pytest.approx(1)
    assert scores.ssim(a[0], a[0]) == pytest.approx(1)
    assert scores.ssim(a, -a) < -0.9
    assert scores.ssim(a, 0 * a) == 0
    assert scores.ssim(0 * a, 0 * a) == 1
    with pytest.raises(ShapeError, match="one shape"):
        scores.ssim(a, a[:2])
    with pytest.raises(ShapeError, match=r"\(C, H, W\)"):
        scores.ssim(a[None], a[None])


@pytest.mark.parametrize(("sigma", "radius"), [(1.7, None), (0.3, None), (2.0, 3), (1.0, 0)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_blur_is_a_convolution_with_a_gaussian(sigma: float, radius: int | None, dtype: str) -> None:
    """PyTorch's, with the two-dimensional kernel; the border is continued, or the window stays inside."""
    x = values(0, (2, 3, 15, 14)).astype(dtype)
    reach = int(np.ceil(3 * sigma)) if radius is None else radius
    place = np.arange(-reach, reach + 1)
    kernel = np.exp(-(place[:, None] ** 2 + place[None, :] ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    weight = torch.tensor(kernel, dtype=torch.float64)[None, None]
    maps = torch.tensor(x, dtype=torch.float64).reshape(6, 1, 15, 14)
    wide = torch.nn.functional.pad(maps, (reach,) * 4, mode="replicate")
    for pad, given in ((True, wide), (False, maps)):
        expected = torch.nn.functional.conv2d(given, weight).numpy()
        got = scores.blur(x, sigma, radius, pad=pad)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected.reshape(2, 3, *expected.shape[2:]), atol=1e-12 if dtype == "float64" else 1e-5)
    np.testing.assert_array_equal(scores.blur(x, 0), x)


# Where a map lies.


def test_pointing_and_energy() -> None:
    mask = scores.box_mask(6, 8, (1, 2, 3, 5))                  # 2×3 of 48 cells
    assert mask.sum() == 6 and mask[1, 2] and mask[2, 4] and not mask[3, 4] and not mask[2, 5]
    spot = np.zeros((6, 8))
    spot[2, 4] = 1
    assert scores.pointing(spot, mask) == 1
    spot[5, 7] = 3
    spot[0, 0] = -9
    assert scores.pointing(spot, mask) == 0
    assert scores.energy_inside(spot, mask) == pytest.approx(1 / 4)     # what is negative has no part in it
    spot[2, 4] = 3
    assert scores.pointing(spot, mask) == 0.5
    assert scores.pointing(-np.ones((6, 8)), mask) == pytest.approx(6 / 48) == scores.chance(mask)
    assert scores.energy_inside(-np.ones((6, 8)), mask) == pytest.approx(6 / 48)
    assert scores.energy_inside(np.ones((6, 8)), mask.astype(int)) == pytest.approx(6 / 48)
    assert scores.energy_inside(np.where(mask, 0.01, 0), mask) == pytest.approx(1)


def test_tolerance_is_a_distance() -> None:
    mask = np.zeros((9, 9))
    mask[4, 4] = 2
    for tolerance in (0, 1, 1.5, 2, 2.9, 3, 20):
        near = np.array([[(y - 4) ** 2 + (x - 4) ** 2 <= tolerance**2 for x in range(9)] for y in range(9)])
        assert scores.chance(mask, tolerance) == near.mean()
        for y, x in ((4, 5), (5, 5), (2, 4), (3, 6), (0, 0)):
            spot = np.zeros((9, 9))
            spot[y, x] = 1
            assert scores.pointing(spot, mask, tolerance) == near[y, x]


def test_centre_guess_is_at_the_centre() -> None:
    for h, w in ((7, 9), (8, 6)):
        map = scores.centre_guess(h, w)
        top = np.argwhere(map == map.max())
        np.testing.assert_allclose(top.mean(axis=0), [(h - 1) / 2, (w - 1) / 2])
        assert len(top) == (2 - h % 2) * (2 - w % 2)
        np.testing.assert_allclose(map, map[::-1, ::-1])
    assert scores.centre_guess(9, 9)[4, 6] == pytest.approx(np.exp(-0.5 * (2 / (9 / 4)) ** 2))


def test_importance() -> None:
    a = values(0, (2, 3, 4, 5))
    np.testing.assert_allclose(scores.importance(a, True), a.sum(1))
    np.testing.assert_allclose(scores.importance(a, False), np.abs(a).sum(1))
    with pytest.raises(ShapeError, match=r"\(N, C, H, W\)"):
        scores.importance(a[0], True)


def test_a_box_may_be_the_whole_picture() -> None:
    assert scores.box_mask(6, 8, (0, 0, 6, 8)).all()


@pytest.mark.parametrize("box", [(0, 0, 7, 2), (-1, 0, 2, 2), (0, -1, 2, 2), (2, 2, 2, 4), (0, 3, 2, 9)])
def test_a_box_outside_is_refused(box: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match="inside 6×8"):
        scores.box_mask(6, 8, box)


def test_map_and_mask_of_two_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        scores.pointing(np.ones((3, 4)), np.ones((4, 3)))
    with pytest.raises(ShapeError, match="one shape"):
        scores.energy_inside(np.ones(3), np.ones(3))
