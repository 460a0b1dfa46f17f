"""Gather cells along one axis, and the adjoint: add them back."""

from __future__ import annotations

from ..backend import Array, array_module
from ..kernels import cuda
from ..kernels.cuda import along


def take_along(x: Array, places: Array, axis: int) -> Array:
    """y[…, i, …] = x[…, places[i], …]."""
    return array_module(x).take(x, places, axis=axis)


def add_along(dy: Array, places: Array, axis: int, size: int) -> Array:
    """The adjoint of take_along: dx[…, j, …] = Σ_{i : places[i] = j} dy[…, i, …], with `size` cells along the axis."""
    if cuda.here(dy):
        return along.add_along(dy, places, axis, size)
    xp = array_module(dy)
    dy = xp.moveaxis(dy, axis, 0)
    dx = xp.zeros((size, *dy.shape[1:]), dtype=dy.dtype)
    xp.add.at(dx, places, dy)
    return xp.ascontiguousarray(xp.moveaxis(dx, 0, axis))
