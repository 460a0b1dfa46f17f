"""Zeros in the place of some numbers: what is below zero (ReLU), and where a gradient does not pass.

On a CPU, NumPy's maximum of an array and one number goes number by number, that of two arrays in vectors; and a choice between
two numbers is a branch that nobody can foretell, which takes ten times as long as masking their bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..backend import Array, array_module
from .blocks import in_blocks
from .scratch import scratch

_INTEGERS = {np.dtype(np.float32): np.dtype(np.int32), np.dtype(np.float64): np.dtype(np.int64)}
_ROW = 1 << 14
"""Zeros that numbers are compared with at a time, at most."""
_SHORT = 16
"""Pieces of fewer numbers than this are not worth a call of the inner loop."""


def rectify(x: Array, out: Array | None = None) -> Array:
    """max(x, 0), elementwise; NaN stays NaN. out: where to, x itself for one."""
    xp = array_module(x)
    if xp is not np or x.dtype not in _INTEGERS or x.ndim == 0:
        return xp.maximum(x, 0, out=out)
    if x.flags.c_contiguous and (out is None or out.flags.c_contiguous):
        y = np.empty(x.shape, x.dtype) if out is None else out
        flat, target, zeros = x.reshape(-1), y.reshape(-1), _zeros(x.dtype)
        whole = flat.size // _ROW * _ROW
        np.maximum(flat[:whole].reshape(-1, _ROW), zeros, out=target[:whole].reshape(-1, _ROW))
        np.maximum(flat[whole:], zeros[: flat.size - whole], out=target[whole:])
        return y
    length, axes = 1, 0                                                     # of the piece at the end that lies without gaps
    for size, stride in zip(reversed(x.shape), reversed(x.strides), strict=True):
        if stride != length * x.dtype.itemsize or length * size > _ROW:
            break
        length, axes = length * size, axes + 1
    if length < _SHORT:
        return np.maximum(x, 0, out=out)
    return np.maximum(x, _zeros(x.dtype)[:length].reshape(x.shape[x.ndim - axes :]), out=out)


def keep_positive(values: Array, output: Array) -> Array:
    """values where not output <= 0 (a NaN among them), otherwise 0, of whatever was there. Of one shape."""
    xp = array_module(values, output)
    if xp is not np or values.dtype not in _INTEGERS or values.ndim == 0:
        return xp.where(output <= 0, xp.zeros((), dtype=values.dtype), values)
    integers: Any = _INTEGERS[values.dtype]
    kept = np.empty(values.shape, values.dtype)
    source, target = (np.ascontiguousarray(a).view(integers).reshape(-1) for a in (values, kept))
    seen = np.ascontiguousarray(output).reshape(-1)
    for part, numbers, result in in_blocks([seen, source, target]):
        bits = scratch(np, "mask", part.shape, np.int8)
        np.less_equal(part, 0, out=bits.view(np.bool_))                     # 1 or 0; less 1: no bit, or all
        np.subtract(bits, 1, out=bits)
        np.bitwise_and(numbers, bits, out=result)                           # all bits stay all as the number is widened
    return kept


@cache
def _zeros(dtype: np.dtype[Any]) -> np.ndarray:
    zeros = np.zeros(_ROW, dtype)
    zeros.flags.writeable = False
    return zeros
