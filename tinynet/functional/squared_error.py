"""Squared error and its gradient."""

from __future__ import annotations

from typing import Any

from ..backend import Array, array_module
from ..kernels.sums import squared_distance
from ._check import check_floats, choice, same_shape
from ._reduction import REDUCTIONS, divisor, reduced, through


def mse_loss(input: Array, target: Array, *, reduction: str = "mean", weight: Array | None = None) -> Array:
    """(x − t)², elementwise; "mean" averages over all elements, weighted if weights are given.

    input, target, weight: one shape (nothing is broadcast). Returns a scalar, or that shape for "none".
    """
    _check_mse("mse_loss", input, target, weight, reduction)
    normaliser = _mse_normaliser(input, weight)
    if reduction != "none" and weight is None:
        total = squared_distance(input, target)
        return total if reduction == "sum" else total / divisor(normaliser, float("nan"))
    squares = (input - target) ** 2
    if weight is not None:
        squares *= weight
    return reduced(squares, normaliser, reduction)


def mse_loss_input_gradient(
    input: Array, target: Array, *, reduction: str = "mean", weight: Array | None = None, dy: Array | None = None
) -> Array:
    """∂ℓ/∂x for mse_loss: 2 w (x − t), for "mean" over Σ w; without weights w is 1. For the target: its negative."""
    op = "mse_loss_input_gradient"
    _check_mse(op, input, target, weight, reduction)
    factor = 2 if reduction != "mean" else 2 / divisor(_mse_normaliser(input, weight), 1)
    dx = array_module(input).subtract(input, target, out=array_module(input).empty(input.shape, dtype=input.dtype))
    dx *= factor
    if weight is not None:
        dx *= weight
    return through(op, dx, reduction, dy)


def _check_mse(op: str, input: Array, target: Array, weight: Array | None, reduction: str) -> None:
    check_floats(op, input=input, target=target, weight=weight)
    same_shape(op, input=input, target=target, **({} if weight is None else {"weight": weight}))
    choice(op, "reduction", reduction, REDUCTIONS)


def _mse_normaliser(input: Array, weight: Array | None) -> Any:
    return input.size if weight is None else weight.sum()
