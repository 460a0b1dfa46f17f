"""Which photos to train on, to validate on and to test on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..data import Dataset, ImageFolder, balanced_sample, cached, embedded, split
from ..errors import ArgumentError, FileError

VALIDATION = 0.1
"""The share of the training photos that is held back for validation, class by class."""


class Parts(NamedTuple):
    """The parts of a set of photos, and a line that says where each comes from."""

    train: Dataset
    validation: Dataset
    test: Dataset | None
    description: str


def embedded_parts(seed: int = 0) -> Parts:
    """The embedded photos: 2,700 to train, 300 to validate (stratified, by seed), 1,000 to test."""
    train, validation = split(embedded("train"), (1 - VALIDATION, VALIDATION), seed=seed)
    test = embedded("test")
    return Parts(train, validation, test, _describe("the embedded photos of CIFAR-10, 32×32", train, validation, len(test)))


def folder_parts(
    data: str | os.PathLike[str], test: str | os.PathLike[str] | None = None, *, per_class: int | None = None, cache: int = 256,
    seed: int = 0, progress: bool = False,
) -> Parts:
    """Photos of a folder of class folders, or of one that has these in train/ and test/.

    test: class folders to test on. per_class: draw that many of each class by seed (all, where there are fewer); None: take all.
    cache: decoded photos are kept in memory with this shorter side, pixels. progress: show a bar while decoding.
    """
    root = Path(data)
    if test is None and (root / "train").is_dir() and (root / "test").is_dir():
        root, test = root / "train", root / "test"
    folder = ImageFolder(root)
    drawn: Dataset = folder
    if per_class is not None:
        counts = [int((folder.labels == label).sum()) for label in range(len(folder.classes))]
        drawn = balanced_sample(folder, min(per_class, *counts), seed=seed)
    if min(int((drawn.labels == label).sum()) for label in range(len(drawn.classes))) < 2:
        raise FileError(f"{root}: expected at least two photos in every class, one to train on and one to validate")
    tested: Dataset | None = None
    if test is not None:
        tested = cached(ImageFolder(test, classes=folder.classes), cache, progress=progress)
    train, validation = split(cached(drawn, cache, progress=progress), (1 - VALIDATION, VALIDATION), seed=seed)
    where = str(root)
    if len(drawn) < len(folder):
        where = f"{len(drawn):,} of {len(folder):,} photos of {root}, drawn by seed {seed}"
    return Parts(train, validation, tested, _describe(where, train, validation, None if tested is None else len(tested)))


def check_size(size: int, from_folder: bool) -> None:
    """The embedded photos have 32×32 pixels; a larger input would show nothing more. Raises ArgumentError."""
    if not from_folder and size > 48:
        raise ArgumentError(f"size {size} needs larger photos than the embedded ones of 32×32; give a folder of class folders")


def _describe(where: str, train: Dataset, validation: Dataset, test: int | None) -> str:
    tested = "none to test (give a test folder)" if test is None else f"{test:,} to test"
    return f"{where}: {', '.join(train.classes)}; {len(train):,} to train, {len(validation):,} to validate, {tested}"
