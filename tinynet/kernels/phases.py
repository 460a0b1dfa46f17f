"""The last axis dealt out by the remainders of its stride, so that what windows see of it lies in one piece.

A window position p sees at kernel position k the cell p·s + k·d. Its remainder by s is the same for all p, and among the cells of
that remainder it is number p + ⌊k·d / s⌋: one cell after the other, where a step of s cells would go number by number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..backend import Array, array_module
from .geometry import Geometry


def place(k: int, geometry: Geometry) -> tuple[int, slice]:
    """The remainder, and the cells of it, that all windows see at position k of the kernel's last axis."""
    first, remainder = divmod(k * geometry.dilation[-1], geometry.stride[-1])
    return remainder, slice(first, first + geometry.out[-1])


def dealt(geometry: Geometry) -> tuple[int, ...]:
    """The shape of the padded input when it is dealt out: (*padded[:-1], stride, cells)."""
    s = geometry.stride[-1]
    return *geometry.padded[:-1], s, -(-geometry.padded[-1] // s)


def deal(x: Array, geometry: Geometry) -> Array:
    """x (N, C, *size) within its padding of zeros, dealt out: (N, C, *padded[:-1], stride, cells)."""
    cells = array_module(x).zeros((*x.shape[:2], *dealt(geometry)), dtype=x.dtype)
    for ours, its in _parts(geometry):
        cells[ours] = x[its]
    return cells


def collect(cells: Array, geometry: Geometry) -> Array:
    """The other way, without the padding: (N, C, *size)."""
    xp = array_module(cells)
    if geometry.stride[-1] == 1:
        return xp.ascontiguousarray(cells[..., 0, :][geometry.interior])
    x = xp.empty((*cells.shape[:2], *geometry.size), dtype=cells.dtype)
    for ours, its in _parts(geometry):
        x[its] = cells[ours]
    return x


def _parts(geometry: Geometry) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """For every remainder its cells inside the input, as an index of cells and one of x."""
    s, low, size = geometry.stride[-1], geometry.low[-1], geometry.size[-1]
    for remainder in range(s):
        begin = (remainder - low) % s
        first, count = (begin + low) // s, max(0, -((begin - size) // s))
        yield (*geometry.interior[:-1], remainder, slice(first, first + count)), (..., slice(begin, None, s))
