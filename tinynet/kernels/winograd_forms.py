"""The matrices of Winograd's minimal filtering F(m×m, r×r), and what strides are to it.

A tile of a = m + r − 1 numbers and a filter of r are seen as polynomials, whose values are multiplied at a − 1 points and at
infinity. The points alone decide Bᵀ, so the same tiles of 6 × 6 cells give 4 × 4 outputs of 3 × 3 taps or 2 × 2 of 5 × 5.

A correlation with stride s is a sum of s × s correlations with stride 1, one for each phase: of the cells (i·s + p, j·s + q) with
the taps (k·s + p, l·s + q). So it is one with s² times the channels and r = ⌈kernel / s⌉, a missing tap being zero: 5×5 with
stride 2 and 11×11 with stride 4 both have r = 3.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from .geometry import Geometry


class Form(NamedTuple):
    """F(m×m, r×r)."""

    m: int
    """Outputs of a tile along an axis."""
    r: int
    """Taps of a filter along an axis."""

    @property
    def a(self) -> int:
        """Cells of a tile along an axis."""
        return self.m + self.r - 1


FORMS = (Form(4, 3), Form(2, 3), Form(2, 5))


def form_of(geometry: Geometry, m: int) -> Form | None:
    """The form with m × m outputs a tile that does this correlation of one group; None: there is none."""
    taps = {-(-k // s) for k, s in zip(geometry.kernel, geometry.stride, strict=True)}
    if len(geometry.kernel) != 2 or geometry.dilation != (1, 1) or len(taps) != 1:
        return None
    form = Form(m, taps.pop())
    return form if form in FORMS else None


def by_phase(w: Array, stride: tuple[int, ...]) -> Array:
    """Filters (O, C, *kernel) as (O, s·t·C, r, r): one kernel for each phase of stride (s, t)."""
    if stride == (1, 1):
        return w
    (o, c, *kernel), (s, t) = w.shape, stride
    rows, columns = (-(-k // step) for k, step in zip(kernel, stride, strict=True))
    whole = array_module(w).zeros((o, c, rows * s, columns * t), dtype=w.dtype)
    whole[:, :, : kernel[0], : kernel[1]] = w
    return whole.reshape(o, c, rows, s, columns, t).transpose(0, 3, 5, 1, 2, 4).reshape(o, -1, rows, columns)


def from_phases(dw: Array, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    """The other way: (O, s·t·C, r, r) to (O, C, *kernel)."""
    if stride == (1, 1):
        return dw
    (o, _, rows, columns), (s, t) = dw.shape, stride
    whole = dw.reshape(o, s, t, -1, rows, columns).transpose(0, 3, 4, 1, 5, 2).reshape(o, -1, rows * s, columns * t)
    return array_module(dw).ascontiguousarray(whole[:, :, : kernel[0], : kernel[1]])


class Matrices(NamedTuple):
    """The transforms in both axes at once."""

    b: Array
    """𝐁 (a², a²)."""
    a: Array
    """𝐀 (m², a²)."""
    g: Array
    """𝐆 (a², r²)."""
    back: Array
    """𝐁ᵀ (a², a²), its rows in another order: a tile's m × m block, the r − 1 columns beside it, the r − 1 rows below both."""


def matrices(xp: Any, form: Form, dtype: str) -> Matrices:
    """Those of a form, on the device of xp."""
    host = _on_host(form, dtype)
    return host if xp is np else Matrices(*(xp.asarray(matrix) for matrix in host))


_POINTS = {4: (0, 1, -1), 6: (0, 1, -1, 2, -2)}
"""Where the polynomials are evaluated, besides infinity, by the cells of a tile."""
_SHARES = {4: (1, 1 / 2, 1 / 2), 6: (1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24)}
"""One over the product of the differences to the other points (some with the sign that _B is without)."""
_B = {
    4: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]],
    6: [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ],
}
"""Bᵀ: a row has the coefficients of the product of (x − point) over the other points; the last of that over all."""


@cache
def _on_host(form: Form, dtype: str) -> Matrices:
    powers, shares = np.array(_POINTS[form.a], np.float64)[:, None], np.array(_SHARES[form.a])[:, None]
    last = np.zeros((1, max(form.m, form.r)))
    last[0, -1] = 1                                                         # at infinity only the highest power counts
    g = np.concatenate([powers ** np.arange(form.r) * shares, last[:, -form.r :]])
    a = np.concatenate([powers ** np.arange(form.m), last[:, -form.m :]]).T
    cells = np.arange(form.a**2).reshape(form.a, form.a)
    order = np.concatenate([cells[: form.m, : form.m].ravel(), cells[: form.m, form.m :].ravel(), cells[form.m :].ravel()])
    b, a, g = (np.kron(matrix, matrix).astype(dtype) for matrix in (np.array(_B[form.a], np.float64), a, g))
    return Matrices(b, a, g, np.ascontiguousarray(b.T[order]))
