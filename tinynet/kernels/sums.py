"""Sums as products: a BLAS adds up in vectors, NumPy's own sum over the last axes is several times slower."""

from __future__ import annotations

from math import prod

import numpy as np

from ..backend import Array, array_module
from .blocks import in_blocks
from .scratch import scratch

_RUN = 1 << 13
"""Numbers that are added up in their own precision, at most; their sums are in float64."""

_SHORT = 16
"""Numbers in a line below which adding the lines to each other is as quick."""


def line_sums(x: Array) -> Array:
    """Σ over the last axis: (…, n) → (…)."""
    return x @ np.ones(x.shape[-1], x.dtype) if array_module(x) is np else x.sum(axis=-1)


def channel_sums(x: Array) -> Array:
    """Σ over all axes but the second: (N, C, …) → (C,)."""
    (n, c), length = x.shape[:2], prod(x.shape[2:])
    if array_module(x) is not np or not x.flags.c_contiguous or length < _SHORT:
        return x.sum(axis=(0, *range(2, x.ndim)))
    return line_sums(x.reshape(n * c, length)).reshape(n, c).sum(axis=0)


def squared_distance(x: Array, y: Array) -> Array:
    """Σ (x − y)², a scalar array of x's dtype, block by block, each while it is in cache. x, y: of one shape."""
    xp = array_module(x, y)
    if xp is not np:
        return ((x - y) ** 2).sum()
    total = 0.0
    for a, b in in_blocks([x, y]):
        d = np.subtract(a, b, out=scratch(np, "difference", a.shape, a.dtype)).reshape(-1)
        whole = d.size // _RUN * _RUN
        runs, rest = d[:whole].reshape(-1, _RUN), d[whole:]
        total += float(np.vecdot(runs, runs).sum(dtype=np.float64)) + float(np.vecdot(rest, rest))
    return np.asarray(total, x.dtype)[()]
