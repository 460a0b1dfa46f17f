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
    """The parts of a set of photos, and a line that says where each comes from.

    unions: name of a class to the finer classes of the datasets that it unites, where the photos are known more
    finely than they are to be told apart; None: the classes are the datasets'.
    """

    train: Dataset
    validation: Dataset
    test: Dataset | None
    description: str
    unions: dict[str, list[str]] | None = None


def embedded_parts(seed: int = 0) -> Parts:
    """The embedded photos: 2,700 to train, 300 to validate (stratified, by seed), 1,000 to test.

    Of each not-cat is known what it is instead, and a network that learns to tell these apart, too, tells cats better (the README
    has the figures): it has to find out what a dog is, not only that it is no cat. So the classes are ten, and nine are united.
    """
    train, validation = split(embedded("train", kinds=True), (1 - VALIDATION, VALIDATION), seed=seed)
    test = embedded("test", kinds=True)
    unions = {"cat": ["cat"], "notcat": [kind for kind in train.classes if kind != "cat"]}
    where = "the embedded photos of CIFAR-10, 32×32"
    return Parts(train, validation, test, _describe(where, list(unions), train, validation, len(test)), unions)


def folder_parts(
    data: str | os.PathLike[str], test: str | os.PathLike[str] | None = None, *, per_class: int | None = None, cache: int = 256,
    seed: int = 0, progress: bool = False,
) -> Parts:
    """Photos of a folder of class folders, or of one that has these in train/ and test/.

    test: class folders to test on. per_class: draw that many of each class by seed (all, where there are fewer); None: take all.
    cache: decoded photos are kept in memory with this shorter side, pixels. progress: show a bar while decoding.
    """
    root, beside = train_and_test(data)
    test = beside if test is None else test
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
    count = None if tested is None else len(tested)
    return Parts(train, validation, tested, _describe(where, train.classes, train, validation, count))


def train_and_test(data: str | os.PathLike[str]) -> tuple[Path, Path | None]:
    """Where a folder has the class folders to train on and those to test on: in train/ and test/, or in itself, and None."""
    root = Path(data)
    if (root / "train").is_dir() and (root / "test").is_dir():
        return root / "train", root / "test"
    return root, None


def check_size(size: int, from_folder: bool) -> None:
    """The embedded photos have 32×32 pixels; a larger input would show nothing more. Raises ArgumentError."""
    if not from_folder and size > 48:
        raise ArgumentError(f"size {size} needs larger photos than the embedded ones of 32×32; give a folder of class folders")


def _describe(where: str, classes: list[str], train: Dataset, validation: Dataset, test: int | None) -> str:
    tested = "none to test (give a test folder)" if test is None else f"{test:,} to test"
    return f"{where}: {', '.join(classes)}; {len(train):,} to train, {len(validation):,} to validate, {tested}"
