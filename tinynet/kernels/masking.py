"""Keep some numbers of an array and put zeros in the place of the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, array_module

_INTEGERS = {np.dtype(np.float32): np.dtype(np.int32), np.dtype(np.float64): np.dtype(np.int64)}


def keep_where(mask: Array, values: Array) -> Array:
    """values where mask (bools, of the same shape) holds, otherwise 0; an infinity or NaN leaves no trace where it does not.

    On a CPU the bits of each number are masked: a choice between two numbers is a branch that nobody can foretell, and
    takes ten times as long.
    """
    xp = array_module(mask, values)
    if xp is not np or values.dtype not in _INTEGERS or values.ndim == 0:
        return xp.where(mask, values, xp.zeros((), dtype=values.dtype))
    integers: Any = _INTEGERS[values.dtype]
    bits = mask.astype(integers)
    np.negative(bits, out=bits)                                             # all ones, or all zeros
    return np.bitwise_and(bits, np.ascontiguousarray(values).view(integers)).view(values.dtype)
