"""What a dataset is, and the two that hold or select: ArrayDataset, Subset.

A dataset is anything with `len(ds)`, `ds[i] -> (image uint8 (H, W, 3), label)`, `ds.labels` int64 (N,), `ds.classes`.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import ArgumentError, DtypeError, FileError, ShapeError

Picture = npt.NDArray[np.uint8]                        # (H, W, 3)
Labels = npt.NDArray[np.int64]                         # (N,)


class BrokenPhoto(FileError):
    """A photo turned out unreadable in a dataset that skips such photos: the loader leaves it out and goes on."""


class Dataset(Protocol):
    """Labelled pictures. `labels[i]` is known without decoding picture i."""

    classes: list[str]
    labels: Labels

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[Picture, int]: ...


class ArrayDataset:
    """Pictures that are already in memory.

    images: uint8 (N, H, W, 3). labels: N integers. classes: their names; labels are positions in it.
    Raises DtypeError, ShapeError or ArgumentError if these do not fit together. Nothing is copied.
    """

    def __init__(self, images: Picture, labels: npt.ArrayLike, classes: Sequence[str]) -> None:
        if getattr(images, "dtype", None) != np.uint8:
            got = getattr(images, "dtype", type(images).__name__)
            raise DtypeError(f"ArrayDataset: expected uint8 images, got {got}")
        if images.ndim != 4 or images.shape[3] != 3:
            raise ShapeError(f"ArrayDataset: expected images (N, H, W, 3), got {images.shape}")
        self.images = images
        self.classes = list(classes)
        self.labels = checked_labels("ArrayDataset", labels, len(images), self.classes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Picture, int]:
        return self.images[index], int(self.labels[index])

    def name(self, index: int) -> str:
        return f"picture {index}"


class Subset:
    """Some samples of a dataset, in the order of `indices`; nothing is decoded or copied."""

    def __init__(self, dataset: Dataset, indices: npt.ArrayLike) -> None:
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise DtypeError(f"Subset: expected a row of integer indices, got {chosen.dtype} {chosen.shape}")
        outside = (chosen < 0) | (chosen >= len(dataset))
        if outside.any():
            raise ArgumentError(f"Subset: expected indices from 0 to {len(dataset) - 1}, got {chosen[outside][0]}")
        self.dataset = dataset
        self.indices = chosen.astype(np.int64)
        self.classes = dataset.classes
        self.labels = dataset.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Picture, int]:
        return self.dataset[int(self.indices[index])]

    def load(self, index: int, size: int | None) -> Picture:
        return load(self.dataset, int(self.indices[index]), size)

    def name(self, index: int) -> str:
        return name(self.dataset, int(self.indices[index]))


class Relabelled:
    """The same pictures under coarser classes: old label k becomes mapping[k], a position in `classes`."""

    def __init__(self, dataset: Dataset, mapping: Sequence[int], classes: Sequence[str]) -> None:
        if len(mapping) != len(dataset.classes):
            raise ArgumentError(f"Relabelled: expected {len(dataset.classes)} new labels, one a class, got {len(mapping)}")
        self.dataset = dataset
        self.classes = list(classes)
        self.labels = checked_labels("Relabelled", np.asarray(mapping)[dataset.labels], len(dataset), self.classes)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Picture, int]:
        return self.dataset[index][0], int(self.labels[index])

    def load(self, index: int, size: int | None) -> Picture:
        return load(self.dataset, index, size)

    def name(self, index: int) -> str:
        return name(self.dataset, index)


def name(dataset: Dataset, index: int) -> str:
    """What a message calls this sample: its file, where it has one."""
    return dataset.name(index) if hasattr(dataset, "name") else f"sample {index}"


def load(dataset: Dataset, index: int, size: int | None) -> Picture:
    """The picture alone; with `size`, its shorter side reduced to that as `read_photo` does (and as cheaply)."""
    if hasattr(dataset, "load"):
        picture: Picture = dataset.load(index, size)
        return picture
    picture = dataset[index][0]
    height, width = bounded(picture.shape[0], picture.shape[1], size)
    if (height, width) == picture.shape[:2]:
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def bounded(height: int, width: int, size: int | None) -> tuple[int, int]:
    """Height and width once the shorter side is at most `size`; nothing is enlarged."""
    shorter = min(height, width)
    if size is None or shorter <= size:
        return height, width
    return max(1, round(height * size / shorter)), max(1, round(width * size / shorter))


def checked_labels(who: str, labels: npt.ArrayLike, count: int, classes: Sequence[str]) -> Labels:
    """Labels as int64 (N,), each a position in `classes`; ShapeError, DtypeError or ArgumentError otherwise."""
    row = np.asarray(labels)
    if row.shape != (count,):
        raise ShapeError(f"{who}: expected {count} labels, one an image, got {row.shape}")
    if row.size and row.dtype.kind not in "iu":
        raise DtypeError(f"{who}: expected integer labels, got {row.dtype}")
    if row.size and (row.min() < 0 or row.max() >= len(classes)):
        raise ArgumentError(f"{who}: expected labels from 0 to {len(classes) - 1}, got {row.min()} to {row.max()}")
    return row.astype(np.int64)
