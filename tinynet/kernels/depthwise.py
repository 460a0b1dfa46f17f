"""Correlation in which every input channel has filters of its own (groups = C): the matrices would be single rows, so the
sum goes over the kernel's cells instead, each a product of whole maps.

    y[n, c, p] = Σ_k w[c, k] · x[n, c, p·stride + k·dilation − padding]

With several filters a channel, O = C · F, the filters are one more axis: x (N, C, 1, …), w (C, F, …), y (N, C, F, …).
"""

from __future__ import annotations

from itertools import product
from math import prod

from ..backend import Array, array_module
from .geometry import Geometry, pad_cells
from .tiles import tiles

_WORKSPACE = 1 << 18
"""Bytes of one tile's output: with the term that is added to it, and what both are made of, they stay in the L2 cache."""


def fits(geometry: Geometry, groups: int, channels: int) -> bool:
    """Whether each of the input channels is a group of its own."""
    return groups == channels and groups > 1


def forward(x: Array, w: Array, bias: Array | None, geometry: Geometry, groups: int, relu: bool = False) -> Array:
    """x: (N, C, *size), w: (C·F, 1, *kernel), bias: (C·F,) or None. Returns (N, C·F, *out), and max(·, 0) of it if relu."""
    xp, n, c, f = array_module(x), x.shape[0], groups, w.shape[0] // groups
    taps = _taps(w, groups, geometry)
    padded = pad_cells(x, geometry, 0.0)[:, :, None]                        # (N, C, 1, …)
    y = xp.empty((n, c, f, *geometry.out), dtype=x.dtype)
    for image, channels in tiles(n, c, f * prod(geometry.out) * x.dtype.itemsize, _WORKSPACE):
        cells, total = padded[image, channels], y[image, channels]
        term = xp.empty(total.shape, dtype=x.dtype)
        for number, (offset, weight) in enumerate(taps):
            seen = cells[geometry.seen_by(offset)]
            xp.multiply(seen, weight[channels], out=term if number else total)
            if number:
                total += term
        if bias is not None:
            total += bias.reshape(c, f, *[1] * len(geometry.out))[channels]
        if relu:
            xp.maximum(total, 0, out=total)
    return y.reshape(n, c * f, *geometry.out)


def input_gradient(dy: Array, w: Array, geometry: Geometry, groups: int) -> Array:
    """dx[n, c, p·stride + k·dilation − padding] += Σ_f w[c, f, k] · dy[n, c, f, p]. dy: (N, C·F, *out). Returns (N, C, *size)."""
    xp, n, c = array_module(dy), dy.shape[0], groups
    signal = dy.reshape(n, c, dy.shape[1] // c, *geometry.out)                            # (N, C, F, …)
    dx = xp.zeros((n, c, *geometry.padded), dtype=dy.dtype)
    for image, channels in tiles(n, c, prod(signal.shape[2:]) * dy.dtype.itemsize, _WORKSPACE):
        part, target = signal[image, channels], dx[image, channels]
        for offset, weight in _taps(w, groups, geometry):
            term = part * weight[channels]
            target[geometry.seen_by(offset)] += term[:, :, 0] if term.shape[2] == 1 else term.sum(axis=2)
    return xp.ascontiguousarray(dx[geometry.interior])


def weight_gradient(x: Array, dy: Array, geometry: Geometry, groups: int) -> Array:
    """dw[c, f, k] = Σ_n Σ_p dy[n, c, f, p] · x[n, c, p·stride + k·dilation − padding]. Returns (C·F, 1, *kernel)."""
    xp, n, c = array_module(x), x.shape[0], groups
    signal = dy.reshape(n, c, dy.shape[1] // c, *geometry.out)                            # (N, C, F, …)
    padded = pad_cells(x, geometry, 0.0)[:, :, None]                        # (N, C, 1, …)
    f, axes = signal.shape[2], (0, *range(3, signal.ndim))
    dw = xp.zeros((c, f, *geometry.kernel), dtype=x.dtype)
    for image, channels in tiles(n, c, prod(signal.shape[2:]) * x.dtype.itemsize, _WORKSPACE):
        part, cells = signal[image, channels], padded[image, channels]
        for offset in product(*map(range, geometry.kernel)):
            dw[(channels, slice(None), *offset)] += (part * cells[geometry.seen_by(offset)]).sum(axis=axes)
    return dw.reshape(c * f, 1, *geometry.kernel)


def _taps(w: Array, groups: int, geometry: Geometry) -> list[tuple[tuple[int, ...], Array]]:
    """(kernel position, its weights (C, F, 1, …)) for every cell of the kernel."""
    matrix = w.reshape(groups, -1, *geometry.kernel)
    ones = [1] * len(geometry.kernel)
    return [
        (offset, matrix[(slice(None), slice(None), *offset)].reshape(groups, -1, *ones))
        for offset in product(*map(range, geometry.kernel))
    ]
