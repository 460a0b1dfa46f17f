"""Correlation as a matrix product over columns, and its two adjoints: any kernel, stride, padding, dilation, groups.

With the columns X[(c, k), (n, p)] = x[n, c, p·stride + k·dilation − padding] it reads Y = W X, and so
dX = Wᵀ dY and dW = dY Xᵀ. The columns are made for one tile of the output at a time, so memory stays bounded.
(im2col: Chellapilla, Puri & Simard, "High Performance Convolutional Neural Networks for Document Processing", 2006.)

Groups are a leading axis G of every matrix: W (G, O/G, C/G·K), X (G, C/G·K, n·P).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import gcd, prod

from ..backend import Array, array_module
from . import phases
from .geometry import Geometry, pad_cells, windows
from .masking import rectify
from .products import matmul_transposed
from .scratch import scratch
from .tiles import Tile, tiles

WORKSPACE = 1 << 22
"""Bytes of columns. The L2 cache of a core holds a quarter of it, but the product packs them anyway, and long calls leave threads
less to wait for each other at the interpreter's lock.
"""
MORE = 4
"""How many times as many outputs as weights there must be for the bias to be one more weight, of a line of ones."""
LONG = 512
"""Outputs of a filter for one image from which on its product needs no other image to be quick."""
FEWER = 2
"""Of how many times as many filters as channels the columns of dX are made, not those of dY."""


def forward(
    x: Array, w: Array, bias: Array | None, geometry: Geometry, groups: int, relu: bool = False, workspace: int = WORKSPACE
) -> Array:
    """Y = W X + b, and max(Y, 0) if relu. x: (N, C, *size), w: (O, C/G, *kernel), bias: (O,) or None. Returns (N, O, *out)."""
    xp, g, out = array_module(x), groups, geometry.out
    count, o = x.shape[0], w.shape[0]
    y = xp.empty((count, o, *out), dtype=x.dtype)
    whole, inner = y.reshape(count, g, o // g, prod(out)), prod(out[1:])
    matrix = w.reshape(g, o // g, -1)                                       # (G, O/G, C/G·K)
    within = bias is not None and MORE * w.size <= y.size
    if whole.shape[3] >= LONG:                                              # an image a tile: straight to where it belongs
        workspace = min(workspace, _bytes_per_row(x, geometry, x.shape[1]) * out[0])
    if bias is not None and within:
        matrix = xp.concatenate([matrix, bias.reshape(g, o // g, 1)], axis=2)
    shift = 0 if bias is None or within else bias.reshape(g, o // g, 1)
    for (images, rows), columns in _columns(x, geometry, g, workspace, ones=within):
        target = whole[images, :, :, rows.start * inner : rows.stop * inner]    # (n, G, O/G, P)
        if len(target) == 1:
            xp.matmul(matrix, columns, out=target[0])
            if bias is not None and not within:
                target += shift
        else:
            result = scratch(xp, "products", (*matrix.shape[:2], columns.shape[2]), x.dtype)
            result = xp.matmul(matrix, columns, out=result).reshape(g, o // g, len(target), -1)
            xp.add(result.transpose(2, 0, 1, 3), shift, out=target)         # while the tile is in cache
        if relu:
            rectify(target, out=target)
    return y


def input_gradient(dy: Array, w: Array, geometry: Geometry, groups: int, workspace: int = WORKSPACE) -> Array:
    """dX = Wᵀ dY. dy: (N, O, *out). Returns (N, C, *size).

    With stride 1 this is a correlation of dy with the flipped filters. With a stride, and where there are far fewer channels than
    filters, whose columns would be many, every entry of dX's columns is added to the cell that it stands for.
    """
    xp, g, out, kernel = array_module(dy), groups, geometry.out, geometry.kernel
    o, c = w.shape[0], w.shape[1] * groups
    if max(geometry.stride, default=1) == 1 and FEWER * c > o:
        return forward(*flipped(dy, w, geometry, groups), groups, workspace=workspace)
    matrix = w.reshape(g, o // g, -1).swapaxes(1, 2)                        # (G, C/G·K, O/G)
    dx = xp.zeros((dy.shape[0], c, *phases.dealt(geometry)), dtype=dy.dtype)
    for images, rows in tiles(dy.shape[0], out[0], _bytes_per_row(dy, geometry, c), workspace):
        part = _as_matrix(dy[images, :, rows], g)                           # (G, O/G, n·P)
        columns = scratch(xp, "columns", (*matrix.shape[:2], part.shape[2]), dy.dtype)
        (xp.matmul if o > g else xp.multiply)(matrix, part, out=columns)    # with one filter a group the same, in longer runs
        shape = (images.stop - images.start, rows.stop - rows.start, *out[1:])
        _add_back(columns.reshape(c, *kernel, *shape), dx[images], rows, geometry)
    return phases.collect(dx, geometry)


def _add_back(columns: Array, dx: Array, rows: slice, geometry: Geometry) -> None:
    """Add columns (C, *kernel, n, rows, …) to the cells of dx (n, C, *padded[:-1], stride, cells)."""
    *before, last = geometry.kernel
    if not before:                                                          # the rows are the last axis itself
        for k in range(last):
            remainder, cells = phases.place(k, geometry)
            part = slice(cells.start + rows.start, cells.start + rows.stop)
            dx[:, :, remainder, part] += columns[:, k].swapaxes(0, 1)
        return
    # Along the last axis first, for all positions of the others at once; then whole lines along those.
    xp, skip = array_module(columns), (slice(None),) * (1 + len(before))
    ends = columns.shape[len(skip) + 1 : -1]                                # n, rows and all but the last axis
    lines = scratch(xp, "lines", (len(columns), *before, *ends, *phases.dealt(geometry)[-2:]), columns.dtype)
    lines[...] = 0
    for k in range(last):
        remainder, cells = phases.place(k, geometry)
        lines[..., remainder, cells] += columns[(*skip, k)]
    for offset in product(*map(range, before)):
        seen = geometry.seen_by((*offset, 0), rows)[1:-1]
        dx[(slice(None), slice(None), *seen)] += lines[(slice(None), *offset)].swapaxes(0, 1)


def weight_gradient(x: Array, dy: Array, geometry: Geometry, groups: int, workspace: int = WORKSPACE) -> Array:
    """dW = dY Xᵀ, summed over the tiles. x: (N, C, *size), dy: (N, O, *out). Returns (O, C/G, *kernel)."""
    xp, g = array_module(x), groups
    o, c = dy.shape[1], x.shape[1]
    dw = None
    for tile, columns in _columns(x, geometry, g, workspace):
        part = matmul_transposed(_as_matrix(dy[tile.images, :, tile.rows], g), columns)
        dw = part if dw is None else xp.add(dw, part, out=dw)
    if dw is None:                                                          # no images
        dw = xp.zeros((g, o // g, c // g * prod(geometry.kernel)), dtype=x.dtype)
    return xp.ascontiguousarray(dw).reshape(o, c // g, *geometry.kernel)


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


def _columns(x: Array, geometry: Geometry, groups: int, limit: int, ones: bool = False) -> Iterator[tuple[Tile, Array]]:
    """(tile, its columns X (G, C/G·K, n·P), with `ones` and a line of ones); the next tile overwrites the columns of the last."""
    xp, n = array_module(x), len(geometry.size)
    count, each = x.shape[0], x.shape[1] // groups
    lines = each * prod(geometry.kernel)
    views = []                                                              # (G, C/G, *kernel, N, *out)
    for positions, view in _views(x, geometry):
        view = view.reshape(count, groups, each, *view.shape[2:])
        views.append((positions, view.transpose(1, 2, *range(3 + n, 3 + 2 * n), 0, *range(3, 3 + n))))
    skip = (slice(None),) * (1 + n)                                         # G, C/G and all but the kernel's last axis
    workspace = None
    for tile in tiles(count, geometry.out[0], _bytes_per_row(x, geometry, x.shape[1]), limit):
        cells = (tile.images.stop - tile.images.start, tile.rows.stop - tile.rows.start, *geometry.out[1:])
        shape = (groups, lines + ones, prod(cells))
        if workspace is None:
            workspace = scratch(xp, "columns", (prod(shape),), x.dtype)     # the first tile is the largest
        columns = workspace[: prod(shape)].reshape(shape)
        if ones:
            columns[:, -1] = 1
        own = columns[:, :lines].reshape(groups, each, *geometry.kernel, *cells)     # still a view
        for positions, view in views:
            xp.copyto(own[(*skip, positions)], view[(*skip, slice(None), *tile)])
        yield tile, columns


def _views(x: Array, geometry: Geometry) -> Iterator[tuple[slice, Array]]:
    """(positions along the kernel's last axis, what the windows see there (N, C, *out, *kernel)): together all of them."""
    s, d, kernel = geometry.stride[-1], geometry.dilation[-1], geometry.kernel
    if s == 1:
        yield slice(None), windows(pad_cells(x, geometry, 0.0), geometry)
        return
    cells, common = phases.deal(x, geometry), gcd(s, d)
    for first in range(min(s // common, kernel[-1])):                       # every (s / common)-th sees cells of one remainder
        positions = range(first, kernel[-1], s // common)
        remainder, seen = phases.place(first, geometry)
        simple = geometry._replace(
            kernel=(*kernel[:-1], len(positions)), stride=(*geometry.stride[:-1], 1),
            dilation=(*geometry.dilation[:-1], d // common),
        )
        yield slice(first, None, s // common), windows(cells[..., remainder, seen.start :], simple)


def _as_matrix(part: Array, groups: int) -> Array:
    """(n, O, rows, …) as (G, O/G, n·P)."""
    n, o = part.shape[:2]
    return array_module(part).ascontiguousarray(part.swapaxes(0, 1)).reshape(groups, o // groups, n * prod(part.shape[2:]))
