"""Gradients as products that are not computed yet.

A linear layer's dW = dyᵀ x has out × in numbers, and comes from n (out + in) of them for n samples: VGG11's largest takes 411 MB,
its factors for eight photos one. So whoever adds up the gradients of several shards better puts their factors under each other,
[dy₁; dy₂]ᵀ [x₁; x₂] = dy₁ᵀ x₁ + dy₂ᵀ x₂. And for whoever uses dW a few rows at a time, as an optimiser does, it need not be
written at all: those rows are multiplied, used while they are in cache, and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..errors import ShapeError
from . import blocks
from .blocks import Each, in_turn, worth
from .linear import weight_gradient
from .products import matmul
from .scratch import scratch

_MUCH = 4
"""How many times smaller the factors must be to be kept."""
_FEW = 64
"""Samples up to which a product had better not be written: of more, multiplying takes longer than going through memory."""
_ROWS = 4
"""Rows of a product at a time, for each sample: the samples' x is laid out anew for every block of rows."""
_MOST, _ENOUGH = 4, 32
"""Blocks of `blocks.NUMBERS` numbers that such rows may take, to stay in cache; and how many rows are not too many anyway."""


class Product:
    """dyᵀ x (out, in), not computed yet. dy: (n, out). x: (n, in). Raises ShapeError if they are not of as many samples.

    The factors are only read: other products may have the same.
    """

    def __init__(self, dy: Array, x: Array) -> None:
        if dy.ndim != 2 or x.ndim != 2 or len(dy) != len(x):
            raise ShapeError(f"Product: expected dy (n, out) and x (n, in), got {tuple(dy.shape)} and {tuple(x.shape)}")
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
    def size(self) -> int:
        return prod(self.shape)

    @property
    def dtype(self) -> Any:
        return np.result_type(self.dy.dtype, self.x.dtype)

    @property
    def saves(self) -> bool:
        """Whether the factors are much smaller than the product."""
        return _MUCH * (self.dy.size + self.x.size) <= self.size

    @property
    def few(self) -> bool:
        """Whether whoever uses it some rows at a time is quicker if it is never written."""
        return len(self.dy) <= _FEW

    def parts(self) -> list[slice]:
        """The rows of the product in blocks. Whoever multiplies them has the same bits as `value`."""
        (out, inputs), n = self.shape, len(self.dy)
        a_block = blocks.NUMBERS // max(inputs, 1)
        rows = max(min(_ROWS * n, max(_MOST * a_block, _ENOUGH)), a_block, 1)
        return [slice(begin, min(begin + rows, out)) for begin in range(0, max(out, 1), rows)]

    def rows(self, part: slice) -> Array:
        """Some rows (part, in) in scratch memory, on a CPU: the next call of this thread overwrites them."""
        return self._write(scratch(np, "rows of a product", (part.stop - part.start, self.shape[1]), self.dtype), part)

    def value(self, each: Each = in_turn) -> Array:
        """The product (out, in), an array of its own. each: see kernels.blocks."""
        if array_module(self.dy, self.x) is not np:
            return weight_gradient(self.dy, self.x)
        found, work = self.writing()
        worth(each, [found])(lambda do: do(), work)
        return found

    def writing(self) -> tuple[Array, list[Callable[[], Any]]]:
        """Where the product will be, and the pieces of work that write it there, on a CPU."""
        found = np.empty(self.shape, self.dtype)

        def piece(part: slice) -> Callable[[], Any]:
            return lambda: self._write(found[part], part)

        return found, [piece(part) for part in self.parts()]

    def _write(self, out: Array, part: slice) -> Array:
        return matmul(self.dy[:, part].T, self.x, out=out)

    def scale(self, factor: Array) -> None:
        """Make it factor · dyᵀ x. Other products may have the same dy, which stays as it is."""
        self.dy = self.dy * factor.astype(self.dy.dtype)

    # ‖dyᵀ x‖² = Σ_oi (Σ_n dy_no x_ni)² = Σ_nm (dy dyᵀ)_nm (x xᵀ)_nm

    @property
    def norm_follows(self) -> bool:
        """Whether to take `norm`: of float32 on a CPU, of few samples, and if no number of the product can overflow.

        Where terms cancel, (dy dyᵀ) ∘ (x xᵀ) has half the digits of the product left: of float64's as many as float32 has.
        """
        if array_module(self.dy, self.x) is not np or self.dtype != np.float32 or not self.few:
            return False
        largest = [np.abs(factor).max(axis=1, initial=0).astype(np.float64) for factor in (self.dy, self.x)]      # (n,) each
        return bool(np.dot(*largest) < np.finfo(np.float32).max / 2)        # no if there is inf or nan in them

    def norm(self) -> Any:
        """‖dyᵀ x‖₂ from the factors, a float32; accumulated in float64."""
        square = np.vdot(_products(self.dy), _products(self.x))
        return np.sqrt(np.maximum(square, 0)).astype(np.float32)


def _products(x: Array) -> Array:
    """x xᵀ (n, n) of x (n, features) in float64, some features at a time."""
    n, features = x.shape
    found, step = np.zeros((n, n)), max(1, blocks.NUMBERS // max(n, 1))
    for begin in range(0, features, step):
        part = x[:, begin : begin + step].astype(np.float64)
        found += part @ part.T
    return found


def arrays_of(gradient: Any) -> tuple[Array, ...]:
    """A gradient's own array, or a product's factors."""
    return (gradient.dy, gradient.x) if isinstance(gradient, Product) else (gradient,)


def total(shares: Sequence[Any]) -> Any:
    """Σ of gradients, products or not; a product if all are."""
    if len(shares) == 1:
        return shares[0]
    if all(isinstance(share, Product) for share in shares):
        concatenate = array_module(shares[0].dy).concatenate
        return Product(concatenate([share.dy for share in shares]), concatenate([share.x for share in shares]))
    first, *others = (share.value() if isinstance(share, Product) else share for share in shares)
    for other in others:
        first = first + other
    return first
