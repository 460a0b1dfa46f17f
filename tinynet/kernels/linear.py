"""A linear layer's three products. Of few samples, reading the weight takes longer than the arithmetic.

What a BLAS makes of x Wᵀ depends on which of the two it takes for the left factor: of few rows x the product is quicker as
(W xᵀ)ᵀ, and in pieces (products.py) quicker still.
"""

from __future__ import annotations

from math import prod

from ..backend import Array, array_module
from . import products
from .cuda import here
from .cuda.products import matmul

_FEW = 4
"""How many times as many outputs as samples there must be for the weight to be the left factor."""
_LARGE = 1_000_000
"""Multiply-adds below which the order does not matter."""


def forward(x: Array, w: Array) -> Array:
    """Y = X Wᵀ. x: (…, I), w: (O, I) or (I,). Returns (…, O)."""
    n, o = prod(x.shape[:-1]), w.shape[0]
    if here(x) or w.ndim == 1 or n < 2 or _FEW * n > o or n * w.size < _LARGE:
        return matmul(x, w.T)
    xp = array_module(x, w)
    y = products.matmul(w, x.reshape(n, -1).T)                              # (O, n)
    return xp.ascontiguousarray(y.T).reshape(*x.shape[:-1], o)


def input_gradient(dy: Array, w: Array) -> Array:
    """dX = dY W. dy: (…, O), w: (O, I). Returns (…, I)."""
    if here(dy) or dy.size == 0:
        return matmul(dy, w)
    dx = products.matmul(dy.reshape(-1, dy.shape[-1]), w)
    return dx.reshape(*dy.shape[:-1], w.shape[1])


def weight_gradient(dy: Array, x: Array) -> Array:
    """dW = dYᵀ X. dy: (n, O), x: (n, I). Returns (O, I)."""
    return matmul(dy.T, x) if here(x) else products.matmul(dy.T, x)
