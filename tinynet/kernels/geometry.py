"""Where the windows of a convolution or a pooling lie, in any number of dimensions, and what they see."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from ..backend import Array, array_module


class Geometry(NamedTuple):
    """Windows over the spatial axes; every field has one number an axis.

    Output position p sees the input positions p·stride + k·dilation − low, for k = 0 … kernel − 1. `low` and `high` are the
    cells of padding before and after the input of size `size`; `out` counts the windows.
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilation: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def padded(self) -> tuple[int, ...]:
        """Size of the input with its padding."""
        return tuple(s + lo + hi for s, lo, hi in zip(self.size, self.low, self.high, strict=True))

    @property
    def interior(self) -> tuple[Any, ...]:
        """Index of the input inside the padded array, for all axes behind batch and channel."""
        return (..., *(slice(lo, lo + s) for lo, s in zip(self.low, self.size, strict=True)))

    @property
    def spans(self) -> tuple[int, ...]:
        """Cells from the first that a window sees to the last, less one."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def steps(self) -> tuple[int, ...]:
        """Cells of a plane (without padding, row by row) from one kernel position to the next, along each axis."""
        return tuple(d * prod(self.size[axis + 1 :]) for axis, d in enumerate(self.dilation))

    def begins(self, xp: Any) -> list[Array]:
        """The cell at which each window begins along each axis, (windows,) int64; below 0 in the padding."""
        return [xp.arange(n, dtype=xp.int64) * s - lo for n, s, lo in zip(self.out, self.stride, self.low, strict=True)]

    def seen_by(self, offset: Sequence[int], rows: slice | None = None) -> tuple[Any, ...]:
        """Index, into the padded array, of the cell that each window sees at kernel position `offset`.

        rows: only the windows of these positions along the first spatial axis.
        """
        index: list[Any] = [...]
        for axis, (k, s, d, count) in enumerate(zip(offset, self.stride, self.dilation, self.out, strict=True)):
            first, last = (rows.start, rows.stop) if axis == 0 and rows is not None else (0, count)
            begin = k * d + first * s
            index.append(slice(begin, begin + max(last - first - 1, -1) * s + 1, s))
        return tuple(index)


def pad_cells(x: Array, geometry: Geometry, value: float) -> Array:
    """x (N, C, *size) within its padding of `value`; x itself where there is none."""
    if geometry.padded == geometry.size:
        return x
    padded = array_module(x).full((*x.shape[:2], *geometry.padded), value, dtype=x.dtype)
    padded[geometry.interior] = x
    return padded


def windows(padded: Array, geometry: Geometry) -> Array:
    """A view (N, C, *out, *kernel) of the padded array: the cells that each window sees. Nothing is copied."""
    moves = padded.strides[2:]
    inside = [step * d for step, d in zip(moves, geometry.dilation, strict=True)]
    across = [step * s for step, s in zip(moves, geometry.stride, strict=True)]
    return array_module(padded).lib.stride_tricks.as_strided(
        padded, (*padded.shape[:2], *geometry.out, *geometry.kernel), (*padded.strides[:2], *across, *inside)
    )
