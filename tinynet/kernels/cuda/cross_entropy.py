"""Softmax, cross-entropy and their gradient in one pass on a GPU; for class numbers, as functional/cross_entropy.py."""

from __future__ import annotations

from math import inf, nan, prod

import numpy as np

from ...backend import Array, array_module
from .launch import block_for, dense, index_type, launch


def cross_entropy(
    x: Array, target: Array, weight: Array | None, *, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0, value: bool = True, gradient: bool = True, logits: bool = True,
) -> tuple[Array | None, Array | None]:
    """(loss, ∂loss/∂x); either may be left out. x: (N, C, …) or (C,), not empty. target: class numbers, int64 or uint8.

    The gradient for reduction "none" is that of the sum. A target that is no class makes the loss NaN: the host does not look.
    logits False: x is log-probabilities already, the loss the negative log-likelihood.
    """
    xp, T = array_module(x, target, weight), x.dtype.type
    along = 0 if x.ndim == 1 else 1
    x, target = dense(x), dense(target.astype(np.int64, copy=False))
    weight = None if weight is None else dense(weight)
    classes, inner = x.shape[along], prod(x.shape[along + 1 :])
    rows = x.size // classes
    kind = index_type(x.size)
    total = None
    if reduction == "mean":
        total = xp.empty((), dtype=x.dtype)
        launch("cross_entropy", "target_weight", (x.dtype, kind), (
            target, weight, dense(total), kind(rows), kind(classes), np.int64(ignore_index)),
            threads=1, block=block_for(rows), grid=(1,))
    losses = xp.empty(target.shape if x.ndim > 1 else (), dtype=x.dtype)
    dx = xp.empty(x.shape, dtype=x.dtype) if gradient else None
    mean = None if total is None else dense(total)
    launch("cross_entropy", "cross_entropy", (x.dtype, kind), (
        x, target, weight, mean, dense(losses), dx, kind(classes), kind(inner), np.int64(ignore_index), T(label_smoothing),
        np.int32(logits), T(-inf), T(nan)), threads=rows, block=block_for(classes), grid=(rows,))
    if not value or reduction == "none":
        return (losses if value else None), dx
    result = xp.empty((), dtype=x.dtype)
    launch("cross_entropy", "sum_losses", (x.dtype, kind), (
        dense(losses), mean, dense(result), kind(rows), T(nan)), threads=1, block=block_for(rows), grid=(1,))
    return result, dx
