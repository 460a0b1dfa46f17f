"""Walks back from units of many photos, many at a time.

Every photo goes up once (once more for very many units). By its record a batch of signals goes back, one for each of its units,
over the part of the photo that the unit sees where that is not nearly all (part.py). On a GPU several photos go together; they
travel ahead in pinned memory, the values that the walks begin with stay there, and the host waits for the pictures of the photos
before alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..data.pinned import fetched, transferred
from ..distributed import Shards
from ..nn.layer import reference_array
from .attribution import Attribution
from .part import Part, Places, each_image_alone, grid, length, part, pieces
from .units import Record, record

CPU_BYTES, GPU_BYTES = 8 << 20, 2 << 30
"""What the maps of the walks that go together, and those of the photos that go up together, take at most where they are more than
one: on a CPU so little that it stays near a core.
"""
PICTURE_BYTES = 64 << 20
"""What the pictures take on a CPU, at most, that one batch gives if it is more than one; on a GPU GPU_BYTES."""
_MOST = 0.75
"""Share of a photo from which on a walk goes over all of it."""


class Walk(NamedTuple):
    """A unit of a photo: channel and position in the map, and the rows and columns of the photo that it sees."""

    unit: tuple[int, ...]
    rows: slice
    columns: slice


class Photo(NamedTuple):
    """A photo (1, C, H, W) on the host, as the model takes it, and its walks. name: what its owner knows it by."""

    name: int
    x: np.ndarray
    walks: Sequence[Walk]


class Found(NamedTuple):
    """What a walk gave by each way, (C, h, w) on the host: of these rows and columns of the photo, and 0 everywhere else."""

    photo: Photo
    walk: int
    rows: slice
    columns: slice
    pictures: list[np.ndarray]


class _Batch(NamedTuple):
    """Photos of one size that go up together, and walks of theirs."""

    x: np.ndarray
    """(N, C, H, W)."""
    walks: list[tuple[Photo, int]]
    """Each with its photo."""
    parts: list[Part]
    """Of each walk, all of one size."""
    table: np.ndarray
    """(T, …), int64: image in x; first row and column of the part; channel and position in its map; position in the part's."""


class _Sized(NamedTuple):
    """Inputs of one size."""

    empty: list[Record]
    """By each way, of no images."""
    at_once: int
    """How many fit together."""


