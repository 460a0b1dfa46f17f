"""Correlation with kernels of one cell: every position is a product of its own, so the columns are the input itself."""

from __future__ import annotations

from math import prod

from ..backend import Array, array_module
from . import im2col
from .geometry import Geometry
from .masking import rectify
from .products import matmul_transposed

_LONG = 256
"""Positions of one image from which on its product is worth a call of its own in the weight gradient."""


def fits(geometry: Geometry, groups: int) -> bool:
    """Whether every window is one cell, and none lies in the padding."""
    return max(geometry.kernel, default=1) == 1 and geometry.padded == geometry.size


def forward(x: Array, w: Array, bias: Array | None, geometry: Geometry, groups: int, relu: bool = False) -> Array:
    """Y = W X + b, and max(Y, 0) if relu. x: (N, C, *size), w: (O, C/G, 1, …). Returns (N, O, *out)."""
    xp, o = array_module(x), w.shape[0]
    columns = _columns(x, geometry, groups)                                 # (N, G, C/G, P)
    y = xp.matmul(w.reshape(groups, o // groups, -1), columns).reshape(x.shape[0], o, *geometry.out)
    if bias is not None:
        y += bias.reshape(-1, *[1] * len(geometry.out))
    return rectify(y, out=y) if relu else y


def input_gradient(dy: Array, w: Array, geometry: Geometry, groups: int) -> Array:
    """dX = Wᵀ dY; cells that a stride leaves out are zero. dy: (N, O, *out). Returns (N, C, *size)."""
    xp, (n, o), c = array_module(dy), dy.shape[:2], w.shape[1] * groups
    matrix = w.reshape(groups, o // groups, -1).swapaxes(1, 2)              # (G, C/G, O/G)
    dx = xp.matmul(matrix, dy.reshape(n, groups, o // groups, prod(geometry.out))).reshape(n, c, *geometry.out)
    if geometry.out == geometry.size:
        return dx
    whole = xp.zeros((n, c, *geometry.size), dtype=dy.dtype)
    whole[geometry.seen_by((0,) * len(geometry.size))] = dx
    return whole


def weight_gradient(x: Array, dy: Array, geometry: Geometry, groups: int) -> Array:
    """dW = Σ_n dY_n X_nᵀ. x: (N, C, *size), dy: (N, O, *out). Returns (O, C/G, 1, …)."""
    xp, n, o, positions = array_module(x), x.shape[0], dy.shape[1], prod(geometry.out)
    if n == 0 or positions < _LONG:
        return im2col.weight_gradient(x, dy, geometry, groups)
    columns = _columns(x, geometry, groups)                                 # (N, G, C/G, P)
    signal = dy.reshape(n, groups, o // groups, positions)
    dw = matmul_transposed(signal[0], columns[0])                           # (G, O/G, C/G)
    for image in range(1, n):
        dw += matmul_transposed(signal[image], columns[image])
    return xp.ascontiguousarray(dw).reshape(o, -1, *geometry.kernel)


def _columns(x: Array, geometry: Geometry, groups: int) -> Array:
    """(N, C, *size) → (N, G, C/G, P)."""
    seen = x[geometry.seen_by((0,) * len(geometry.size))]
    return seen.reshape(x.shape[0], groups, x.shape[1] // groups, prod(geometry.out))
