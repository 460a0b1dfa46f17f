"""The strongest activation of every unit in each photo of many: photos through a model, one by one or, on a GPU, together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..data.dataset import BrokenPhoto, Dataset, name
from ..data.loader import Transform
from ..data.pinned import fetched, transferred
from ..distributed import Shards
from ..errors import ArgumentError
from ..nn import Layer
from ..nn.layer import reference_array

PASS = 32
"""Photos that go through a model on a GPU together, at most: its memory is bounded, whatever batch_size is."""


class Seen(NamedTuple):
    """One photo's strongest activations: layer → (C, axes) positions and (C,) values."""

    image: int
    layers: dict[str, tuple[np.ndarray, np.ndarray]]


def strongest(
    model: Layer, dataset: Dataset, layers: list[str], by: str, transform: Transform, begin: int, batch_size: int, shards: Shards
) -> Iterator[tuple[int, list[Seen]]]:
    """From photo `begin` on: what some photos gave, and how many are through then. by: as for top_activations.

    Raises ArgumentError for a layer without an output of its own and for activations that are not finite.
    """
    total = len(dataset)
    like = reference_array(model)
    if like is None or array_module(like) is np:
        def look(part: np.ndarray) -> list[Seen]:
            # One by one through the model; so no bit depends on which photos share a batch.
            read = ((index, model_input(model, dataset, index, transform)) for index in part.tolist())
            given = (([index], x) for index, x in read if x is not None)
            return [one for seen in _look(model, dataset, given, layers, by) for one in seen]

        for first in range(begin, total, batch_size):
            batch = np.arange(first, min(first + batch_size, total))
            yield int(batch[-1]) + 1, [one for part in shards.apply(look, batch) for one in part]
        return

    waiting: deque[list[int]] = deque()                         # the photos of the batches on their way to the GPU

    def stacked() -> Iterator[tuple[np.ndarray]]:
        size = min(batch_size, PASS)
        for first, end in pairwise([begin, *range((begin // size + 1) * size, total, size), total]):
            read = shards.each(lambda index: (index, model_input(model, dataset, index, transform)), range(first, end))
            for _, alike in groupby([one for one in read if one[1] is not None], key=lambda one: one[1].shape):
                indices, photos = zip(*alike, strict=True)
                waiting.append(list(indices))
                yield np.concatenate(photos),

    given = ((waiting.popleft(), x) for x, in transferred(stacked(), like))
    for seen in _look(model, dataset, given, layers, by):
        yield seen[-1].image + 1, seen
    yield total, []                                             # the last ones may be broken


def _look(
    model: Layer, dataset: Dataset, given: Iterable[tuple[list[int], Array]], layers: list[str], by: str
) -> Iterator[list[Seen]]:
    """What the layers answer to batches: the photos' places in the dataset, and x (N, 3, H, W) where the model is."""
    wanted = set(layers)

    def answers() -> Iterator[tuple[Any, ...]]:
        for indices, x in given:
            found: dict[str, tuple[Any, Array, Array]] = {}

            def watch(path: str, _: Layer, y: Array, found: dict = found) -> None:
                if path in wanted:
                    found[path] = _peaks(y, by)

            model.infer(x, watch)
            for layer in layers:
                if layer not in found:
                    raise ArgumentError(f"layer {layer!r} has no output of its own; name a layer or a named container")
            yield indices, *(part for layer in layers for part in found[layer])

    for indices, *parts in fetched(answers()):                  # of a GPU when the next batch is queued: it need not wait
        seen: list[Seen] = [Seen(index, {}) for index in indices]
        for layer, size, at, values in zip(layers, parts[::3], parts[1::3], parts[2::3], strict=True):
            for one, cells, value in zip(seen, at, values, strict=True):
                if not np.isfinite(value).all():
                    raise ArgumentError(f"layer {layer!r}: its activations for {name(dataset, one.image)} are not finite")
                positions = np.stack(np.unravel_index(cells, size), axis=1) if size else np.zeros((len(value), 0))
                one.layers[layer] = positions.astype(np.int64), value
        yield seen


def model_input(model: Layer, dataset: Dataset, index: int, transform: Transform) -> np.ndarray | None:
    """A photo as the model takes it, (1, 3, H, W) in its dtype, on the host; None: the photo is broken."""
    like = reference_array(model)
    try:
        image, _ = dataset[index]
    except BrokenPhoto:                                         # the dataset has reported it
        return None
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0, index)))
    x = transform(image, rng)[None]
    return x if like is None else x.astype(like.dtype, copy=False)


def _peaks(y: Array, by: str) -> tuple[tuple[int, ...], Array, Array]:
    """The size of the maps (N, C, …), where in them each is strongest, (N, C), flat, and what they are ranked by, (N, C)."""
    flat = y.reshape(*y.shape[:2], -1)                          # (N, C, cells)
    at = flat.argmax(axis=2)
    values = array_module(y).take_along_axis(flat, at[..., None], 2)[..., 0] if by == "max" else flat.mean(axis=2)
    return tuple(y.shape[2:]), at, values