class UnitWalks:
    """Walks from the units of a layer by each of the ways, each through its own model.

    All begin with what the unit is in the first one's model.
    """

    def __init__(self, ways: Sequence[Attribution], layer: str) -> None:
        self.ways, self.layer = [way.below(layer) for way in ways], layer
        self.alone = all(each_image_alone(way.model) for way in self.ways)
        grids = [grid(way.model, layer) if way.local else None for way in self.ways]    # of images that are alone, or None
        self.grid = grids[0] if grids.count(grids[0]) == len(grids) else None
        self._sizes: dict[tuple[int, ...], _Sized] = {}

    @cached_property
    def like(self) -> Array:
        """An array that lives where the model does."""
        like = reference_array(self.ways[0].model)
        return np.empty(0, np.float32) if like is None else like

    def run(self, chunks: Iterable[Sequence[Photo]], shards: Shards, finish: Callable[[Found], Any]) -> Iterator[list[Any]]:
        """What `finish` made of the walks of each chunk of photos, in any order. The thread of a batch calls it behind that."""

        def finished(batch: _Batch, pictures: Sequence[Array]) -> list[Any]:
            return [
                finish(Found(*walk, cut.rows, cut.columns, [picture[i] for picture in pictures]))
                for i, (walk, cut) in enumerate(zip(batch.walks, batch.parts, strict=True))
            ]

        if array_module(self.like) is np:
            for photos in chunks:
                given = shards.each(lambda batch: finished(batch, self._back(batch.x, batch.table, batch)), self._batches(photos))
                yield [one for some in given for one in some]
            return
        waiting: deque[tuple[_Batch, bool]] = deque()           # on their way to the GPU

        def batches() -> Iterator[tuple[np.ndarray, ...]]:
            for photos in chunks:
                made = self._batches(photos)
                for number, batch in enumerate(made):
                    waiting.append((batch, number + 1 == len(made)))
                    yield batch.x, batch.table

        def results() -> Iterator[tuple[Any, ...]]:
            for x, table in transferred(batches(), self.like):
                batch, last = waiting.popleft()
                yield batch, last, *self._back(x, table, batch)

        chunk: list[Any] = []
        for batch, last, *pictures in fetched(results()):       # when the next batch is queued
            chunk += finished(batch, pictures)
            if last:
                yield chunk
                chunk = []

    def _batches(self, photos: Sequence[Photo]) -> list[_Batch]:
        """On a CPU a photo each, whatever the number of threads; on a GPU as many as fit. One of very many walks goes again."""
        alike: dict[tuple[int, ...], list[Photo]] = {}
        for photo in photos:
            alike.setdefault(photo.x.shape[1:], []).append(photo)
        made: list[_Batch] = []
        for shape, those in alike.items():
            host = array_module(self.like) is np
            count = 1 if host or not self.alone else self._sized(shape).at_once
            room = (PICTURE_BYTES if host else GPU_BYTES) // (prod(shape) * self.like.dtype.itemsize * len(self.ways))
            some: dict[int, list[int]] = {}                     # photo → its walks, of the next batch
            for number, photo in enumerate(those):
                for walk in range(len(photo.walks)):
                    full = sum(map(len, some.values())) >= max(1, room)
                    if full or (number not in some and len(some) == count):
                        made.append(self._batch([(those[i], walks) for i, walks in some.items()]))
                        some = {}
                    some.setdefault(number, []).append(walk)
            if some:
                made.append(self._batch([(those[i], walks) for i, walks in some.items()]))
        return made

    def _batch(self, chosen: list[tuple[Photo, list[int]]]) -> _Batch:
        x = np.concatenate([photo.x for photo, _ in chosen]) if len(chosen) > 1 else chosen[0][0].x
        size, walks, parts, table = x.shape[2:], [], [], []
        least = size if self.grid is None else length(self.grid, size)
        lattice = self.grid if prod(least) <= _MOST * prod(size) else None
        for image, (photo, numbers) in enumerate(chosen):
            for number in numbers:
                unit, rows, columns = photo.walks[number]
                walks.append((photo, number))
                parts.append(part(lattice, rows, columns, unit[1:], size, least))
                table.append((image, parts[-1].rows.start, parts[-1].columns.start, *unit, *parts[-1].position))
        return _Batch(x, walks, parts, np.array(table, np.int64))

    def _sized(self, shape: tuple[int, ...]) -> _Sized:
        """Of inputs of that shape (C, h, w)."""
        if shape not in self._sizes:
            xp, cells = array_module(self.like), [1]
            nothing = xp.zeros((0, *shape), dtype=self.like.dtype)
            self.ways[0].model.infer(nothing, lambda path, layer, y: cells.append(prod(y.shape[1:])))
            most = CPU_BYTES if xp is np else GPU_BYTES
            self._sizes[shape] = _Sized(
                [record(way.model, nothing, self.layer) for way in self.ways],
                max(1, most // (sum(cells) * self.like.dtype.itemsize)),
            )
        return self._sizes[shape]

    def _back(self, x: Array, table: Array, batch: _Batch) -> list[Array]:
        """(T, C, h, w) of each way. x, table: those of the batch, where the model is."""
        xp, (rows, columns, place) = array_module(x), batch.parts[0]
        shape = (x.shape[1], rows.stop - rows.start, columns.stop - columns.start)
        image, _, _, channel, *positions = (table[:, i] for i in range(table.shape[1]))
        in_photo, in_part = (channel, *positions[: len(place)]), (channel, *positions[len(place) :])
        step = self._sized(shape).at_once if self.alone else 1
        found, values = [], None
        for number, way in enumerate(self.ways):
            taken = record(way.model, x, self.layer)
            if values is None:
                values = taken.output[(image, *in_photo)]
            made = []
            for some in (slice(begin, begin + step) for begin in range(0, len(table), step)):
                host = batch.table[some]
                kept, size = taken, taken.output.shape[1:]
                if self.alone:
                    empty = self._sized(shape).empty[number]
                    places = Places(host[:, 0], host[:, 1:3], (image[some], table[some, 1:3]))
                    kept = taken._replace(saved=pieces(taken.saved, empty.saved, places, x.shape[2:], shape[1:]))
                    size = empty.output.shape[1:]
                signal = xp.zeros((len(host), *size), dtype=values.dtype)
                signal[(xp.arange(len(host)), *(place[some] for place in in_part))] = values[some]
                picture, share = way.back(kept, signal, keep=not self.alone), values[some].reshape(-1, *[1] * (x.ndim - 1))
                made.append(xp.where(share == 0, xp.zeros((), dtype=picture.dtype), picture))   # also where a slope is infinite
            found.append(made[0] if len(made) == 1 else xp.concatenate(made))
        return found


__all__ = ["CPU_BYTES", "GPU_BYTES", "PICTURE_BYTES", "Found", "Photo", "UnitWalks", "Walk"]
