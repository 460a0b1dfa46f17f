"""Gradients as products that are not computed yet.

A linear layer's dW = dyᵀ x has out × in numbers, and comes from n (out + in) of them for n samples: VGG11's largest takes 411 MB,
its factors for eight photos one. So whoever adds up the gradients of several shards better puts their factors under each other,
[dy₁; dy₂]ᵀ [x₁; x₂] = dy₁ᵀ x₁ + dy₂ᵀ x₂, and multiplies once, at the end, when all else is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ..backend import Array, array_module
from ..functional import linear_weight_gradient
from ..kernels.products import matmul

_MUCH = 4
"""How many times smaller the factors must be to be kept."""


class Product:
    """dyᵀ x (out, in), not computed yet. dy: (n, out). x: (n, in)."""

    def __init__(self, dy: Array, x: Array) -> None:
        self.dy, self.x = dy, x

    @classmethod
    def of(cls, dy: Array, x: Array) -> Product:
        """Of a linear layer's dy (..., out) and input (..., in)."""
        n = prod(x.shape[:-1])
        return cls(dy.reshape(n, dy.shape[-1]), x.reshape(n, x.shape[-1]))

    @property
    def shape(self) -> tuple[int, int]:
        return self.dy.shape[1], self.x.shape[1]

    @property
    def saves(self) -> bool:
        """Whether the factors are much smaller than the product."""
        return _MUCH * (self.dy.size + self.x.size) <= prod(self.shape)

    def value(self) -> Array:
        """The product."""
        return linear_weight_gradient(self.dy, self.x)

    def write(self, out: Array, rows: slice) -> None:
        """Some rows of the product, to their place in `out` (out, in)."""
        matmul(self.dy[:, rows].T, self.x, out=out[rows])


def total(shares: Sequence[Any]) -> Any:
    """Σ of gradients, products or not; a product if all are."""
    if all(isinstance(share, Product) for share in shares):
        concatenate = array_module(shares[0].dy).concatenate
        return Product(concatenate([share.dy for share in shares]), concatenate([share.x for share in shares]))
    first, *others = (share.value() if isinstance(share, Product) else share for share in shares)
    for other in others:
        first = first + other
    return first
