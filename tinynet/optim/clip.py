"""Gradient clipping, in place on a dict name -> gradient, as torch.nn.utils.clip_grad_norm_ and clip_grad_value_."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..errors import ArgumentError, TinynetError

_EPSILON = 1e-6  # PyTorch's: keeps max_norm / norm finite when every gradient is zero
_SILENT: Any = {"over": "ignore", "invalid": "ignore"}  # exploded gradients are for the caller to judge


def total_norm(gradients: Mapping[str, Array | None], norm_type: float = 2.0) -> Any:
    """The norm of all gradients together, as if they were one long vector: (Σ |g|^p)^(1/p), max |g| for p = inf.

    Returns a scalar on the gradients' device (no host synchronisation); 0.0 if there are none.
    """
    arrays = [gradient for gradient in gradients.values() if gradient is not None]
    if not arrays:
        return 0.0
    xp = array_module(*arrays)
    with np.errstate(**_SILENT):
        norms = xp.stack([xp.asarray(_norm(xp, array.reshape(-1), norm_type)) for array in arrays])
        return _norm(xp, norms, norm_type)  # the norm of the norms is the norm of the whole


def clip_grad_norm(
    gradients: Mapping[str, Array | None],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Any:
    """Scale all gradients in place by min(1, max_norm / (norm + 1e-6)); return the norm they had before.

    Raises TinynetError if error_if_nonfinite and the norm is nan or inf (that looks at the number, so a GPU is waited
    for); otherwise gradients of a non-finite norm are scaled by it as they are, which PyTorch does too.
    """
    norm = total_norm(gradients, norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise TinynetError(f"the total norm (order {norm_type}) of the gradients is {float(norm)}: cannot clip to it")
    arrays = [gradient for gradient in gradients.values() if gradient is not None]
    if arrays:
        xp = array_module(*arrays)
        with np.errstate(**_SILENT):
            factor = xp.minimum(float(max_norm) / (norm + _EPSILON), 1.0)  # multiplied even when 1: asking would wait
            for array in arrays:
                xp.multiply(array, factor.astype(array.dtype), out=array)
    return norm


def clip_grad_value(gradients: Mapping[str, Array | None], clip_value: float) -> None:
    """Clip every element of every gradient to [−clip_value, clip_value], in place."""
    clip_value = float(clip_value)
    for array in gradients.values():
        if array is not None:
            xp = array_module(array)
            xp.maximum(array, -clip_value, out=array)
            xp.minimum(array, clip_value, out=array)


def _norm(xp: Any, flat: Array, p: float) -> Any:
    """The p-norm of a vector (n,)."""
    p = float(p)
    if math.isnan(p):
        raise ArgumentError("expected a number or inf as norm_type, got nan")
    if math.isinf(p) and flat.size == 0:
        return xp.zeros((), flat.dtype)  # no element: nothing to take the largest of
    if p == 2:
        return xp.sqrt(xp.dot(flat, flat))
    magnitudes = xp.abs(flat)
    if math.isinf(p):
        return magnitudes.max() if p > 0 else magnitudes.min()
    if p == 0:
        return xp.sum(magnitudes != 0).astype(flat.dtype)
    return xp.sum(magnitudes**p) ** (1 / p)
