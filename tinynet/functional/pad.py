"""Padding with a constant, by reflection, by repeating the border, or around the other side, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import Array
from ..errors import ArgumentError, ShapeError
from ._along import add_along, take_along
from ._check import check_floats, check_signal, choice, integer

_MODES = ("constant", "reflect", "replicate", "circular")


def pad(input: Array, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Array:
    """Add cells at the ends of the last axes; negative numbers cut cells off.

    pad: (before, after) of the last axis, then of the one before it, and so on. mode: "constant" (value, 0 by default; any
    number of axes), or "reflect", "replicate", "circular" for the last 1, 2 or 3 axes of an input with one or two axes more.
    Returns input's shape with those axes grown. Raises ArgumentError where the input is too small for the mode.
    """
    xp = check_floats("pad", input=input)
    widths = _widths("pad", input.shape, pad, mode)
    if mode != "constant":
        if value:
            raise ArgumentError(f'pad: expected no value with mode="{mode}", got {value}')
        y = input
        for axis, (before, after) in widths.items():
            y = take_along(y, _places(xp, mode, input.shape[axis], before, after), axis)
        return y if y is not input else input.copy()
    size = [n + sum(widths.get(axis, (0, 0))) for axis, n in enumerate(input.shape)]
    y = xp.full(tuple(size), 0.0 if value is None else value, dtype=input.dtype)
    inside, source = _overlap(input.shape, widths)
    y[inside] = input[source]
    return y


def pad_input_gradient(dy: Array, input_size: Sequence[int], pad: Sequence[int], mode: str = "constant") -> Array:
    """∂ℓ/∂x for pad: every cell of dy goes back to where its value came from; copies of a cell add up. Returns input_size."""
    xp = check_floats("pad_input_gradient", dy=dy)
    widths = _widths("pad_input_gradient", input_size, pad, mode)
    check_signal("pad_input_gradient", dy, [n + sum(widths.get(axis, (0, 0))) for axis, n in enumerate(input_size)])
    if mode == "constant":
        dx = xp.zeros(tuple(input_size), dtype=dy.dtype)
        inside, source = _overlap(input_size, widths)
        dx[source] = dy[inside]
        return dx
    dx = dy
    for axis, (before, after) in reversed(list(widths.items())):
        dx = add_along(dx, _places(xp, mode, input_size[axis], before, after), axis, input_size[axis])
    return dx


def _widths(op: str, size: Sequence[int], pad: Any, mode: str) -> dict[int, tuple[int, int]]:
    """Axis to (before, after), checked."""
    choice(op, "mode", mode, _MODES)
    if not isinstance(pad, (tuple, list)) or len(pad) % 2 or len(pad) > 2 * len(size):
        raise ArgumentError(f"{op}: expected pad of (before, after) for the last axes of {tuple(size)}, got {pad}")
    numbers = [integer(op, "pad", p) for p in pad]
    n = len(pad) // 2
    if mode != "constant" and (n not in (1, 2, 3) or len(size) - n not in (1, 2)):
        raise ShapeError(f'{op}: expected an input of {n + 1} or {n + 2} axes to pad {n} of them by "{mode}", got {tuple(size)}')
    if mode in ("reflect", "replicate") and min(size[len(size) - n - 1 :]) < 1:
        raise ShapeError(f'{op}: expected channels and sizes of at least one for mode="{mode}", got {tuple(size)}')
    widths = {}
    for i in range(n):
        axis, before, after = len(size) - 1 - i, numbers[2 * i], numbers[2 * i + 1]
        left = size[axis] - max(-before, 0) - max(-after, 0)                # cells that are not cut off
        if left < 0 if mode in ("constant", "circular") else size[axis] < 1 or size[axis] + before + after < 1:
            raise ArgumentError(f"{op}: expected cells to remain along axis {axis} of {tuple(size)}, got pad {tuple(pad)}")
        most = {"reflect": size[axis] - 1, "circular": left}.get(mode)
        if most is not None and max(before, after) > most:
            raise ArgumentError(f'{op}: expected pad of at most {most} for {size[axis]} cells by "{mode}", got {tuple(pad)}')
        widths[axis] = (before, after)
    return widths


def _places(xp: Any, mode: str, size: int, before: int, after: int) -> Array:
    """For every cell of the padded axis the input cell that it copies."""
    place = xp.arange(-before, size + after)
    if mode == "replicate":
        return xp.clip(place, 0, size - 1)
    if mode == "circular":                                                  # around what is left after cutting, as PyTorch
        first, last = max(-before, 0), size - max(-after, 0)
        return first + (place - first) % (last - first)
    place = xp.abs(place)                                                   # mirrored at cell 0
    return size - 1 - xp.abs(size - 1 - place)                              # and at the last


def _overlap(size: Sequence[int], widths: dict[int, tuple[int, int]]) -> tuple[Any, Any]:
    """The cells that input and result have in common, as an index into the result and one into the input."""
    inside, source = [], []
    for axis, n in enumerate(size):
        before, after = widths.get(axis, (0, 0))
        first, last = max(-before, 0), n - max(-after, 0)
        source.append(slice(first, max(first, last)))
        inside.append(slice(max(before, 0), max(before, 0) + max(last - first, 0)))
    return tuple(inside), tuple(source)
