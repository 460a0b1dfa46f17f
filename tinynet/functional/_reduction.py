"""What a loss does with its reduction, "none", "mean" or "sum", on the way there and on the way back."""

from __future__ import annotations

from typing import Any

from ..backend import Array, array_module
from ..errors import ShapeError
from ._check import check_floats

REDUCTIONS = ("none", "mean", "sum")


def reduced(losses: Array, normaliser: Any, reduction: str) -> Array:
    """The losses themselves, their sum, or their mean: the sum over the normaliser."""
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / divisor(normaliser, float("nan"))      # the mean of nothing, as in PyTorch


def divisor(normaliser: Any, instead: float) -> Any:
    """The normaliser, a number or a scalar array, or `instead` where it is 0: without a branch, which would wait for a GPU."""
    if isinstance(normaliser, int):
        return normaliser or instead
    return array_module(normaliser).where(normaliser == 0, normaliser.dtype.type(instead), normaliser)


def divided(dx: Array, normaliser: Any, reduction: str) -> Array:
    """dx over the normaliser for "mean"; otherwise dx."""
    return dx / divisor(normaliser, 1) if reduction == "mean" else dx


def through(op: str, dx: Array, reduction: str, dy: Array | None, along: int | None = None) -> Array:
    """dx times what arrives at the loss; None means 1. along: the axis of dx that the losses do not have."""
    if dy is None:
        return dx
    check_floats(op, input=dx, dy=dy)
    expected = () if reduction != "none" else tuple(n for a, n in enumerate(dx.shape) if a != along)
    if tuple(getattr(dy, "shape", ())) != expected:
        raise ShapeError(f"{op}: expected dy {expected}, the shape of the loss, got {tuple(dy.shape)}")
    if reduction == "none" and along is not None:
        dy = array_module(dy).expand_dims(dy, along)
    return dx * dy
