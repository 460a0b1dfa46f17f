"""The gradients of the shards of a batch made one: added up in the order of the shards, so that the bits are the same again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import Array
from ..kernels.blocks import Each, in_blocks, worth
from ..kernels.factors import Product, total


def summed(shards: Sequence[dict[str, Any]], each: Each, factored: bool = False) -> dict[str, Any]:
    """Σ of the shards' gradients by name, in the arrays of the first; products are written out unless `factored`,
    and of few samples.

    each: see kernels.blocks.
    """
    found: dict[str, Any] = {}
    work: list[Callable[[], Any]] = []
    for name in shards[0]:
        shares = [shard[name] for shard in shards]
        some: list[Callable[[], Any]] = []
        if len(shares) == 1 or any(isinstance(share, Product) for share in shares):
            found[name] = total(shares)
        else:
            found[name], some = _added(shares)
        if isinstance(found[name], Product) and not (factored and found[name].few):
            found[name], some = found[name].writing()
        work += some
    worth(each, [gradient for gradient in found.values() if not isinstance(gradient, Product)])(lambda do: do(), work)
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
