"""Resizing of maps, nearest or linear, in one, two and three dimensions, and its gradient.

Along one axis every output cell is a weighted sum of one input cell (nearest) or two (linear): y_i = (1 − t_i)
x_{a_i} + t_i x_{b_i}.
Two and three axes go one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any

import numpy as np

from ..backend import Array
from ..errors import ArgumentError, ShapeError
from ._along import add_along, take_along
from ._check import check_floats, check_signal, choice, integers

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_MODES = ("nearest", "nearest-exact", *_LINEAR.values())


def interpolate(
    input: Array, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest", align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Array:
    """Resize the axes behind batch and channel.

    input: (N, C, L), (N, C, H, W) or (N, C, D, H, W). Give size, or scale_factor (size = ⌊n · factor⌋). mode:
    "nearest" takes the cell at ⌊i · scale⌋; "nearest-exact" ⌊(i + ½) · scale⌋; "linear", "bilinear", "trilinear" (for 1, 2, 3
    axes) weigh the two cells around
    (i + ½) · scale − ½ or, with align_corners, around i · (n − 1)/(n' − 1). scale is 1/scale_factor if that was given (and not
    recompute_scale_factor), otherwise n/n'. antialias: not offered, False only. Returns (N, C, *size).
    """
    op = "interpolate"
    if antialias:
        raise ArgumentError(f"{op}: antialias=True is not offered; smooth the input first")
    xp = check_floats(op, input=input)
    new, factors = _sizes(op, input.shape, size, scale_factor, mode, align_corners, recompute_scale_factor)
    y = input
    for axis, (n, m, factor) in enumerate(zip(input.shape[2:], new, factors, strict=True), 2):
        first, second, share = _taps(xp, n, m, factor, mode, bool(align_corners), input.dtype)
        part = take_along(y, first, axis)
        if share is not None:
            share = share.reshape(-1, *[1] * (input.ndim - 1 - axis))
            part *= 1 - share
            part += take_along(y, second, axis) * share
        y = part
    return y


def interpolate_input_gradient(
    dy: Array, input_size: Sequence[int], size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
) -> Array:
    """∂ℓ/∂x for interpolate: every cell of dy goes back to its one or two cells, with the same weights. Returns input_size."""
    op = "interpolate_input_gradient"
    xp = check_floats(op, dy=dy)
    new, factors = _sizes(op, input_size, size, scale_factor, mode, align_corners, recompute_scale_factor)
    check_signal(op, dy, (*input_size[:2], *new))
    dx = dy
    for axis in reversed(range(2, dy.ndim)):
        n, m, factor = input_size[axis], new[axis - 2], factors[axis - 2]
        first, second, share = _taps(xp, n, m, factor, mode, bool(align_corners), dy.dtype)
        if share is None:
            dx = add_along(dx, first, axis, n)
        else:
            share = share.reshape(-1, *[1] * (dy.ndim - 1 - axis))
            dx = add_along(dx * (1 - share), first, axis, n) + add_along(dx * share, second, axis, n)
    return dx


def _sizes(
    op: str, shape: Sequence[int], size: Any, scale_factor: Any, mode: str, align_corners: bool | None, recompute: bool | None
) -> tuple[tuple[int, ...], list[float | None]]:
    """The new sizes, and for each axis the factor to go by (None: the ratio of the sizes)."""
    choice(op, "mode", mode, _MODES)
    n = len(shape) - 2
    if n not in _LINEAR:
        raise ShapeError(f"{op}: expected input (N, C, L), (N, C, H, W) or (N, C, D, H, W), got {tuple(shape)}")
    if mode in _LINEAR.values() and mode != _LINEAR[n]:
        raise ArgumentError(f'{op}: expected mode="{_LINEAR[n]}" for an input of {n + 2} axes, got "{mode}"')
    if align_corners is not None and mode not in _LINEAR.values():
        raise ArgumentError(f'{op}: expected align_corners with linear modes only, got it with mode="{mode}"')
    if (size is None) == (scale_factor is None):
        raise ArgumentError(f"{op}: expected either size or scale_factor, got {'both' if size is not None else 'neither'}")
    if size is not None:
        if recompute:
            raise ArgumentError(f"{op}: expected scale_factor with recompute_scale_factor=True, got size")
        if isinstance(size, (tuple, list)) and len(size) != n:
            raise ArgumentError(f"{op}: expected size of one number or {n}, got {tuple(size)}")
        new = integers(op, "size", size, n, 1)
        factors: list[float | None] = [None] * n
    else:
        given = list(scale_factor) if isinstance(scale_factor, (tuple, list)) else [scale_factor] * n
        if len(given) != n or any(not isinstance(f, (int, float, np.number)) or not f > 0 for f in given):
            raise ArgumentError(f"{op}: expected scale_factor of one positive number or {n}, got {scale_factor}")
        new = tuple(floor(float(s) * f) for s, f in zip(shape[2:], given, strict=True))
        factors = [None] * n if recompute else [float(f) for f in given]
    if min(new) < 1 or min(shape[1:]) < 1:
        raise ShapeError(f"{op}: expected sizes of at least one cell, got {tuple(new)} from input {tuple(shape)}")
    return tuple(new), factors


def _taps(
    xp: Any, n: int, m: int, factor: float | None, mode: str, align_corners: bool, dtype: Any
) -> tuple[Array, Array, Array | None]:
    """For m output cells over n input cells: the two cells of each, and the share of the second (None: the first alone).

    The arithmetic is PyTorch's: float32 for nearest, the input's dtype for linear; otherwise a cell may differ at a boundary.
    """
    real = np.float32 if mode.startswith("nearest") else np.dtype(str(dtype)).type
    scale = real(1 / factor) if factor is not None else real(n) / real(m)
    i = np.arange(m).astype(real)
    if mode.startswith("nearest"):
        place = np.floor((i + real(0.5)) * scale if mode == "nearest-exact" else i * scale)
        first = xp.asarray(np.minimum(place.astype(np.int64), n - 1))
        return first, first, None
    if align_corners:
        place = i * (real(n - 1) / real(m - 1) if m > 1 else real(0))
    else:
        place = np.maximum((i + real(0.5)) * scale - real(0.5), real(0))
    first = np.minimum(place.astype(np.int64), n - 1)
    second = np.minimum(first + 1, n - 1)
    share = np.clip(place - first.astype(real), real(0), real(1))
    return xp.asarray(first), xp.asarray(second), xp.asarray(share)
