"""The affine layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..backend import Array
from ..functional._check import generator, integer
from ..kernels.factors import Product
from . import init
from .group import Member, current_member
from .layer import Layer

_LARGE = 1 << 20
"""Numbers of a weight that does not stay in a core's cache: what reading it takes is most of the product with a few samples."""


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
            generator(rng), (out_features, in_features), out_features if bias else None, dtype
        )

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        member = self._sharing(x, self.in_features)
        if member is None:
            return F.linear(x, self.weight, self.bias), self.Saved(x)
        rows = member.share(self.out_features)
        y = _shared(member, x, lambda whole: F.linear(whole, self.weight[rows]))
        return (y if self.bias is None else y + self.bias), self.Saved(x)

    @property
    def gives_away(self) -> bool:
        return True

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        member = self._sharing(dy, self.out_features)
        if member is None:
            return F.linear_input_gradient(dy, self.weight)
        columns = member.share(self.in_features)
        return _shared(member, dy, lambda whole: F.linear_input_gradient(whole, self.weight[:, columns]))

    def _sharing(self, x: Array, features: int) -> Member | None:
        """This thread's place among those that share the product of x (n, features) with the weight; None: it does its own."""
        member = current_member()
        if member is None or not member.group.in_step or self.weight.size < _LARGE:
            return None
        return member if x.ndim == 2 and x.shape[1] == features and x.dtype == self.weight.dtype else None

    def parameter_gradients(self, saved: Saved, dy: Array) -> dict[str, Array]:
        return self._with_bias(F.linear_weight_gradient(dy, saved.input), dy)

    def factored_gradients(self, saved: Saved, dy: Array) -> dict[str, Any] | None:
        factors = Product.of(dy, saved.input)
        return self._with_bias(factors, dy) if factors.saves else None

    def _with_bias(self, dw: Any, dy: Array) -> dict[str, Any]:
        return {"weight": dw} if self.bias is None else {"weight": dw, "bias": F.linear_bias_gradient(dy)}


def _shared(member: Member, x: Array, product: Callable[[Array], Array]) -> Array:
    """The shard's rows (n, …) of a product of the whole batch, of which every thread computes some columns.

    So each reads its part of the weight instead of all of it. product: the whole x (N, …) → this thread's columns (N, …).
    """
    parts = member.gather(x)
    found = member.gather(product(np.concatenate(parts)))
    before = sum(len(part) for part in parts[: member.rank])
    return np.concatenate([columns[before : before + len(x)] for columns in found], axis=1)
