"""Max-pooling on a GPU, its switches, and the ways back over them. The windows, rules and results of functional/max_pool.py."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Any

import numpy as np

from ...backend import Array, array_module
from .launch import dense, index_type, launch, window
from .memory import allocating

MEETINGS = {"sum": 0, "overwrite": 1, "largest": 2}
"""What happens where several switches point to one cell: enum Meeting of max_pool.cu."""


def max_pool(x: Array, geometry: Any, switches: bool) -> tuple[Array, Array | None]:
    """(y, switches or None). x: (N, C, *size). y: (N, C, *out). switches: int64 of that shape, flat indices into a plane."""
    x, xp = dense(x), array_module(x)
    shape = (*x.shape[:2], *geometry.out)
    with allocating("the output of a max-pooling", shape, x.dtype):
        y = xp.empty(shape, dtype=x.dtype)
    with allocating("the switches of a max-pooling", shape, np.int64):
        indices = xp.empty(shape, dtype=np.int64) if switches else None
    kind = index_type(x.size, y.size)
    launch("max_pool", "max_pool", (x.dtype, kind), (
        x, y, indices, window(geometry), x.dtype.type(-inf), kind(y.size)), threads=y.size)
    return y, indices


def lie(switches: Array, geometry: Any) -> tuple[bool, bool]:
    """Whether all switches (N, C, *out) lie inside their plane, and whether each lies in its own window. The host waits for it.

    What is so needs not be sorted by `unpool`: it can be gathered along the windows.
    """
    if not switches.size:
        return True, True
    switches, xp = dense(switches), array_module(switches)
    strays, kind = xp.zeros(2, dtype=np.int32), index_type(switches.size)
    launch("max_pool", "stray_switches", (kind,), (
        switches, strays, window(geometry), kind(switches.size)), threads=switches.size)
    outside, elsewhere = strays.get().tolist()
    return not outside, not elsewhere


def unpool(values: Array, switches: Array, size: Sequence[int], n: int, meeting: str = "sum", geometry: Any = None) -> Array:
    """Put every value where its switch points, zero elsewhere; where several meet, as `meeting` says. Always in the same order.

    values: (…, *out), switches: int64 of that shape, every one inside its plane; size: the shape of the result, whose last n
    axes are a plane. "sum": the gradient of max-pooling. "overwrite": the last one stays. "largest": the largest one.
    geometry: the windows that the switches came from; without it they are sorted first.
    """
    xp, values, switches, size = array_module(values, switches), dense(values), dense(switches), tuple(size)
    kind, mode = index_type(values.size, prod(size)), np.int32(MEETINGS[meeting])
    if geometry is not None:
        with allocating("what the switches of a max-pooling put back", size, values.dtype):
            out = xp.empty(size, dtype=values.dtype)
        if values.size == 0:
            out.fill(0)
            return out
        launch("max_pool", "unpool_windows", (values.dtype, kind), (
            values, switches, out, window(geometry), mode, kind(out.size)), threads=out.size)
        return out
    out = xp.zeros(size, dtype=values.dtype)
    count, cells = prod(values.shape[-n:]), prod(size[-n:])
    if values.size == 0:
        return out
    planes = xp.arange(values.size // count, dtype=np.int64).reshape(-1, 1) * cells
    places = (switches.reshape(-1, count) + planes).ravel()
    order = xp.argsort(places, kind="stable")
    launch("max_pool", "unpool_sorted", (values.dtype, kind), (
        values, order, xp.take(places, order), out, mode, kind(values.size)), threads=values.size)
    return out
