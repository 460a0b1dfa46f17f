"""Winograd's F(4×4, 3×3) on a GPU: transforms by winograd.cu, 36 products by cuBLAS between them. The maths: kernels/winograd.py.

As many tiles at a time as fit the workspace; the filters are transformed anew each time, which reads them once. Precision: the
transforms compute in the dtype of x, the factors of the products are what the options ask for. What the transforms cancel
makes the rounding of either some ten times as large as in a product of columns.
"""

from __future__ import annotations

from math import prod
from typing import Any

from numpy import int32

from ...backend import Array, array_module
from .launch import index_type, launch, window
from .memory import allocating, chunks
from .products import Factor, factor, product

_M, _PLACES = 4, 36


def tiles(count: int, geometry: Any) -> int:
    """Tiles that cover the outputs of `count` images."""
    return count * prod(-(-out // _M) for out in geometry.out)


def forward(x: Array, w: Array, bias: Array | None, y: Array, geometry: Any, relu: bool = False) -> None:
    """y ← W X + b, and max(…, 0) for relu. x: (N, C, H, W), w: (O, C, 3, 3), y: (N, O, *out), all in C order."""
    o, c = w.shape[:2]
    with allocating("the filters of Winograd's algorithm", (_PLACES, o, c), w.dtype, workspace=True):
        u = array_module(w).empty((_PLACES, o, c), dtype=w.dtype)
    kind = index_type(u.size)
    launch("winograd", "winograd_filters", (w.dtype, kind), (w, u, kind(o * c)), threads=o * c)
    a = factor(u)
    for start, size in chunks(tiles(x.shape[0], geometry), _PLACES * (c + o) * x.dtype.itemsize):
        v = factor(_transformed(("winograd", "winograd_input"), x, geometry, start, size))
        with allocating("the products of Winograd's algorithm", (_PLACES, o, size), x.dtype, workspace=True):
            products = product(a, v)                            # (36, O, size)
        kind = index_type(products.size, y.size)
        launch("winograd", "winograd_output", (y.dtype, kind), (
            products, bias, y, window(geometry), kind(o), kind(start), kind(size), int32(relu)), threads=o * size)


def weight_gradient(x: Array, dy: Array, geometry: Any) -> Array:
    """dW = dY Xᵀ (O, C, 3, 3), its transform summed over the chunks one after the other. x: (N, C, H, W), dy: (N, O, *out)."""
    xp, o, c, total = array_module(x, dy), dy.shape[1], x.shape[1], None
    for start, size in chunks(tiles(x.shape[0], geometry), _PLACES * (c + o) * x.dtype.itemsize):
        e = factor(_transformed(("winograd", "winograd_signal"), dy, geometry, start, size))
        v = factor(_transformed(("winograd", "winograd_input"), x, geometry, start, size))
        with allocating("the products of Winograd's algorithm", (_PLACES, o, c), x.dtype, workspace=True):
            part = product(e, Factor(v.array.swapaxes(1, 2), v.scale))          # (36, O, C)
        total = part if total is None else xp.add(total, part, out=total)
    with allocating("the weight gradient of a convolution", (o, c, 3, 3), x.dtype):
        dw, kind = xp.empty((o, c, 3, 3), dtype=x.dtype), index_type(_PLACES * o * c)
    launch("winograd", "winograd_weight_gradient", (x.dtype, kind), (total, dw, kind(o * c)), threads=o * c)
    return dw


def _transformed(kernel: tuple[str, str], x: Array, geometry: Any, start: int, size: int) -> Array:
    """The tiles of one chunk of x (N, C, …), transformed: (36, C, size)."""
    channels = x.shape[1]
    with allocating("the tiles of Winograd's algorithm", (_PLACES, channels, size), x.dtype, workspace=True):
        made = array_module(x).empty((_PLACES, channels, size), dtype=x.dtype)
    kind = index_type(made.size, x.size)
    launch(*kernel, (x.dtype, kind), (
        x, made, window(geometry), kind(channels), kind(start), kind(size)), threads=channels * size)
    return made
