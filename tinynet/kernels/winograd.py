"""3×3 correlation with stride 1 by Winograd's minimal filtering, and its two adjoints.

Overlapping tiles d of a × a input cells (a = m + 2) give m × m outputs each, and a filter g is transformed once:

    y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A             F(m×m, 3×3), summed over the input channels

(Winograd 1980; Lavin & Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, equations 12 and 13.) For
m = 4 that are 36 products for 16 outputs instead of 144. With both transforms written as one matrix each, 𝐁 = Bᵀ ⊗ Bᵀ (a², a²),
𝐀 = Aᵀ ⊗ Aᵀ (m², a²), 𝐆 = G ⊗ G (a², 9), the sum over the channels is a² matrix products, one for each place k of a tile:

    V = 𝐁 d     (a², C, T)                        U = 𝐆 w     (a², O, C)
    y = 𝐀 M     (m², O, T)                        M_k = U_k V_k

The form is linear in d and in w, so both gradients are the same steps transposed, in the other order:

    E = 𝐀ᵀ dy   (a², O, T)                        dd = 𝐁ᵀ (U_kᵀ E_k)           dw = 𝐆ᵀ (E_k V_kᵀ)

Errors. The transforms of m = 4 multiply by numbers up to 8, and what cancels afterwards leaves rounding errors behind: on outputs
of variance 1 the largest is about 1e-4 in float32, of m = 2 about 5e-6 (im2col: 2e-6). A NaN or an infinity in the input reaches
its whole tile, up to m − 1 cells further than a sum over windows would carry it.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from .filter_cache import FilterCache
from .geometry import Geometry
from .masking import rectify
from .scratch import times
from .winograd_tiles import Layout


def fits(geometry: Geometry, groups: int) -> bool:
    """Whether this correlation is one that Winograd's algorithm does: 3×3, stride 1, no dilation, no groups."""
    return geometry.kernel == (3, 3) and geometry.stride == (1, 1) and geometry.dilation == (1, 1) and groups == 1


