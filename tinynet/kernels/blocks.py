"""Large arrays in blocks: of several operations on the same numbers, all but the first find them in the cache.

Each pass over an array that no cache holds goes through memory, and takes longer for that than for its arithmetic. What is done
number by number may be cut anywhere without another result, and different blocks may be done in different threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..backend import Array, array_module

NUMBERS = 1 << 18
"""Numbers in a block. Threads also hand the interpreter's lock to each other less often, the longer their operations are."""

T = TypeVar("T")
Each = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]
"""each(work, items): work(item) of every item, in whatever order and thread; what it returns, in order of the items."""


def in_turn(work: Callable[[T], Any], items: Iterable[T]) -> list[Any]:
    """work(item) of one item after the other: the Each of a single thread."""
    return [work(item) for item in items]


def worth(each: Each, arrays: Sequence[Array]) -> Each:
    """`each`, or in_turn where the arrays are too small together to wake other threads for."""
    return each if sum(x.size for x in arrays) > 4 * NUMBERS else in_turn


def in_blocks(arrays: Sequence[Array]) -> list[tuple[Array, ...]]:
    """Views of arrays of one shape, block by block; the arrays themselves where they are small, on a GPU, or not in C order."""
    first, numbers = arrays[0], NUMBERS
    if array_module(first) is not np or first.size <= numbers or not all(x.flags.c_contiguous for x in arrays):
        return [tuple(arrays)]
    flat = [x.reshape(-1) for x in arrays]
    return [tuple(x[begin : begin + numbers] for x in flat) for begin in range(0, first.size, numbers)]
