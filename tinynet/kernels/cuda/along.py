"""Cells along one axis added back on a GPU to where they were taken from: without atomics, in the same order every time."""

from __future__ import annotations

from math import prod

import numpy as np

from ...backend import Array, array_module
from .launch import dense, index_type, launch


def add_along(dy: Array, places: Array, axis: int, size: int) -> Array:
    """dx[…, j, …] = Σ_{i : places[i] = j} dy[…, i, …], with `size` cells along the axis; places: int64, each below size."""
    xp, dy, axis = array_module(dy, places), dense(dy), axis % dy.ndim
    count, after = dy.shape[axis], prod(dy.shape[axis + 1 :])
    dx = xp.empty((*dy.shape[:axis], size, *dy.shape[axis + 1 :]), dtype=dy.dtype)
    order = xp.argsort(places, kind="stable")
    begins = xp.searchsorted(xp.take(places, order), xp.arange(size + 1, dtype=places.dtype))
    kind = index_type(dy.size, dx.size)
    launch("along", "add_along", (dy.dtype, kind), (
        dy, order.astype(np.int64), begins.astype(np.int64), dx, kind(count), kind(size), kind(after), kind(dx.size)),
        threads=dx.size)
    return dx
