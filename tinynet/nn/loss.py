"""Losses: loss(input, target) → (value, gradient with respect to input). They are where the walk back begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import functional as F
from ..backend import Array
from ..errors import ArgumentError
from ..functional.cross_entropy import cross_entropy_and_gradient

Loss = Callable[[Array, Array], tuple[Any, Array]]


def asked(loss: Loss, input: Array, target: Array) -> tuple[Any, Array]:
    """loss(input, target), which must be a value and a gradient: functional.cross_entropy gives the value alone."""
    answer = loss(input, target)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise ArgumentError(
            f"loss: expected (value, gradient) of (input, target), as of nn.CrossEntropyLoss(), got {type(answer).__name__}"
        )
    value, gradient = answer
    return value, gradient


class CrossEntropyLoss:
    """torch.nn.CrossEntropyLoss: softmax and cross-entropy on logits, fused and stable. Arguments as functional.cross_entropy."""

    def __init__(
        self, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        self.weight, self.ignore_index, self.reduction, self.label_smoothing = weight, ignore_index, reduction, label_smoothing

    def __call__(self, input: Array, target: Array) -> tuple[Array, Array]:
        """(loss, ∂loss/∂input). For reduction "none" the gradient is of the sum."""
        options: dict[str, Any] = {"ignore_index": self.ignore_index, "reduction": self.reduction}
        options["label_smoothing"] = self.label_smoothing
        return cross_entropy_and_gradient(input, target, self.weight, **options)


class NLLLoss:
    """torch.nn.NLLLoss: cross-entropy on log-probabilities. Arguments as functional.nll_loss."""

    def __init__(self, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        self.weight, self.ignore_index, self.reduction = weight, ignore_index, reduction

    def __call__(self, input: Array, target: Array) -> tuple[Array, Array]:
        """(loss, ∂loss/∂input). For reduction "none" the gradient is of the sum."""
        value = F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)
        dx = F.nll_loss_input_gradient(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)
        return value, dx


class MSELoss:
    """torch.nn.MSELoss: the squared error. Arguments as functional.mse_loss."""

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def __call__(self, input: Array, target: Array) -> tuple[Array, Array]:
        """(loss, ∂loss/∂input). For reduction "none" the gradient is of the sum."""
        value = F.mse_loss(input, target, reduction=self.reduction)
        return value, F.mse_loss_input_gradient(input, target, reduction=self.reduction)
