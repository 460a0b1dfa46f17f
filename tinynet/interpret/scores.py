"""Figures for a picture: does it depend on what was learned, does it lie on the object?

* rank_correlation, ssim: likeness to the control (Adebayo et al. 2018); near 1, the picture does not show what was learned.
* pointing, energy_inside: whether the map lies in a mask (Zhang et al. 2016), beside `chance` and a guess at the centre.

Whether it shows what the answer depends on, is asked in deletion.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from ..backend import Array, array_module, to_host
from ..errors import ArgumentError, ShapeError
from .pictures import magnitude

# Likeness of two pictures.


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's correlation of |a| and |b|, −1 … 1; numbers that are equal share their mean rank.

    a, b: one shape. Cells where both are zero are left out, since there nothing is shown (outside the receptive field, say).
    0 where one of them has no ranks: all its magnitudes are equal.
    """
    a, b = _pair(a, b)
    shown = (a != 0) | (b != 0)
    if not shown.any():
        return 0.0
    x, y = (_ranks(np.abs(v[shown])) for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    length = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / length if length > 0 else 0.0


def ssim(a: Array, b: Array, window: int = 11, sigma: float = 1.5) -> float:
    """Mean structural similarity of two pictures as they are shown, −1 … 1 (Wang, Bovik, Sheikh & Simoncelli 2004, equation 13).

    a, b: (C, H, W) or (H, W), each shown zero-centred (0 is mid grey, pictures.PERCENTILE of its magnitude the ends) on the
    scale 0 … 1; K₁ = 0.01, K₂ = 0.03. window: side of the Gaussian window in pixels, cut to the picture's. Only windows inside
    the smallest box that holds all that is not zero count (grown to a window where it is smaller). 0 if one alone is empty.
    """
    a, b = _pair(a, b)
    if a.ndim not in (2, 3):
        raise ShapeError(f"ssim: expected pictures (C, H, W) or (H, W), got {a.shape}")
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    a, b = (v.reshape(-1, *v.shape[-2:]) for v in (a, b))
    window = min(window, *a.shape[1:])
    window -= 1 - window % 2                                    # odd, so that it has a middle
    rows, columns = (_span(((a != 0) | (b != 0)).any(axis=axes), window) for axes in ((0, 2), (0, 1)))
    a, b = (_shown(v[:, rows, columns]) for v in (a, b))

    def mean(v: np.ndarray) -> np.ndarray:
        return blur(v, sigma, window // 2, pad=False)

    c1, c2 = 0.01**2, 0.03**2
    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b, covariance = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2, mean(a * b) - mu_a * mu_b
    index = (2 * mu_a * mu_b + c1) * (2 * covariance + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
    return float(index.mean())


def blur(x: Array, sigma: float, radius: int | None = None, pad: bool = True) -> Array:
    """x (…, H, W) under a Gaussian of that deviation in pixels, cut at `radius` (default 3σ).

    pad: continue the border, and return x's shape; otherwise only where the window fits.
    """
    xp = array_module(x)
    radius = ceil(3 * sigma) if radius is None else radius
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2) if sigma > 0 else np.ones(1)
    radius, weights = len(weights) // 2, weights / weights.sum()
    # A matrix for each axis: even of many weights, two products cost less than as many sums.
    rows, columns = (xp.asarray(_banded(size, weights, pad).astype(str(x.dtype))) for size in x.shape[-2:])
    return rows @ x @ columns.T


def _banded(size: int, weights: np.ndarray, pad: bool) -> np.ndarray:
    """The matrix that puts the window of weights over each cell of a line: (size, size), or only where it fits."""
    radius, middle = len(weights) // 2, np.arange(size)
    if not pad:
        middle = middle[radius : size - radius]
    cells = np.clip(middle[:, None] + np.arange(-radius, radius + 1), 0, size - 1)
    matrix = np.zeros((len(middle), size))
    np.add.at(matrix, (np.arange(len(middle))[:, None], cells), np.broadcast_to(weights, cells.shape))
    return matrix


# Where a map lies.


def pointing(map: Array, mask: Array, tolerance: float = 0) -> float:
    """The pointing game: 1 if the map's largest value lies in the mask (or within `tolerance` pixels of it), otherwise 0.

    map, mask: (H, W). If several cells are largest, the share of them that hit: what a random choice among them would give.
    """
    map, mask = _map_and_mask(map, mask)
    return float(_grown(mask, tolerance)[map == map.max()].mean())


def energy_inside(map: Array, mask: Array) -> float:
    """The share of the map's positive part that lies in the mask, 0 … 1 (Wang et al. 2020, Score-CAM, section 4.3).

    map, mask: (H, W). A map without any positive part says nothing, and counts as an even one: the mask's share.
    """
    map, mask = _map_and_mask(map, mask)
    positive = np.maximum(map, 0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else float(mask.mean())


def chance(mask: Array, tolerance: float = 0) -> float:
    """What a point drawn at random hits: the mask's share of the picture. It is the energy inside of an even map, too."""
    return float(_grown(np.asarray(to_host(mask)).astype(bool), tolerance).mean())


def centre_guess(height: int, width: int) -> np.ndarray:
    """A map (H, W) that knows nothing but where photographers put things: a Gaussian at the centre, σ a quarter of each side."""
    y, x = (((np.arange(n) - (n - 1) / 2) / (n / 4)) ** 2 for n in (height, width))
    return np.exp(-0.5 * (y[:, None] + x[None, :]))


def box_mask(height: int, width: int, box: Sequence[int]) -> np.ndarray:
    """A box (top, left, bottom, right), the last two excluded, as a mask (H, W). Raises ArgumentError for one outside."""
    top, left, bottom, right = box
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ArgumentError(f"expected a box (top, left, bottom, right) inside {height}×{width}, got {tuple(box)}")
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def importance(attribution: Array, signed: bool) -> Array:
    """(N, C, H, W) → (N, H, W): how much each pixel counts.

    signed: the sum over the channels, for methods whose sign says for or against; otherwise the sum of the magnitudes.
    """
    if attribution.ndim != 4:
        raise ShapeError(f"importance: expected an attribution (N, C, H, W), got {tuple(attribution.shape)}")
    return (attribution if signed else abs(attribution)).sum(axis=1)


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the smallest …, with the mean rank for equal values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)                                    # the last rank of each value
    return (last - (counts - 1) / 2)[inverse]


def _pair(a: Array, b: Array) -> tuple[np.ndarray, np.ndarray]:
    if tuple(a.shape) != tuple(b.shape):
        raise ShapeError(f"expected two pictures of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    return to_host(a).astype(np.float64), to_host(b).astype(np.float64)


def _shown(picture: np.ndarray) -> np.ndarray:
    """The grey levels 0 … 1 of a zero-centred picture."""
    return 0.5 + 0.5 * np.clip(picture / magnitude(picture), -1, 1)


def _span(shown: np.ndarray, least: int) -> slice:
    """From the first to the last cell that is shown, grown to at least that many."""
    cells = np.flatnonzero(shown)
    begin, end = int(cells[0]), int(cells[-1]) + 1
    begin = min(max(0, begin - max(0, least - (end - begin)) // 2), len(shown) - least)
    return slice(begin, max(end, begin + least))


def _map_and_mask(map: Array, mask: Array) -> tuple[np.ndarray, np.ndarray]:
    map, mask = np.asarray(to_host(map), np.float64), np.asarray(to_host(mask)).astype(bool)
    if map.ndim != 2 or map.shape != mask.shape:
        raise ShapeError(f"expected a map and a mask of one shape (H, W), got {map.shape} and {mask.shape}")
    return map, mask


def _grown(mask: np.ndarray, tolerance: float) -> np.ndarray:
    """The cells at most `tolerance` pixels from the mask."""
    reach = int(tolerance)
    if reach <= 0:
        return mask
    h, w = mask.shape
    wide, grown = np.pad(mask, reach), np.zeros_like(mask)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx <= tolerance * tolerance:
                grown |= wide[reach + dy : reach + dy + h, reach + dx : reach + dx + w]
    return grown


__all__ = [
    "blur", "box_mask", "centre_guess", "chance", "energy_inside", "importance", "pointing", "rank_correlation", "ssim",
]
