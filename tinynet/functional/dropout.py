"""Dropout and its gradient (Srivastava et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array
from ..errors import ArgumentError
from ..kernels.cuda import dropout as gpu
from ._check import check_floats, generator, same_shape


def dropout(
    input: Array, p: float = 0.5, training: bool = True, inplace: bool = False, *, rng: np.random.Generator | None = None
) -> Array:
    """Each number is set to 0 with probability p, and the others are scaled by 1 / (1 − p), so that the mean stays.

    training False: the input unchanged (a copy). rng: where the draws come from; None draws from a fresh generator that
    cannot be repeated. inplace: write into input. Returns input's shape.
    """
    xp = check_floats("dropout", input=input)
    check_probability("dropout", p)
    if not training:
        return input if inplace else input.copy()
    mask = dropout_mask(input.shape, p, generator(rng), dtype=input.dtype, xp=xp)
    return xp.multiply(input, mask, out=input if inplace else None)


def dropout_mask(
    shape: Sequence[int], p: float, rng: np.random.Generator, dtype: Any = np.float32, xp: Any = np
) -> Array:
    """What dropout multiplies by: 0 with probability p, otherwise 1 / (1 − p).

    The same on every device: a GPU draws the numbers that rng would have drawn on the host, if rng is a default_rng.
    """
    check_probability("dropout_mask", p)
    rng = generator(rng)
    scale = 1 / (1 - p) if p < 1 else 0.0
    if hasattr(xp, "RawModule") and gpu.can_draw(rng):
        return gpu.mask(shape, p, scale, rng, dtype, xp)
    keep = rng.random(tuple(shape), dtype=np.float32) >= p
    return xp.asarray(keep.astype(dtype) * np.dtype(dtype).type(scale))


def dropout_input_gradient(dy: Array, mask: Array) -> Array:
    """∂ℓ/∂x for dropout: dy · mask. dy, mask: one shape."""
    check_floats("dropout_input_gradient", dy=dy, mask=mask)
    same_shape("dropout_input_gradient", mask=mask, dy=dy)
    return dy * mask


def check_probability(op: str, p: Any) -> None:
    """p must be a number from 0 to 1."""
    if not isinstance(p, (int, float, np.floating)) or not 0 <= p <= 1:
        raise ArgumentError(f"{op}: expected p from 0 to 1, got {p!r}")
