"""The maxima and the sums of all windows, one axis after the other, and where the maxima stand.

Axis by axis a window of kh · kw cells takes kh + kw comparisons. Where a maximum stands is carried along in small integers, how
far behind the window's first cell, by arithmetic alone: a branch for every cell, which nobody can foretell, would cost ten times
as much.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from math import inf, prod
from typing import Any

import numpy as np

from ..backend import Array, array_module
from .geometry import Geometry, pad_cells
from .scratch import scratch
from .tiles import tiles

_BLOCK = 1 << 22
"""Bytes of input that are pooled at a time, so that what arises on the way stays in cache."""
_SWITCHES = 1 << 22
"""The same with switches, for which more arises."""
_PLACES = 1 << 16
"""Values that are put back at a time: the flat indices of so many and the cells around them fit the L2 cache."""
_LONG = 64
"""Numbers in one piece from which on a step over every second piece takes less time than one over all of them."""


def maxima(x: Array, geometry: Geometry) -> Array:
    """The maximum of every window. x: (N, C, *size). Returns (N, C, *out). A NaN is larger than everything."""
    return _combined(array_module(x).maximum, x, geometry, -inf)


def means(x: Array, geometry: Geometry, counts: Array) -> Array:
    """The sum of every window, over what counts (*out) has for it. x: (N, C, *size). Returns (N, C, *out)."""
    return _combined(array_module(x).add, x, geometry, 0.0, counts)


def _combined(combine: Any, x: Array, geometry: Geometry, outside: float, counts: Array | None = None) -> Array:
    """The cells of every window, combined along one axis after the other, the rows first, which lie in one piece.

    outside: what the padding holds.
    """
    if array_module(x) is np and x.size:
        if counts is not None and (counts == counts.flat[0]).all():
            counts = counts.flat[0]                                         # a division by one number goes in vectors
        with np.errstate(over="ignore", invalid="ignore"):                  # of numbers that no window holds together
            return _in_blocks(combine, x, geometry, outside, counts)
    y = pad_cells(x, geometry, outside)
    for axis in range(len(geometry.kernel)):
        first, *others = _along(y, axis, geometry)
        y = first.copy()
        for other in others:
            combine(y, other, out=y)
    if counts is not None:
        y /= counts
    return y


def _framed(x: np.ndarray, geometry: Geometry, outside: float, at_most: int) -> Iterator[tuple[Any, np.ndarray]]:
    """(which images and channels, those within their padding), about `at_most` bytes at a time, without gaps.

    A padded copy of all of x would go through memory twice. So the frame is laid once, in scratch memory, and each block goes
    into it in turn: the next one overwrites the last.
    """
    frame: np.ndarray | None = None
    for block in tiles(x.shape[0], x.shape[1], prod(geometry.padded) * x.dtype.itemsize, at_most):
        part = x[block]
        if geometry.padded == geometry.size:
            yield block, np.ascontiguousarray(part)
            continue
        if frame is None:                                                   # no block is larger than the first
            frame = scratch(np, "frame", (*part.shape[:2], *geometry.padded), x.dtype)
            frame[...] = outside
        cells = frame[: part.shape[0], : part.shape[1]]
        cells[geometry.interior] = part
        yield block, cells


def _in_blocks(combine: Any, x: np.ndarray, geometry: Geometry, outside: float, counts: Any) -> np.ndarray:
    """_combined, a few planes at a time.

    Along an axis whose cells are long pieces, such as rows, only those that a window begins with are combined. Where the pieces
    are short, down to single numbers, the block is one long line instead: all its numbers are combined with those some steps
    further on, those across the end of a row or plane among them, and what is wanted is picked at the end. That is more
    arithmetic, but in runs of thousands, where short pieces and strides go number by number.
    """
    y = np.empty((*x.shape[:2], *geometry.out), x.dtype)
    for block, cells in _framed(x, geometry, outside, _BLOCK):
        part = cells.reshape(-1, *geometry.padded)
        picked: list[slice] = [slice(None)]
        for axis, (k, s, d, count) in enumerate(
            zip(geometry.kernel, geometry.stride, geometry.dilation, geometry.out, strict=True)
        ):
            inner, place = prod(part.shape[2 + axis :]), f"pool {axis}"
            seen = slice(0, (count - 1) * s + 1, s)
            if k > 1 and inner >= _LONG:
                before = (slice(None),) * (1 + axis)
                steps = [part[(*before, slice(i * d, i * d + seen.stop, s))] for i in range(k)]
                result = whole = scratch(np, place, steps[0].shape, part.dtype)
                seen = slice(None)
            elif k > 1:
                line, reach = part.reshape(-1), (k - 1) * d * inner
                steps = [line[i * d * inner : line.size - reach + i * d * inner] for i in range(k)]
                whole = scratch(np, place, part.shape, part.dtype)          # its last numbers, of no window, are undefined
                result = whole.reshape(-1)[: line.size - reach]
            if k > 1:
                combine(steps[0], steps[1], out=result)
                for step in steps[2:]:
                    combine(result, step, out=result)
                part = whole
            picked.append(seen)
        target = y[block].reshape(len(part), *geometry.out)                 # a view: whole images, or channels of one
        _pick(part, tuple(picked), target)
        if counts is not None:
            np.divide(target, counts, out=target)
    return y


def _pick(part: np.ndarray, picked: tuple[slice, ...], target: np.ndarray) -> None:
    """target = part[picked]. Every second float32 is the lower half of every 64-bit integer, which has no stride."""
    if picked[-1].step == 2 and part.dtype.itemsize == 4 and part.shape[-1] % 2 == 0 and sys.byteorder == "little":
        pairs = part.view(np.uint64)[(*picked[:-1], slice(target.shape[-1]))]
        np.copyto(target.view(np.uint32), pairs, casting="unsafe")
    else:
        target[...] = part[picked]


def maxima_and_switches(x: Array, geometry: Geometry) -> tuple[Array, Array]:
    """maxima, and for each how far behind the first cell of its window it stands first, in cells of the plane without padding:
    the smallest unsigned integers that hold it, (N, C, *out).

    With two rules of PyTorch's: the last NaN of a window counts, since a NaN replaces whatever was held before it; and a window
    of nothing but −∞ points to its first cell inside the input, not into the padding.
    """
    xp = array_module(x)
    farthest = sum((k - 1) * step for k, step in zip(geometry.kernel, geometry.steps, strict=True))
    small = np.min_scalar_type(farthest).type
    if xp is not np:
        return _with_switches(pad_cells(x, geometry, -inf), geometry, small)
    shape = (*x.shape[:2], *geometry.out)
    y, switch = np.empty(shape, x.dtype), np.empty(shape, small)
    for block, cells in _framed(x, geometry, -inf, _SWITCHES):
        y[block], switch[block] = _with_switches(cells, geometry, small)
    return y, switch


def _with_switches(padded: Array, geometry: Geometry, small: Any) -> tuple[Array, Array]:
    xp, y = array_module(padded), padded
    switch: Any = None
    for axis in reversed(range(len(geometry.kernel))):                      # the last axis first: of equals the first row wins
        part, along = _along(y, axis, geometry), geometry.steps[axis]
        inner = None if switch is None else _along(switch, axis, geometry)
        y = part[0].copy()
        switch = xp.zeros(y.shape, dtype=small) if inner is None else inner[0].copy()
        for step in range(1, len(part)):
            larger = part[step] > y
            if inner is None:
                xp.maximum(switch, larger * small(step * along), out=switch)    # the steps rise, so the last larger one stays
            else:
                switch += larger * (inner[step] + small(step * along) - switch)     # a difference below 0 wraps around twice
            xp.maximum(y, part[step], out=y)
    if geometry.padded != geometry.size:
        xp.copyto(switch, _first_inside(xp, geometry).astype(small), where=y == -inf)
    if bool(xp.isnan(y).any()):
        for position in product(*map(range, geometry.kernel)):
            offset = sum(k * step for k, step in zip(position, geometry.steps, strict=True))
            xp.copyto(switch, offset, where=xp.isnan(padded[geometry.seen_by(position)]))
    return y, switch


def _first_inside(xp: Any, geometry: Geometry) -> Array:
    """For every window, (*out), the offset of the first of its cells that lies inside the input."""
    offset = xp.zeros((), dtype=xp.int64)
    for d, step, begin in zip(geometry.dilation, geometry.steps, geometry.begins(xp), strict=True):
        offset = offset[..., None] + (xp.maximum(-begin, 0) + d - 1) // d * step
    return offset


def first_cells(xp: Any, geometry: Geometry) -> Array:
    """The flat index of the first cell of every window, (*out), int64: below 0 or in another row where it lies in the padding."""
    first = xp.zeros((), dtype=xp.int64)
    for size, begin in zip(geometry.size, geometry.begins(xp), strict=True):
        first = first[..., None] * size + begin
    return first


def put_back(values: Array, offsets: Array, geometry: Geometry, largest: bool = False) -> Array:
    """Every value in the cell that its switch points to, 0 elsewhere; where several meet, their sum, or the largest of them.

    values: (…, *out). offsets: as maxima_and_switches gives them, of that shape. Returns (planes, cells of a plane).
    """
    xp, cells, count = array_module(values), prod(geometry.size), prod(geometry.out)
    values, offsets = values.reshape(-1, count), offsets.reshape(-1, count)
    apart = all(span < s for span, s in zip(geometry.spans, geometry.stride, strict=True))
    at_once = max(1, min(len(values), _PLACES // count))
    first = xp.arange(at_once, dtype=xp.int64)[:, None] * cells + first_cells(xp, geometry).reshape(1, -1)
    y = xp.empty((len(values), cells), dtype=values.dtype)
    for begin in range(0, len(values), at_once):
        part = slice(begin, begin + at_once)
        own, given, target = offsets[part], values[part].reshape(-1), y[part].reshape(-1)
        target[...] = -inf if largest else 0                                # block by block: the cells are still in cache
        places = xp.add(first[: len(own)], own, out=scratch(xp, "places", own.shape, np.int64)).reshape(-1)
        if largest:
            xp.maximum.at(target, places, given)
        elif apart:
            target[places] = given                                          # `at` would hold on to the interpreter's lock
        else:
            xp.add.at(target, places, given)
    if largest:
        y[y == -inf] = 0
    return y


def _along(x: Array, axis: int, geometry: Geometry) -> list[Array]:
    """What the windows see of x at each step of the kernel along one axis, views."""
    s, d, count = geometry.stride[axis], geometry.dilation[axis], geometry.out[axis]
    before = (slice(None),) * (2 + axis)
    return [x[(*before, slice(i * d, i * d + (count - 1) * s + 1, s))] for i in range(geometry.kernel[axis])]
