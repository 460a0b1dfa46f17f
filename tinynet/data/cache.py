"""Decode every photo once and keep it, reduced, in memory: later epochs decode nothing."""

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..errors import ArgumentError
from .dataset import BrokenPhoto, Dataset, Picture, load, name

logger = logging.getLogger("tinynet.data")


class CachedDataset:
    """What `cached` returns. `kept` of its pictures are in memory; `indices` are their places in `dataset`."""

    def __init__(self, dataset: Dataset, size: int | None, pictures: list[Picture | None], indices: list[int]) -> None:
        self.dataset, self.size = dataset, size
        self.classes = dataset.classes
        self.indices = np.array(indices, dtype=np.int64)
        self.labels = dataset.labels[self.indices]
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Picture, int]:
        return self.load(index, self.size), int(self.labels[index])

    def load(self, index: int, size: int | None) -> Picture:
        """The picture; always the reduced one, whatever larger `size` is asked for."""
        picture = self._pictures[index]
        if picture is None:
            picture = load(self.dataset, int(self.indices[index]), self.size)
        return picture

    def name(self, index: int) -> str:
        return name(self.dataset, int(self.indices[index]))

    @property
    def kept(self) -> int:
        return sum(picture is not None for picture in self._pictures)


def cached(dataset: Dataset, size: int | None = None, memory: float = 2e9, workers: int = 2,
           progress: bool = False) -> CachedDataset:
    """Decode every picture once, its shorter side reduced to `size` pixels (never enlarged), and hold it as uint8.

    A photo that proves broken is reported and left out, so the labels afterwards are exactly those of the pictures.
    memory: bytes to hold at most; what is beyond it is decoded at every use (a line says so), the same pictures.
    workers: threads that decode. progress: show a bar if the error stream is a terminal.
    """
    if size is not None and size < 1:
        raise ArgumentError(f"cached: expected size of at least 1 pixel, got {size}")
    pictures: list[Picture | None] = []
    indices: list[int] = []
    held = 0
    for index, picture in enumerate(_decoded(dataset, size, workers, progress)):
        if picture is None:
            continue
        held += picture.nbytes
        pictures.append(picture if held <= memory else None)
        indices.append(index)
    if held > memory:
        logger.warning("%d of %d photos do not fit into %.1f GB and are decoded at every use: raise `memory` or lower "
                       "`size`", sum(picture is None for picture in pictures), len(pictures), memory / 1e9)
    return CachedDataset(dataset, size, pictures, indices)


def _decoded(dataset: Dataset, size: int | None, workers: int, progress: bool) -> Iterator[Picture | None]:
    """Every picture in order, None for a broken one; decoded by threads, a bounded number ahead."""
    def decode(index: int) -> Picture | None:
        try:
            return load(dataset, index, size)
        except BrokenPhoto:
            return None

    def chunks() -> Iterator[Picture | None]:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for start in range(0, len(dataset), 64):
                yield from pool.map(decode, range(start, min(start + 64, len(dataset))))

    if progress and sys.stderr.isatty():
        from tqdm import tqdm

        return iter(tqdm(chunks(), total=len(dataset), desc="decoding photos", unit="photo", leave=False))
    return chunks()
