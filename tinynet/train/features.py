"""What a frozen part of a network gives for every photo, computed once; and batches of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..backend import Array, beside, to_host
from ..data import Loader
from ..data.pinned import fetched, transferred
from ..distributed import Shards
from ..errors import ArgumentError
from ..nn import Layer
from ..nn.layer import reference_array

MEMORY = 1.5e9
"""Bytes of features to keep at most."""
Compute = Callable[[Array, Shards], dict[str, Array]]
"""compute(x, shards) → features (N, …) of a batch by name."""


def frozen(
    model: Layer, batches: Iterable[tuple[Array, Array]], count: int, compute: Compute, workers: int | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(features by name, labels (N,)) on the host, of all batches (x, labels) in their order.

    model: whose device the batches are put on. count: samples at most, fewer where photos prove broken.
    """
    kept: dict[str, np.ndarray] = {}
    labels = np.empty(count, np.int64)
    done = 0
    names: list[str] = []

    def computed(x: Array, y: Array, shards: Shards) -> tuple[Array, ...]:
        found = compute(x, shards)
        names[:] = found
        return y, *found.values()

    with Shards(workers) as shards:
        for y, *found in fetched(computed(x, y, shards) for x, y in transferred(batches, reference_array(model))):
            end = done + len(y)
            for name, values in zip(names, found, strict=True):
                if name not in kept:
                    kept[name] = np.empty((count, *values.shape[1:]), values.dtype)
                kept[name][done:end] = values
            labels[done:end] = y
            done = end
    return {name: values[:done] for name, values in kept.items()}, labels[:done]


class FrozenLoader:
    """The batches of a loader, as a frozen part of a network hands them on: (features (N, …), labels).

    base: the frozen part; it runs as at inference. views: of every photo, from as many epochs of the loader's augmentation, are
    computed once and kept (`kept` of them, as far as the memory goes); an epoch then draws one of them for each sample.
    0: nothing is kept, and every batch is computed when it is asked for.
    """

    def __init__(
        self, base: Layer, loader: Loader, views: int = 1, *, memory: float = MEMORY, workers: int | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if views < 0:
            raise ArgumentError(f"FrozenLoader: expected views of at least 0, got {views}")
        self.base, self.loader, self.workers = base, loader, workers
        x, _ = next(iter(loader.batches(0)))
        one = to_host(base(beside(x[:1], reference_array(base))))
        each = one.nbytes * len(loader.dataset)
        self.kept = min(views, int(memory // each)) if each else views
        self._features: list[np.ndarray] = []
        self._labels = loader.dataset.labels
        if say is not None and self.kept:
            say(f"frozen features {'×'.join(map(str, one.shape[1:]))}: {self.kept} view(s) of {len(loader.dataset):,} photos, "
                f"{self.kept * each / 1e6:,.0f} MB, computed once")
        for view in range(self.kept):
            plain = Loader(loader.dataset, loader.batch_size, loader.transform, seed=loader.seed)
            found, self._labels = frozen(base, plain.batches(view), len(loader.dataset), self._compute, workers)
            self._features.append(found[""])

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return self.batches(0)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of one epoch from number `start` on, in the loader's order."""
        if not self.kept:
            with Shards(self.workers) as shards:
                for x, y in self.loader.batches(epoch, start):
                    yield self._compute(beside(x, reference_array(self.base)), shards)[""], y
            return
        order = [i for i in self.loader.order(epoch) if i < len(self._labels)]
        size = self.loader.batch_size
        drawn = np.random.default_rng((self.loader.seed, epoch)).integers(self.kept, size=len(self.loader.dataset))
        for number in range(start, len(self)):
            chosen = np.array(order[number * size : (number + 1) * size], np.int64)
            if not len(chosen):                                 # photos that proved broken made the epoch shorter
                return
            yield np.stack([self._features[drawn[i]][i] for i in chosen]), self._labels[chosen]

    def _compute(self, x: Any, shards: Shards) -> dict[str, Array]:
        return {"": shards.infer(self.base, x)}


__all__ = ["MEMORY", "FrozenLoader", "frozen"]
