"""Correlation as a matrix product over columns, and its two adjoints: any kernel, stride, padding, dilation, groups.

With the columns X[(c, k), (n, p)] = x[n, c, p·stride + k·dilation − padding] it reads Y = W X, and so
dX = Wᵀ dY and dW = dY Xᵀ. The columns are made for one tile of the output at a time, so memory stays bounded.
(im2col: Chellapilla, Puri & Simard, "High Performance Convolutional Neural Networks for Document Processing", 2006.)

Groups are a leading axis G of every matrix: W (G, O/G, C/G·K), X (G, C/G·K, n·P).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

from ..backend import Array, array_module
from .geometry import Geometry, pad_cells, windows
from .masking import rectify
from .scratch import scratch
from .tiles import WORKSPACE, Tile, tiles


def forward(
    x: Array, w: Array, bias: Array | None, geometry: Geometry, groups: int, relu: bool = False, workspace: int = WORKSPACE
) -> Array:
    """Y = W X + b, and max(Y, 0) if relu. x: (N, C, *size), w: (O, C/G, *kernel), bias: (O,) or None. Returns (N, O, *out)."""
    xp, g, out = array_module(x), groups, geometry.out
    count, o = x.shape[0], w.shape[0]
    matrix = w.reshape(g, o // g, -1)                                       # (G, O/G, C/G·K)
    y = xp.empty((count, o, *out), dtype=x.dtype)
    shift = 0 if bias is None else bias.reshape(-1, *[1] * len(out))
    for tile, columns in _columns(x, geometry, g, workspace):
        images, rows = tile
        shape = (g, o // g, images.stop - images.start, rows.stop - rows.start, *out[1:])
        result = scratch(xp, "products", (*matrix.shape[:2], columns.shape[2]), x.dtype)
        result = xp.matmul(matrix, columns, out=result).reshape(shape)      # (G, O/G, n, rows, …)
        result = result.reshape(o, *shape[2:]).swapaxes(0, 1)               # (n, O, rows, …)
        target = y[images, :, rows]
        xp.add(result, shift, out=target)                                   # while the tile is in cache
        if relu:
            rectify(target, out=target)
    return y


def input_gradient(dy: Array, w: Array, geometry: Geometry, groups: int, workspace: int = WORKSPACE) -> Array:
    """dX = Wᵀ dY. dy: (N, O, *out). Returns (N, C, *size).

    With stride 1 this is a correlation of dy with the flipped filters. Otherwise every column entry is added back to the
    cell that it came from.
    """
    if max(geometry.stride, default=1) == 1:
        return forward(*flipped(dy, w, geometry, groups), groups, workspace=workspace)
    xp, g, out, kernel = array_module(dy), groups, geometry.out, geometry.kernel
    count, o, c = dy.shape[0], w.shape[0], w.shape[1] * groups
    matrix = w.reshape(g, o // g, -1).swapaxes(1, 2)                        # (G, C/G·K, O/G)
    dx = xp.zeros((count, c, *geometry.padded), dtype=dy.dtype)
    for images, rows in tiles(count, out[0], _bytes_per_row(dy, geometry, c), workspace):
        part = _as_matrix(dy[images, :, rows], g)                           # (G, O/G, n·P)
        shape = (c, *kernel, images.stop - images.start, rows.stop - rows.start, *out[1:])
        columns = xp.matmul(matrix, part).reshape(shape)                    # (C, *kernel, n, rows, …)
        target = dx[images]
        for offset in product(*map(range, kernel)):
            target[geometry.seen_by(offset, rows)] += columns[(slice(None), *offset)].swapaxes(0, 1)
    return xp.ascontiguousarray(dx[geometry.interior])


def weight_gradient(x: Array, dy: Array, geometry: Geometry, groups: int, workspace: int = WORKSPACE) -> Array:
    """dW = dY Xᵀ, summed over the tiles. x: (N, C, *size), dy: (N, O, *out). Returns (O, C/G, *kernel)."""
    xp, g = array_module(x), groups
    o, c = dy.shape[1], x.shape[1]
    dw = xp.zeros((g, o // g, c // g * prod(geometry.kernel)), dtype=x.dtype)
    for tile, columns in _columns(x, geometry, g, workspace):
        dw += xp.matmul(_as_matrix(dy[tile.images, :, tile.rows], g), columns.swapaxes(1, 2))
    return dw.reshape(o, c // g, *geometry.kernel)


def flipped(dy: Array, w: Array, geometry: Geometry, groups: int) -> tuple[Array, Array, None, Geometry]:
    """The correlation that is the input gradient of one with stride 1: (dy, filters, no bias, its geometry).

        dx[c, q] = Σ_o Σ_k w[o, c, k] · dy[o, q + low − k·dilation]
                 = Σ_o Σ_k w[o, c, K − 1 − k] · dy[o, q + k·dilation − (span − low)]
    """
    xp, n = array_module(w), len(geometry.size)
    o, c = w.shape[0] // groups, w.shape[1]
    turned_w = w[(slice(None), slice(None), *[slice(None, None, -1)] * n)].reshape(groups, o, c, *geometry.kernel)
    turned_w = xp.ascontiguousarray(turned_w.swapaxes(1, 2)).reshape(groups * c, o, *geometry.kernel)
    low = [span - lo for span, lo in zip(geometry.spans, geometry.low, strict=True)]
    high = [                                                                # up to the last cell, also one that no window sees
        size + span - out - lo for size, span, out, lo in zip(geometry.size, geometry.spans, geometry.out, low, strict=True)
    ]
    # Padding wider than the kernel reaches: what the outermost windows see is padding alone, so their dy goes nowhere.
    crop = tuple(
        slice(max(0, -lo), size - max(0, -hi)) for lo, hi, size in zip(low, high, geometry.out, strict=True)
    )
    dy = dy[(slice(None), slice(None), *crop)]
    turned = Geometry(
        tuple(dy.shape[2:]), geometry.kernel, (1,) * n, tuple(max(0, lo) for lo in low), tuple(max(0, hi) for hi in high),
        geometry.dilation, geometry.size,
    )
    return dy, turned_w, None, turned


def _bytes_per_row(x: Array, geometry: Geometry, channels: int) -> int:
    return channels * prod(geometry.kernel) * prod(geometry.out[1:]) * x.dtype.itemsize


def _columns(x: Array, geometry: Geometry, groups: int, limit: int) -> Iterator[tuple[Tile, Array]]:
    """(tile, its columns X (G, C/G·K, n·P)); the next tile overwrites the columns of the last."""
    xp, n = array_module(x), len(geometry.size)
    count, c = x.shape[:2]
    view = windows(pad_cells(x, geometry, 0.0), geometry)                   # (N, C, *out, *kernel)
    view = view.transpose(1, *range(2 + n, 2 + 2 * n), 0, *range(2, 2 + n))  # (C, *kernel, N, *out)
    skip = (slice(None),) * (1 + n)
    workspace = None
    for tile in tiles(count, geometry.out[0], _bytes_per_row(x, geometry, c), limit):
        part = view[(*skip, *tile)]                                         # (C, *kernel, n, rows, …)
        if workspace is None:
            workspace = scratch(xp, "columns", (prod(part.shape),), x.dtype)    # the first tile is the largest
        columns = workspace[: prod(part.shape)].reshape(part.shape)
        xp.copyto(columns, part)
        yield tile, columns.reshape(groups, c // groups * prod(geometry.kernel), -1)


def _as_matrix(part: Array, groups: int) -> Array:
    """(n, O, rows, …) as (G, O/G, n·P)."""
    n, o = part.shape[:2]
    return array_module(part).ascontiguousarray(part.swapaxes(0, 1)).reshape(groups, o // groups, n * prod(part.shape[2:]))
