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
    """As many threads as there are shards; each calls the same operations in the same order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size)
        self._parts: list[list[Array | None]] = [[None] * size, [None] * size]
        self._calls = [0] * size

    def sum(self, rank: int, x: Array) -> Array:
        """Σ of the shards' arrays, added in the order of the shards, so that all get the same bits."""
        # Two lists in turn, and one wait: whoever is at the next sum fills the other list, and to the one after that nobody comes
        # before all are at the next, and so have read this one.
        parts = self._parts[self._calls[rank] % 2]
        self._calls[rank] += 1
        parts[rank] = x
        self._barrier.wait()
        total = parts[0]
        for part in parts[1:]:
            total = total + part                                # type: ignore[operator]
        return total

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
