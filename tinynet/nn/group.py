"""What the threads that share one batch tell each other.

A batch may be cut into shards, each going through the model in a thread of its own (tinynet.distributed). Nearly all layers treat
every sample by itself and need not know. A layer that couples samples, as BatchNorm does in training, asks for the
`Group` of its thread and adds its sums up over the shards.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..backend import Array

_thread = threading.local()


class Group:
    """As many threads as there are shards; each calls the same operations in the same order.

    in_step: each goes through the same layers, too, so that one which needs nothing of the others may still share work with them.
    """

    def __init__(self, size: int, in_step: bool = False) -> None:
        self.size, self.in_step = size, in_step
        self._barrier = threading.Barrier(size)
        self._parts: list[list[Array | None]] = [[None] * size, [None] * size]
        self._calls = [0] * size

    def sum(self, rank: int, x: Array) -> Array:
        """Σ of the shards' arrays, added in the order of the shards, so that all get the same bits."""
        first, *others = self.gather(rank, x)
        for other in others:
            first = first + other
        return first

    def gather(self, rank: int, x: Array) -> list[Array]:
        """The shards' arrays, in the order of the shards."""
        # Two lists in turn, and one wait: whoever is at the next call fills the other list, and nobody comes to the one after
        # that before all are at the next, and so have read this one.
        parts = self._parts[self._calls[rank] % 2]
        self._calls[rank] += 1
        parts[rank] = x
        self._barrier.wait()
        return list(parts)

    def abort(self) -> None:
        """A shard has failed: let the others, which wait for it, fail as well."""
        self._barrier.abort()


class Member:
    """One thread's place in a group."""

    def __init__(self, group: Group, rank: int) -> None:
        self.group, self.rank = group, rank

    def sum(self, x: Array) -> Array:
        """Σ of x over the shards."""
        return self.group.sum(self.rank, x)

    def gather(self, x: Array) -> list[Array]:
        """x of every shard, in their order."""
        return self.group.gather(self.rank, x)

    def share(self, count: int) -> slice:
        """This thread's part of `count` things."""
        size = self.group.size
        return slice(self.rank * count // size, (self.rank + 1) * count // size)


def current_member() -> Member | None:
    """This thread's place in the group that shares a batch; None: the batch is whole."""
    return getattr(_thread, "member", None)


@contextmanager
def membership(member: Member | None) -> Iterator[None]:
    """Within the block this thread works on one shard of a batch."""
    before = current_member()
    _thread.member = member
    try:
        yield
    finally:
        _thread.member = before
