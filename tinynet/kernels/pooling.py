"""The maxima of all windows, one axis after the other, and where they stand.

Axis by axis a window of kh · kw cells takes kh + kw comparisons. Where a maximum stands is carried along in small integers, by
arithmetic alone: a branch for every cell, which nobody can foretell, would cost ten times as much.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ..backend import Array, array_module
from .geometry import Geometry


def maxima(padded: Array, geometry: Geometry) -> Array:
    """The maximum of every window. padded: (N, C, *padded size). Returns (N, C, *out). A NaN is larger than everything."""
    xp, y = array_module(padded), padded
    for axis in range(len(geometry.kernel)):                                # the rows first, which lie in one piece
        part = _along(y, axis, geometry)
        y = xp.maximum(part[0], part[1]) if len(part) > 1 else part[0].copy()
        for other in part[2:]:
            xp.maximum(y, other, out=y)
    return y


def maxima_and_switches(padded: Array, geometry: Geometry) -> tuple[Array, Array]:
    """maxima, and for each the number of the kernel position (row by row) at which it stands first, int8 or int32 (N, C, *out).

    A NaN is no larger than anything: where there are any, the switches are not what is asked for.
    """
    xp, y = array_module(padded), padded
    small = xp.int8 if prod(geometry.kernel) <= 127 else xp.int32
    switch: Any = None
    block = 1                                                               # kernel positions inside one step of this axis
    for axis in reversed(range(len(geometry.kernel))):                      # the last axis first: of equals the first row wins
        part = _along(y, axis, geometry)
        inner = None if switch is None else _along(switch, axis, geometry)
        y = part[0].copy()
        switch = xp.zeros(y.shape, dtype=small) if inner is None else inner[0].copy()
        for step in range(1, len(part)):
            larger = part[step] > y
            if inner is None:
                xp.maximum(switch, larger * small(step), out=switch)        # the steps rise, so the last larger one stays
            else:
                switch += larger * (inner[step] + small(step * block) - switch)
            xp.maximum(y, part[step], out=y)
        block *= geometry.kernel[axis]
    return y, switch


def _along(x: Array, axis: int, geometry: Geometry) -> list[Array]:
    """What the windows see of x at each step of the kernel along one axis, views."""
    s, d, count = geometry.stride[axis], geometry.dilation[axis], geometry.out[axis]
    before = (slice(None),) * (2 + axis)
    return [x[(*before, slice(i * d, i * d + (count - 1) * s + 1, s))] for i in range(geometry.kernel[axis])]