def cost(m: int, count: int, channels: int, filters: int, geometry: Geometry) -> float:
    """About how much longer this takes than a product over columns: below 1 it is faster.

    (a/m)² products an output stand against 9. To them come reading U once for all tiles, as long as a few dozen tiles take; the
    transforms, which weigh less the more channels share them; and cells that the tiles cover in vain. The figures are fitted to
    two dozen shapes (benchmarks/NOTES.md).
    """
    tiles_each = prod(-(-out // m) for out in geometry.out)
    products = ((m + 2) / m) ** 2 * (1 + 24 / max(1, count * tiles_each)) * (1.9 if m == 2 else 1.0)
    transforms = {2: 77, 4: 127}[m] * (1 / channels + 1 / filters)
    filled = prod(geometry.out) / (tiles_each * m * m)
    return (products + transforms) / (9 * filled) * (1.0 if filled == 1 else 1.4)


def forward(
    x: Array, w: Array, bias: Array | None, geometry: Geometry, m: int, relu: bool = False, scale: Array | None = None
) -> Array:
    """Y = s · W X + b, and max(Y, 0) if relu. x: (N, C, H, W), w: (O, C, 3, 3), bias, scale: (O,) or None.

    Returns (N, O, *out).
    """
    xp, (o, c) = array_module(x), w.shape[:2]
    u, forms = filters(w, m), _forms(xp, m, str(x.dtype))
    layout = Layout.of(geometry, m, x, o)
    y = xp.empty((x.shape[0], o, *geometry.out), dtype=x.dtype)

    def finished(result: Array) -> None:                                    # (…, O, numbers), while it is in cache
        for combine, vector in ((xp.multiply, scale), (xp.add, bias)):
            if vector is not None:
                combine(result, vector.reshape(-1, 1), out=result)
        if relu:
            rectify(result, out=result)

    for images, rows in layout.parts():
        if rows.start == 0:
            whole = layout.framed(x[images], layout.padded, geometry.low)
            target = layout.canvas_for(y[images], layout.covered, "target")
        v = times("v", forms.b, layout.inputs(whole, rows))                 # (a², C·T)
        products = times("products", u, v.reshape(len(u), c, -1))           # (a², O, T)
        place = layout.lines(target, rows)
        if place is None:
            place = layout.blocks(target, rows)                             # (m, m, O, *grid)
            result = times("tiles", forms.a, products).reshape(place.shape)
            finished(result.reshape(m * m, o, -1))
        else:
            result = times("tiles", products.reshape(len(u), -1).T, forms.a.T).reshape(o, -1)  # (O, T·m²)
            finished(result)
            result = result.view(place.dtype).reshape(place.shape)          # (O, *grid, m) lines
        xp.copyto(place, result)
        if rows.stop == layout.grid[0]:
            layout.unframe(target, y[images], (0, 0))
    return y


def input_gradient(dy: Array, w: Array, geometry: Geometry, m: int) -> Array:
    """dX = Wᵀ dY. dy: (N, O, *out). Returns (N, C, *size)."""
    dx: Array = _back(None, w, dy, w.shape[1], geometry, m)[0]
    return dx


def weight_gradient(x: Array, dy: Array, geometry: Geometry, m: int) -> Array:
    """dW = dY Xᵀ. x: (N, C, H, W), dy: (N, O, *out). Returns (O, C, 3, 3)."""
    dw: Array = _back(x, None, dy, x.shape[1], geometry, m)[1]
    return dw


def gradients(x: Array, w: Array, dy: Array, geometry: Geometry, m: int) -> tuple[Array, Array]:
    """(dX, dW) in one walk: dy is cut and transformed once for both."""
    dx, dw = _back(x, w, dy, x.shape[1], geometry, m)
    assert dx is not None and dw is not None
    return dx, dw


def _back(x: Array | None, w: Array | None, dy: Array, c: int, geometry: Geometry, m: int) -> tuple[Array | None, Array | None]:
    """(dX where w is given, dW where x is given). c: channels of x."""
    xp, o = array_module(dy), dy.shape[1]
    forms, layout = _forms(xp, m, str(dy.dtype)), Layout.of(geometry, m, dy, c)
    u = None if w is None else filters(w, m).swapaxes(1, 2)                 # (a², C, O)
    dx = None if w is None else xp.empty((dy.shape[0], c, *geometry.size), dtype=dy.dtype)
    du = None
    for images, rows in layout.parts():
        if rows.start == 0:
            signal = layout.framed(dy[images], layout.covered, (0, 0), "signal")
        e = times("e", forms.a.T, layout.copied(layout.blocks(signal, rows))).reshape(len(forms.b), o, -1)  # (a², O, T)
        if dx is not None:
            if rows.start == 0:
                target, carried = layout.canvas_for(dx[images], layout.padded, "target"), None
            products = times("products", u, e)                              # (a², C, T)
            carried = layout.add_back(times("tiles", forms.back, products), target, rows, carried)
            if rows.stop == layout.grid[0]:
                layout.unframe(target, dx[images], geometry.low)
        if x is not None:
            if rows.start == 0:
                whole = layout.framed(x[images], layout.padded, geometry.low)
            v = times("v", forms.b, layout.inputs(whole, rows)).reshape(len(forms.b), c, -1)  # (a², C, T)
            if du is None:
                du = e @ v.swapaxes(1, 2)                                   # (a², O, C)
            else:
                du += times("products", e, v.swapaxes(1, 2))
    if x is None:
        return dx, None
    if du is None:                                                          # no images
        return dx, xp.zeros((o, c, 3, 3), dtype=dy.dtype)
    return dx, (du.reshape(len(du), -1).T @ forms.g).reshape(o, c, 3, 3)


def filters(w: Array, m: int) -> Array:
    """U = 𝐆 w (a², O, C)."""
    if array_module(w) is np:
        return _kept.get(w, m)
    u = _room(w, m)
    _transform(w, m, u)
    return u


def _room(w: Array, m: int) -> Array:
    return array_module(w).empty(((m + 2) ** 2, *w.shape[:2]), dtype=w.dtype)


def _transform(w: Array, m: int, out: Array) -> None:
    xp = array_module(w)
    xp.matmul(_forms(xp, m, str(w.dtype)).g, w.reshape(-1, 9).T, out=out.reshape(len(out), -1))    # in place: rows in one piece


_kept = FilterCache(_room, _transform)


class _Forms(NamedTuple):
    """The transforms as matrices."""

    b: Array
    """𝐁 (a², a²)."""
    a: Array
    """𝐀 (m², a²)."""
    g: Array
    """𝐆 (a², 9)."""
    back: Array
    """𝐁ᵀ (a², a²), its rows in another order: the m × m block of the tile, the two columns beside it, the two rows below both."""


# The polynomials are evaluated at 0, ±1, ∞ for m = 2, and at 0, ±1, ±2, ∞ for m = 4.
_B = {
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    4: [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ],
}
_G = {
    2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ],
}
_A = {
    2: [[1, 1, 1, 0], [0, 1, -1, -1]],
    4: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}


@cache
def _host_forms(m: int, dtype: str) -> _Forms:
    b, a, g = (np.array(matrices[m], np.float64) for matrices in (_B, _A, _G))
    cells = np.arange((m + 2) ** 2).reshape(m + 2, m + 2)
    order = np.concatenate([cells[:m, :m].ravel(), cells[:m, m:].ravel(), cells[m:].ravel()])
    b, a, g = (np.kron(matrix, matrix).astype(dtype) for matrix in (b, a, g))
    return _Forms(b, a, g, np.ascontiguousarray(b.T[order]))


def _forms(xp: Any, m: int, dtype: str) -> _Forms:
    host = _host_forms(m, dtype)
    return host if xp is np else _Forms(*(xp.asarray(matrix) for matrix in host))
