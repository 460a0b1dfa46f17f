"""The gradients of the shards of a batch made one: added up in the order of the shards, so that the bits are the same again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import Array
from ..kernels import blocks
from ..kernels.blocks import Each, in_blocks, worth
from ..nn.product import Product, total

_ROWS = 4
"""Rows of a product at a time, for each sample: the samples' x is laid out anew for every block of rows."""


def summed(shards: Sequence[dict[str, Any]], each: Each) -> dict[str, Array]:
    """Σ of the shards' gradients by name, in the arrays of the first. each: see kernels.blocks."""
    found: dict[str, Array] = {}
    work: list[Callable[[], None]] = []
    for name in shards[0]:
        shares = [shard[name] for shard in shards]
        if any(isinstance(share, Product) for share in shares):
            found[name], some = _multiplied(total(shares))
        else:
            found[name], some = _added(shares)
        work += some
    worth(each, list(found.values()))(lambda do: do(), work)
    return found


def _added(shares: list[Array]) -> tuple[Array, list[Callable[[], None]]]:
    """Where the sum will be, and the pieces of work that make it."""
    first = np.asarray(shares[0])

    def adding(parts: tuple[Array, ...]) -> Callable[[], None]:
        def add() -> None:
            for part in parts[1:]:
                np.add(parts[0], part, out=parts[0])

        return add

    return first, [adding(parts) for parts in in_blocks([first, *shares[1:]])]


def _multiplied(product: Any) -> tuple[Array, list[Callable[[], None]]]:
    if not isinstance(product, Product):
        return product, []
    (out, inputs), n = product.shape, len(product.dy)
    gradient = np.empty((out, inputs), product.dy.dtype)
    rows = max(_ROWS * n, blocks.NUMBERS // max(inputs, 1), 1)

    def writing(part: slice) -> Callable[[], None]:
        return lambda: product.write(gradient, part)

    return gradient, [writing(slice(begin, min(begin + rows, out))) for begin in range(0, out, rows)]
