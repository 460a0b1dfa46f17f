"""When a number is no longer finite: where it began."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import nn
from ..backend import Array, array_module
from ..errors import TinynetError
from ..nn.loss import Loss


class NonFiniteError(TinynetError, ArithmeticError):
    """The training met nan or inf. step: number of the step, from 0. lr: its learning rate. cause: where it began."""

    def __init__(self, message: str, step: int, lr: float, cause: str) -> None:
        super().__init__(message)
        self.step, self.lr, self.cause = step, lr, cause


def is_finite(x: Array) -> bool:
    """Whether x has neither nan nor inf (integers always)."""
    return x.dtype.kind != "f" or bool(array_module(x).isfinite(x).all())


def non_finite_array(model: Any) -> str | None:
    """The first parameter or buffer with nan or inf, in words; None if all are finite."""
    for kind, arrays in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, array in arrays.items():
            if not is_finite(array):
                return f"{kind} {name}"
    return None


def find_cause(model: Any, loss: Loss, x: Array, target: Array, rng: np.random.Generator) -> str:
    """Do one step's forward and backward again and say, in words, where the first nan or inf appears.

    In the order in which values arise: the batch, the parameters, the layers' outputs, the loss, the gradients from
    the last layer to the first.
    """
    if not is_finite(x):
        bad = ~array_module(x).isfinite(x.reshape(len(x), -1)).all(axis=1)
        return f"the input batch (sample {int(bad.argmax())} of {len(x)} holds nan or inf)"
    stored = non_finite_array(model)
    if stored is not None:
        return stored
    outputs: list[str] = []

    def watch(path: str, layer: Any, y: Array) -> None:
        if not outputs and not is_finite(y):
            outputs.append(f"the output of layer {path} ({type(layer).__name__})")

    logits, saved = model.walk(x, True, rng, watch, "")
    if outputs:
        return outputs[0]
    if not is_finite(logits):
        return "the model's output"
    value, dlogits = loss(logits, target)
    if not math.isfinite(value):
        if target.dtype.kind in "iu" and logits.ndim > 1 and bool(((target < 0) | (target >= logits.shape[1])).any()):
            low, high = int(target.min()), int(target.max())
            return f"the loss: expected targets from 0 to {logits.shape[1] - 1}, got {low} to {high}"
        return "the loss (the model's output is finite)"
    _, gradients = nn.backward(model, saved, dlogits, input_gradient=False)
    for name in reversed([name for name in model.named_parameters() if name in gradients]):
        if not is_finite(gradients[name]):
            return f"the gradient of {name}"
    return "the norm of the gradients, which are finite but too large for their dtype"
