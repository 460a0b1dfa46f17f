"""Correlation in which every input channel has filters of its own (groups = C): the matrices would be single rows, so the
sum goes over the kernel's cells instead, each a product of whole maps.

    y[n, c, p] = Σ_k w[c, k] · x[n, c, p·stride + k·dilation − padding]

With several filters a channel, O = C · F, the filters are one more axis: x (N, C, 1, …), w (C, F, …), y (N, C, F, …).
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import NamedTuple

from ..backend import Array, array_module
from . import im2col
from .geometry import Geometry, pad_cells
from .masking import rectify
from .scratch import scratch
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
    lines = _Lines.of(geometry)
    for image, channels in tiles(n, c, f * prod(geometry.out) * x.dtype.itemsize, _WORKSPACE):
        cells, target = padded[image, channels], y[image, channels]
        total = target if lines is None else scratch(xp, "total", (*target.shape[:3], lines.length), x.dtype)
        term = scratch(xp, "term", total.shape, x.dtype)
        for number, (offset, weight) in enumerate(taps):
            seen = cells[geometry.seen_by(offset)] if lines is None else lines.seen(cells, offset)
            weight = weight[channels] if lines is None else weight[channels].reshape(-1, f, 1)
            xp.multiply(seen, weight, out=term if number else total)
            if number:
                total += term
        if lines is not None:
            target[...] = lines.outputs(total)
        total = target
        if bias is not None:
            total += bias.reshape(c, f, *[1] * len(geometry.out))[channels]
        if relu:
            rectify(total, out=total)
    return y.reshape(n, c * f, *geometry.out)


def input_gradient(dy: Array, w: Array, geometry: Geometry, groups: int) -> Array:
    """dx[n, c, p·stride + k·dilation − padding] += Σ_f w[c, f, k] · dy[n, c, f, p]. dy: (N, C·F, *out). Returns (N, C, *size)."""
    xp, n, c = array_module(dy), dy.shape[0], groups
    if max(geometry.stride, default=1) == 1 and w.shape[0] == groups:       # a correlation with the flipped filters
        turned, flipped, _, windows = im2col.flipped(dy, w, geometry, groups)
        return forward(turned, flipped, None, windows, groups)
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
    f, axes, lines = signal.shape[2], (0, *range(3, signal.ndim)), _Lines.of(geometry)
    dw = xp.zeros((c, f, *geometry.kernel), dtype=x.dtype)
    for image, channels in tiles(n, c, prod(signal.shape[2:]) * x.dtype.itemsize, _WORKSPACE):
        part, cells = signal[image, channels], padded[image, channels]
        if lines is not None:
            part = lines.spread(part)                                       # (n, C, F, L), zeros where there is no output
            for offset in product(*map(range, geometry.kernel)):
                seen = lines.seen(cells, offset)                            # (n, C, 1, L)
                dw[(channels, slice(None), *offset)] += (part @ seen.swapaxes(2, 3))[..., 0].sum(axis=0)
            continue
        for offset in product(*map(range, geometry.kernel)):
            dw[(channels, slice(None), *offset)] += (part * cells[geometry.seen_by(offset)]).sum(axis=axes)
    return dw.reshape(c * f, 1, *geometry.kernel)


class _Lines(NamedTuple):
    """With stride 1 a map, padding and all, is one long line, and each kernel position sees a piece of it from some cell on: so
    every step runs over thousands of numbers instead of a row of a few dozen. The outputs lie in it with gaps.
    """

    geometry: Geometry
    steps: tuple[int, ...]
    """Cells from one position to the next along each axis."""
    length: int
    """L: cells from the first output to the last."""

    @classmethod
    def of(cls, geometry: Geometry) -> _Lines | None:
        """None: there is a stride."""
        if max(geometry.stride, default=1) > 1:
            return None
        steps = tuple(prod(geometry.padded[axis + 1 :]) for axis in range(len(geometry.out)))
        return cls(geometry, steps, 1 + sum((out - 1) * step for out, step in zip(geometry.out, steps, strict=True)))

    def seen(self, cells: Array, offset: tuple[int, ...]) -> Array:
        """What the windows see at this kernel position: cells (n, C, 1, *padded) → (n, C, 1, L)."""
        begin = sum(k * d * step for k, d, step in zip(offset, self.geometry.dilation, self.steps, strict=True))
        return cells.reshape(*cells.shape[:3], -1)[..., begin : begin + self.length]

    def outputs(self, line: Array) -> Array:
        """(n, C, F, L) → a view (n, C, F, *out)."""
        shape, strides = (*line.shape[:3], *self.geometry.out), line.strides
        inside = tuple(step * strides[3] for step in self.steps)
        return array_module(line).lib.stride_tricks.as_strided(line, shape, (*strides[:3], *inside))

    def spread(self, outputs: Array) -> Array:
        """(n, C, F, *out) → (n, C, F, L)."""
        xp = array_module(outputs)
        line = xp.zeros((*outputs.shape[:3], self.length), dtype=outputs.dtype)
        self.outputs(line)[...] = outputs
        return line


def _taps(w: Array, groups: int, geometry: Geometry) -> list[tuple[tuple[int, ...], Array]]:
    """(kernel position, its weights (C, F, 1, …)) for every cell of the kernel."""
    matrix = w.reshape(groups, -1, *geometry.kernel)
    ones = [1] * len(geometry.kernel)
    return [
        (offset, matrix[(slice(None), slice(None), *offset)].reshape(groups, -1, *ones))
        for offset in product(*map(range, geometry.kernel))
    ]
