"""The affine layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..backend import Array
from ..functional._check import integer
from . import init
from .layer import Layer
from .product import Product


class Linear(Layer):
    """torch.nn.Linear: y = x Wᵀ + b on the last axis. input (..., in_features). rng draws the initial weights."""

    parameter_names = ("weight", "bias")
    config_names = ("in_features", "out_features")

    class Saved(NamedTuple):
        input: Array

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True,
        *, rng: np.random.Generator | None = None, dtype: Any = np.float32,
    ) -> None:
        self.in_features = integer("Linear", "in_features", in_features, 1)
        self.out_features = integer("Linear", "out_features", out_features, 1)
        self.weight, self.bias = init.default_weight_and_bias(
            rng or np.random.default_rng(), (out_features, in_features), out_features if bias else None, dtype
        )

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        return F.linear(x, self.weight, self.bias), self.Saved(x)

    @property
    def gives_away(self) -> bool:
        return True

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        return F.linear_input_gradient(dy, self.weight)

    def parameter_gradients(self, saved: Saved, dy: Array) -> dict[str, Array]:
        return self._with_bias(F.linear_weight_gradient(dy, saved.input), dy)

    def factored_gradients(self, saved: Saved, dy: Array) -> dict[str, Any] | None:
        factors = Product.of(dy, saved.input)
        return self._with_bias(factors, dy) if factors.saves else None

    def _with_bias(self, dw: Any, dy: Array) -> dict[str, Any]:
        return {"weight": dw} if self.bias is None else {"weight": dw, "bias": F.linear_bias_gradient(dy)}
