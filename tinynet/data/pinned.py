"""Batches on their way to a GPU, and results on their way back, through pinned memory: the host waits as little as can be.

Batches travel on a stream of their own, one ahead of the batch that is worked on; results are read one late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..backend import Array, array_module, beside


def transferred(batches: Iterable[tuple[Any, ...]], like: Array | None) -> Iterator[tuple[Array, ...]]:
    """The batches, such as (x, labels), each where the array `like` lives; on the host (or like None) they are handed through.

    A copy from ordinary memory makes the host wait, and the GPU too. So a batch is first copied into pinned memory, from where
    the GPU fetches it on its own stream while it computes with the batch before. Closing the generator closes the batches.
    """
    xp: Any = np if like is None else array_module(like)
    source = iter(batches)
    try:
        if xp is np or not hasattr(xp, "cuda"):
            for batch in source:
                yield batch if xp is np else tuple(beside(part, like) for part in batch)
            return
        with xp.cuda.Device(like.device.id):                    # type: ignore[union-attr]
            stage = _Stage(xp)
            ready = None
            for batch in source:
                coming = stage.send(batch)
                if ready is not None:
                    yield stage.receive(ready)
                ready = coming
            if ready is not None:
                yield stage.receive(ready)
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


class Fetched:
    """An array on its way to the host, behind what is queued for it; `read` waits for its copy alone, not for what comes after.

    What is on the host already, or is no array, is itself.
    """

    def __init__(self, x: Any) -> None:
        self._host, self._copied = x, None
        if not hasattr(x, "get"):
            return
        xp = array_module(x)
        if not hasattr(xp, "cuda"):
            self._host = x.get()
            return
        memory = xp.cuda.alloc_pinned_memory(max(x.nbytes, 1))
        self._host = np.frombuffer(memory, np.uint8, x.nbytes).view(x.dtype).reshape(x.shape)
        x.get(out=self._host, blocking=False)
        self._copied = xp.cuda.Event()
        self._copied.record()

    def read(self) -> Any:
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None
        return self._host


def fetched(results: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """The results, all their arrays on the host, each read when the next is queued: a GPU has work while the host waits."""
    before: list[Fetched] | None = None
    for result in results:
        now = [Fetched(part) for part in result]
        if before is not None:
            yield tuple(part.read() for part in before)
        before = now
    if before is not None:
        yield tuple(part.read() for part in before)


class _Stage:
    """Three slots of pinned memory, used in turn, and the stream on which the GPU fetches from them.

    Three, since one is filled while the GPU has two batches to work on: then the one of before was fetched for certain.
    """

    def __init__(self, xp: Any) -> None:
        self.xp, self.stream = xp, xp.cuda.Stream(non_blocking=True)
        self.slots: list[tuple[np.ndarray, Any]] = [(np.empty(0, np.uint8), None)] * 3

    def send(self, batch: tuple[Any, ...]) -> tuple[list[Array], Any]:
        """Start a batch on its way: its arrays on the GPU, and the event of their arrival.

        Their memory may have been another's, whose last use is queued on the current stream. So the copy waits for what is queued
        there now: the step before the one that it runs beside.
        """
        if any(hasattr(part, "get") for part in batch):         # a loader of one's own that gives arrays of the GPU
            return [part if hasattr(part, "get") else self.xp.asarray(part) for part in batch], None
        parts = [np.asarray(part, order="C") for part in batch]
        offsets = np.cumsum([0, *(-(-part.nbytes // 256) * 256 for part in parts)]).tolist()
        memory, arrived = self.slots.pop(0)
        if arrived is not None:
            arrived.synchronize()                               # three batches ago: nothing to wait for
        if memory.size < offsets[-1]:
            memory = np.frombuffer(self.xp.cuda.alloc_pinned_memory(offsets[-1]), np.uint8, offsets[-1])
        arrays = [self.xp.empty(part.shape, dtype=part.dtype) for part in parts]
        free = self.xp.cuda.Event()
        free.record(self.xp.cuda.get_current_stream())
        self.stream.wait_event(free)
        for part, array, offset in zip(parts, arrays, offsets, strict=False):
            pinned = memory[offset : offset + part.nbytes].view(part.dtype).reshape(part.shape)
            pinned[...] = part
            if part.size:
                array.set(pinned, stream=self.stream)
        arrived = self.stream.record()
        self.slots.append((memory, arrived))
        return arrays, arrived

    def receive(self, sent: tuple[list[Array], Any]) -> tuple[Array, ...]:
        """The arrays, for work on the current stream, which waits for their arrival; the host does not."""
        arrays, arrived = sent
        if arrived is not None:
            self.xp.cuda.get_current_stream().wait_event(arrived)
        return tuple(arrays)
