"""Sums of squares: block by block, each square multiplied and added up while it is in cache."""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module
from .blocks import in_blocks
from .scratch import scratch

_RUN = 1 << 13
"""Numbers that are added up in their own precision, at most; their sums are in float64."""


def squared_distance(x: Array, y: Array) -> Array:
    """Σ (x − y)², a scalar array of x's dtype. Of one shape."""
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
