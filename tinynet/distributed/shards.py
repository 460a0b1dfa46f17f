"""A batch in shards: whole forward and backward per shard, each in a thread of its own, and the gradients summed.

NumPy lets go of the interpreter's lock inside every large operation, so the threads run side by side; each has one
BLAS thread, and its part of the batch stays near its core. Everything scales that way, not the matrix products alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, current_device, on
from ..errors import ArgumentError
from ..nn import Layer, backward
from ..nn.group import Group, Member, membership
from ..nn.loss import Loss, asked
from .blas import one_blas_thread
from .memory import MOST, KeptMemory
from .sums import summed
from .workers import available_cores


class TrainingStep(NamedTuple):
    """What one batch gave: the loss, the logits (N, C), and the gradient of each parameter by name.

    A gradient is an array, or, if `factored` was asked for, perhaps a `Product` of kernels.factors, whose `value()` is the array.
    """

    loss: Array
    logits: Array
    gradients: dict[str, Any]


class Shards:
    """`workers` threads for one model at a time, the caller's one of them; None: as many as there are cores. For a with block.

    Within the block BLAS is limited to one thread (of the whole process), and freed memory is kept for the next array; behind it,
    also after an error, all is as before. keep: bytes of freed memory that are kept at most, about; 0: none is.
    Results depend on the number of workers in the last bits (sums are taken in another order), and on nothing else.
    """

    def __init__(self, workers: int | None = None, keep: int = MOST) -> None:
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
            raise ArgumentError(f"Shards: expected workers of at least 1, got {workers!r}")
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 0:
            raise ArgumentError(f"Shards: expected keep of at least 0 bytes, got {keep!r}")
        self.workers, self.keep = workers or available_cores(), keep
        self._pool: ThreadPoolExecutor | None = None
        self._within = ExitStack()

    def __enter__(self) -> Shards:
        if self._pool is not None:
            raise ArgumentError("Shards: its with block is entered already; take other Shards for another block")
        with ExitStack() as within:
            within.enter_context(KeptMemory(self.keep))
            if self.workers > 1:
                within.enter_context(one_blas_thread())
                self._pool = within.enter_context(ThreadPoolExecutor(self.workers - 1, thread_name_prefix="tinynet-shard"))
            self._within = within.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._pool = None
        self._within.close()

    def step(
        self, model: Layer, loss: Loss, x: Array, target: Array,
        rngs: Sequence[np.random.Generator], only: Collection[str] | None = None, factored: bool = False,
    ) -> TrainingStep:
        """Forward and backward of one batch in training. x: (N, …). rngs: one a worker, for dropout. only: see nn.backward.

        factored: on a CPU the gradients of large linear layers stay products that are not computed, for an optimiser, which
        makes of them the same bits as of the arrays, block by block, and for clipping by the norm.
        """
        parts = self._cut(x)
        if len(parts) == 1:
            logits, saved = model.forward(x, train=True, rng=rngs[0])
            value, dlogits = asked(loss, logits, target)
            own = backward(model, saved, dlogits, False, only, keep=False, factored=array_module(x) is np)[1]
            del saved
            return TrainingStep(value, logits, summed([own], self.each, factored))
        group = Group(len(parts), in_step=True)                 # one for both ways: on the way back layers add up in it, too
        forward = self._map(lambda rank: model.forward(x[parts[rank]], train=True, rng=rngs[rank]), group)
        logits = array_module(x).concatenate([y for y, _ in forward])
        value, dlogits = asked(loss, logits, target)            # of the whole batch: its mean is no business of a shard

        def gradients(rank: int) -> dict[str, Array]:
            return backward(model, forward[rank][1], dlogits[parts[rank]], False, only, keep=False, factored=True)[1]

        return TrainingStep(value, logits, summed(self._map(gradients, group), self.each, factored))

    def infer(self, model: Layer, x: Array) -> Array:
        """model(x), the batch shared out."""
        parts = self._cut(x)
        if len(parts) == 1:
            return model(x)
        found = self._map(lambda rank: model(x[parts[rank]]), Group(len(parts), in_step=True))
        return array_module(x).concatenate(found)

    def apply(self, work: Callable[..., Any], x: Array, *others: Array | None, in_step: bool = False) -> list[Any]:
        """work(part of x, part of each other) for each shard of the batch, in its thread; what they return, in order.

        others: cut as x is, such as labels; None stays None. in_step: every shard goes through the same linear layers in the same
        order, whatever its part holds; then they share the large ones' products (and would wait for ever if it were not so).
        """
        parts = self._cut(x)
        if len(parts) == 1:
            return [work(x, *others)]

        def run(rank: int) -> Any:
            return work(x[parts[rank]], *(None if other is None else other[parts[rank]] for other in others))

        return self._map(run, Group(len(parts), in_step))

    def each(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """work(item) of each item, every thread taking the next when it is done with one; what they return, in order."""
        items = list(items)
        if self._pool is None or len(items) < 2:
            return [work(item) for item in items]
        found: list[Any] = [None] * len(items)
        waiting = deque(enumerate(items))

        def take(rank: int) -> None:
            while True:
                try:
                    number, item = waiting.popleft()
                except IndexError:
                    return
                found[number] = work(item)

        self._map(take, Group(min(self.workers, len(items))))
        return found

    def _cut(self, x: Array) -> list[slice]:
        """The shards of a batch; one for an array on a GPU, which needs no threads."""
        count = len(x)
        shards = max(1, min(self.workers, count)) if self._pool is not None and array_module(x) is np else 1
        return [slice(i * count // shards, (i + 1) * count // shards) for i in range(shards)]

    def _map(self, work: Callable[[int], Any], group: Group) -> list[Any]:
        """work(0), …, work(size − 1), each in its thread as a member of the group; the first error is raised.

        The first is the caller's: to wake one thread less, and be woken by none, saves small layers up to a fifth of their time.
        """

        def run(rank: int) -> Any:
            try:
                with membership(Member(group, rank)), np.errstate(**errors), on(device):
                    return work(rank)
            except BaseException:
                group.abort()
                raise

        errors: Any = np.geterr()                               # NumPy's are per thread, and so is the device
        device = current_device()
        assert self._pool is not None
        futures = [self._pool.submit(run, rank) for rank in range(1, group.size)]
        own: list[Any] = []
        failures: list[BaseException | None] = []
        try:
            try:
                own.append(run(0))
            except Exception as error:
                failures.append(error)
            failures += [future.exception() for future in futures]
        except BaseException:                                   # Ctrl-C: behind the caller's back nobody may go on
            group.abort()
            wait(futures)
            raise
        for failure in failures:
            if failure is not None and not isinstance(failure, threading.BrokenBarrierError):
                raise failure
        return own + [future.result() for future in futures]
