"""The photos that come with tinynet: cats and not-cats of CIFAR-10, 32x32 (see data/README.md)."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ArgumentError, FileError
from .dataset import ArrayDataset, Picture

CLASSES = ["cat", "notcat"]
KINDS = ["cat", "airplane", "automobile", "bird", "deer", "dog", "frog", "horse", "ship", "truck"]
SIDE = 32
_FOLDERS = (Path(__file__).parent / "photos", Path(__file__).parents[2] / "data")     # in a wheel; in a source tree


def embedded(split: str = "train", kinds: bool = False) -> ArrayDataset:
    """The embedded photos: "train" is 1,500 cats and 1,500 not-cats, "test" 500 and 500. Classes: cat, notcat.

    kinds: say of each not-cat what it is instead: ten classes, cat, airplane, automobile, bird, deer, … (KINDS).
    Raises ArgumentError for another split, FileError if the photos were not installed or are damaged.
    """
    if split not in ("train", "test"):
        raise ArgumentError(f"embedded: expected split 'train' or 'test', got {split!r}")
    sheets = [_photos(_folder() / f"{split}-{label}.png") for label in CLASSES]
    if kinds:
        return ArrayDataset(np.concatenate(sheets), _kinds(_folder() / "index.json", split), KINDS)
    return ArrayDataset(np.concatenate(sheets), np.repeat([0, 1], [len(sheet) for sheet in sheets]), CLASSES)


def _kinds(path: Path, split: str) -> list[int]:
    """Of every photo, in the order of the sheets, its place in KINDS."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        names = [index["classes"][number] for label in CLASSES for number in index["sheets"][f"{split}-{label}"]["class"]]
        return [KINDS.index(name) for name in names]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FileError(f"{path}: damaged ({type(error).__name__}: {error}); rebuild it with data/rebuild.py") from error


def _folder() -> Path:
    for folder in _FOLDERS:
        if (folder / "train-cat.png").is_file():
            return folder
    raise FileError("the embedded photos are not installed: install tinynet from its source tree (pip install -e .), "
                    "or give a folder of class folders instead")


def _photos(path: Path) -> Picture:
    """The photos of a sheet, row by row: (N, 32, 32, 3)."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            sheet = np.asarray(picture.convert("RGB"))
    except Exception as error:                         # a damaged file can make Pillow raise nearly anything
        raise FileError(f"{path}: damaged ({error}); rebuild it with data/rebuild.py") from error
    rows, columns = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    grid = sheet.reshape(rows, SIDE, columns, SIDE, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * columns, SIDE, SIDE, 3)
