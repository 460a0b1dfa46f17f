"""Convolution on a GPU and its two adjoints, in one to three dimensions: what kernels/im2col.py says, as CUDA.

Which way an operation goes depends on its shape and the options alone, so the same call gives the same bits every time:

* a 1×1 kernel with stride 1 is one product: there is nothing to gather; its weight gradient is one for each image, and their sum;
* a filter that sees one channel (depthwise) has its own kernels (depthwise.cu): there is no product to feed;
* all else goes through columns in a bounded workspace and a product by cuBLAS (columns.cu), by implicit GEMM, which never writes
  the columns (direct.cu), or by Winograd's algorithm (winograd.py), whichever choice.py takes for the quickest.

With stride 1 the input gradient is a correlation, too: of dy, with the filters turned half around.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ...backend import Array, array_module, current_gpu_options
from ..im2col import flipped
from . import winograd
from .choice import can_direct, choose, pays_image_by_image
from .launch import block_for, dense, expression, index_type, launch, window
from .memory import allocating, chunks
from .products import Factor, factor, product

TILES = {True: (64, 128, 8, 4, 8), False: (128, 128, 8, 8, 8)}
"""BM, BN, BK, TM, TN of direct.cu, by whether a group has at most 64 filters."""
UNROLLED = ((1, 1), (3, 3), (5, 5), (7, 7), (11, 11))
"""Kernels that direct.cu is compiled for by size."""


def correlate(
    x: Array, w: Array, bias: Array | None, geometry: Any, groups: int, relu: bool = False, algorithm: str = "auto"
) -> Array:
    """y[n, o, p] = b[o] + Σ w[o, c, k] x[n, c, p·stride + k·dilation − low], and max(y, 0) for relu.

    x: (N, C, *size), w: (O, C/G, *kernel), bias: (O,) or None. algorithm: "im2col", "direct", "winograd4x4" where they can
    (choice.py), or "auto". Returns (N, O, *out).
    """
    x, w, bias = dense(x), dense(w), None if bias is None else dense(bias)
    xp, count, filters = array_module(x, w), x.shape[0], w.shape[0]
    with allocating("the output of a convolution", (count, filters, *geometry.out), x.dtype):
        y = xp.empty((count, filters, *geometry.out), dtype=x.dtype)
    if y.size == 0:
        return y
    way = _way(algorithm, "forward", x, w.shape[1] * groups, filters, geometry, groups)
    if way == "depthwise":
        kind = index_type(x.size, y.size)
        launch("depthwise", "depthwise", (x.dtype, kind), (
            x, w, bias, y, window(geometry), kind(groups), kind(filters // groups), kind(y.size)), threads=y.size)
        if relu:
            bias_relu(y, None, True)
        return y
    if way == "direct":
        _direct(x, w, bias, y, geometry, groups, relu)
        return y
    if way == "winograd4x4":
        winograd.forward(x, w, bias, y, geometry, relu)
        return y
    if way == "pointwise":
        matrix, maps = w.reshape(1, groups, filters // groups, -1), x.reshape(count, groups, w.shape[1], -1)
        product(factor(matrix), factor(maps), y.reshape(count, groups, filters // groups, -1))
        if bias is not None or relu:
            bias_relu(y, bias, relu)
        return y
    P, a = prod(geometry.out), factor(w.reshape(groups, filters // groups, -1))
    for start, size, columns in _columns(x, geometry, groups):
        with allocating("the products of a convolution", (filters, size), x.dtype, workspace=True):
            rows = product(a, columns)                          # (G, O/G, size)
        kind = index_type(rows.size, y.size)
        launch("columns", "rows_to_maps", (y.dtype, kind), (
            rows, bias, y, kind(P), kind(filters), kind(start), kind(size), np.int32(relu)), threads=rows.size)
    return y


def correlate_input_gradient(dy: Array, w: Array, geometry: Any, groups: int, algorithm: str = "auto") -> Array:
    """dX = Wᵀ dY, gathered: every input cell adds up its column entries. dy: (N, O, *out). Returns (N, C, *size)."""
    dy, w = dense(dy), dense(w)
    xp, count, filters, channels = array_module(dy, w), dy.shape[0], w.shape[0], w.shape[1] * groups
    with allocating("the input gradient of a convolution", (count, channels, *geometry.size), dy.dtype):
        dx = xp.empty((count, channels, *geometry.size), dtype=dy.dtype)
    if dx.size == 0 or dy.size == 0:
        dx.fill(0)
        return dx
    way = _way(algorithm, "input gradient", dy, channels, filters, geometry, groups)
    if way == "depthwise":
        kind = index_type(dx.size, dy.size)
        launch("depthwise", "depthwise_input_gradient", (dy.dtype, kind), (
            dy, w, dx, window(geometry), kind(groups), kind(filters // groups), kind(dx.size)), threads=dx.size)
        return dx
    if way in ("direct", "winograd4x4"):
        signal, turned, _, windows = flipped(dy, w, geometry, groups)
        if way == "direct":
            _direct(dense(signal), turned, None, dx, windows, groups, False)
        else:
            winograd.forward(dense(signal), turned, None, dx, windows)
        return dx
    if way == "pointwise":
        matrix, maps = w.reshape(1, groups, filters // groups, -1), dy.reshape(count, groups, filters // groups, -1)
        # Several groups go through CuPy's product, which would copy it anyway.
        turned = factor(matrix if groups == 1 else dense(matrix.swapaxes(2, 3)))
        turned = Factor(turned.array.swapaxes(2, 3), turned.scale) if groups == 1 else turned
        product(turned, factor(maps), dx.reshape(count, groups, w.shape[1], -1))
        return dx
    P, Q, K = prod(geometry.out), prod(geometry.size), prod(geometry.kernel)
    a = factor(w.reshape(groups, filters // groups, -1))
    a = Factor(a.array.swapaxes(1, 2), a.scale)                 # (G, C/G·K, O/G)
    for start, size, rows in _rows(dy, geometry, groups, (channels * K + filters) * dy.dtype.itemsize):
        with allocating("the columns of a convolution's gradient", (channels * K, size), dy.dtype, workspace=True):
            columns = product(a, rows)                          # (G, C/G·K, size)
        first, last = start // P, (start + size - 1) // P
        cells = (last - first + 1) * channels * Q
        kind = index_type(columns.size, dx.size, dy.size)
        launch("columns", "col2im", (dx.dtype, kind), (
            columns, dx, window(geometry), kind(channels), kind(start), kind(size), kind(first), kind(cells)), threads=cells)
    return dx


def correlate_weight_gradient(x: Array, dy: Array, geometry: Any, groups: int, algorithm: str = "auto") -> Array:
    """dW = dY Xᵀ, summed over the chunks one after the other. x: (N, C, *size), dy: (N, O, *out). Returns (O, C/G, *kernel)."""
    x, dy = dense(x), dense(dy)
    xp, filters, channels = array_module(x, dy), dy.shape[1], x.shape[1]
    shape = (filters, channels // groups, *geometry.kernel)
    if x.size == 0 or dy.size == 0:
        return xp.zeros(shape, dtype=x.dtype)
    way = _way(algorithm, "weight gradient", x, channels, filters, geometry, groups)
    if way == "winograd4x4":
        return winograd.weight_gradient(x, dy, geometry)
    if way == "depthwise":
        with allocating("the weight gradient of a convolution", shape, x.dtype):
            dw, kind = xp.empty(shape, dtype=x.dtype), index_type(x.size, dy.size)
        launch("depthwise", "depthwise_weight_gradient", (x.dtype, kind), (
            x, dy, dw, window(geometry), kind(channels), kind(filters // channels), kind(x.shape[0])),
            threads=dw.size, block=block_for(x.shape[0] * prod(geometry.out)), grid=(dw.size,))
        return dw
    total = None
    signal, P = factor(dy), prod(geometry.out)
    if way == "pointwise":
        rows, columns = (
            Factor(side.array.reshape(x.shape[0], groups, -1, P), side.scale) for side in (signal, factor(x))
        )
        for start, size in chunks(x.shape[0], prod(shape) * x.dtype.itemsize):
            image = slice(start, start + size)
            with allocating("the products of a convolution's gradient", (size, *shape), x.dtype, workspace=True):
                each = product(Factor(rows.array[image], rows.scale), Factor(columns.array[image].swapaxes(2, 3), columns.scale))
                part = each.sum(axis=0)                         # (G, O/G, C/G), in a fixed order
            total = part if total is None else xp.add(total, part, out=total)
        assert total is not None
        return total.reshape(shape)
    for start, size, columns in _columns(x, geometry, groups):
        rows = _gathered(signal, start, size, P, groups)
        with allocating("the products of a convolution's gradient", shape, x.dtype, workspace=True):
            part = product(rows, Factor(columns.array.swapaxes(1, 2), columns.scale))     # (G, O/G, C/G·K)
        total = part if total is None else xp.add(total, part, out=total)
    assert total is not None
    return total.reshape(shape)


def bias_relu(y: Array, bias: Array | None, relu: bool = True) -> Array:
    """y[n, c, p] ← max(y + b[c], 0), in place and in one pass; relu False: the bias alone. y: (N, C, …) in C order."""
    if y.size:
        kind = index_type(y.size)
        launch("pointwise", "bias_relu", (y.dtype, kind), (
            y, None if bias is None else dense(bias), kind(y.shape[1]), kind(prod(y.shape[2:])), np.int32(relu), kind(y.size)),
            threads=y.size)
    return y


def _way(algorithm: str, what: str, x: Array, channels: int, filters: int, geometry: Any, groups: int) -> str:
    """How it is done. x: any array of it; its first axis counts the images."""
    if algorithm == "direct" and not can_direct(what, x.shape[0], channels, filters, geometry, groups):
        return "im2col"                                         # a gradient of which there is no such kernel
    if algorithm != "auto":
        return algorithm
    if channels == groups > 1:
        return "depthwise"
    if set(geometry.kernel) == {1} == set(geometry.stride) and tuple(geometry.out) == tuple(geometry.size):
        plain = x.dtype != np.float32 or current_gpu_options().precision == "float32"
        # The filters are one matrix, which does for all images. Those of several groups do not: products.py.
        if pays_image_by_image(channels, filters, geometry, groups) if what == "weight gradient" else groups == 1 or plain:
            return "pointwise"
    return choose(what, x.shape[0], channels, filters, geometry, groups, x.dtype)


def _direct(x: Array, w: Array, bias: Array | None, y: Array, geometry: Any, groups: int, relu: bool) -> None:
    tile, filters = TILES[w.shape[0] // groups <= 64], w.shape[0] // groups
    (bm, bn, _, tm, tn), positions = tile, x.shape[0] * prod(geometry.out)
    kernel = tuple(geometry.kernel) if tuple(geometry.kernel) in UNROLLED else (0, 0)
    launch("direct", "direct_conv2d", (np.float32, *tile, *kernel), (
        x, w, bias, y, window(geometry), np.int32(w.shape[1]), np.int32(filters), np.int32(positions), np.int32(relu)),
        threads=positions, block=bm // tm * (bn // tn), grid=(-(-positions // bn), -(-filters // bm), groups))


def direct_kernels() -> list[str]:
    """The C++ names of all versions of direct.cu that can be asked for."""
    return [expression("direct_conv2d", np.float32, *tile, *kernel) for tile in TILES.values() for kernel in ((0, 0), *UNROLLED)]


def _columns(x: Array, geometry: Any, groups: int) -> Iterator[tuple[int, int, Factor]]:
    """(start, size, columns (G, C/G·K, size)) of every chunk; a chunk overwrites the columns of the last."""
    xp, (count, channels), K = array_module(x), x.shape[:2], prod(geometry.kernel)
    source = factor(x)
    bits = _bits(source.array)
    positions, workspace = count * prod(geometry.out), None
    for start, size in chunks(positions, channels * K * bits.dtype.itemsize):
        if workspace is None:                                   # the first chunk is the largest
            with allocating("the columns of a convolution", (channels * K, size), bits.dtype, workspace=True):
                workspace = xp.empty(channels * K * size, dtype=source.array.dtype)
        columns = workspace[: channels * K * size]
        kind = index_type(columns.size, x.size, positions)
        launch("columns", "im2col", (bits.dtype, kind), (
            bits, _bits(columns), window(geometry), kind(channels), kind(start), kind(size)), threads=channels * size)
        yield start, size, Factor(columns.reshape(groups, channels // groups * K, size), source.scale)


def _rows(dy: Array, geometry: Any, groups: int, bytes_a_position: int) -> Iterator[tuple[int, int, Factor]]:
    """(start, size, rows (G, O/G, size)) of every chunk of a signal (N, O, *out)."""
    signal, P = factor(dy), prod(geometry.out)
    for start, size in chunks(dy.shape[0] * P, bytes_a_position):
        yield start, size, _gathered(signal, start, size, P, groups)


def _gathered(signal: Factor, start: int, size: int, P: int, groups: int) -> Factor:
    """dY[o, j] = dy[n, o, p] of one chunk, (G, O/G, size)."""
    dy, filters = signal.array, signal.array.shape[1]
    with allocating("the rows of a convolution's gradient", (filters, size), dy.dtype, workspace=True):
        rows = array_module(dy).empty((filters, size), dtype=dy.dtype)
    bits, kind = _bits(dy), index_type(dy.size, rows.size)
    launch("columns", "maps_to_rows", (bits.dtype, kind), (
        bits, _bits(rows), kind(P), kind(filters), kind(start), kind(size)), threads=rows.size)
    return Factor(rows.reshape(groups, filters // groups, size), signal.scale)


def _bits(x: Array) -> Array:
    """x, a float16 array as its bits: they are copied only, and zero is zero."""
    return x.view(np.uint16) if x.dtype == np.float16 else x
