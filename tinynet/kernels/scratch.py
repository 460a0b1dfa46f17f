"""Arrays that are needed for a moment only, one set a thread.

A large array that is asked for anew in every call comes from the system as pages that must be filled with zeros first; for small
products that takes longer than the work.
"""

from __future__ import annotations

import threading
from math import prod
from typing import Any

import numpy as np

from ..backend import Array, array_module
from .products import matmul

LIMIT = 1 << 26
"""Bytes up to which an array is kept for the next call."""


class _Kept(threading.local):
    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}


_kept = _Kept()


def scratch(xp: Any, place: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of that shape, its numbers undefined; the next call of this thread for the same place overwrites it."""
    if xp is not np:
        return xp.empty(shape, dtype=dtype)
    needed = prod(shape) * np.dtype(dtype).itemsize
    if needed > LIMIT:
        return np.empty(shape, dtype)
    held = _kept.arrays.get(place)
    if held is None or held.nbytes < needed:
        held = _kept.arrays[place] = np.empty(needed, np.uint8)
    return held[:needed].view(dtype).reshape(shape)


def times(place: str, matrix: Array, x: Array) -> Array:
    """matrix @ x into scratch memory; of a plain matrix with x (k, …) seen as (k, ·)."""
    xp = array_module(matrix, x)
    if matrix.ndim == 2:
        x = x.reshape(matrix.shape[1], -1)
    shape = (*matrix.shape[:-1], x.shape[-1])
    return matmul(matrix, x, out=scratch(xp, place, shape, x.dtype))
