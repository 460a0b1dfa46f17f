"""Known sets by name: fetched once from their makers, checked, unpacked and read.

    known("cifar10")            50,000 + 10,000 photos of 32x32, ten classes (Krizhevsky 2009; the binary version, 170 MB)
    known("pets-cat-dog")       Oxford-IIIT Pet (Parkhi et al. 2012, 811 MB): 12 breeds of cat against 25 of dog
    known("pets-cat-notcat")    the same photos, called cat and notcat: its only not-cats are dogs
    known("caltech101")         101 classes of objects (Fei-Fei et al. 2004, 137 MB); the background class is left out

Each set has the licence its makers gave it; tinynet ships none of these files.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import ArgumentError, FileError
from .archives import Archive, fetch, unpack
from .dataset import ArrayDataset, Dataset, Subset
from .folder import ImageFolder, PhotoDataset
from .splits import balanced_sample

ARCHIVES = {
    "cifar10": Archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                       "c32a1d4ab5d03f1284b67883e8d87530", 170, "cifar-10-binary.tar.gz"),
    "pets-images": Archive("https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
                           "5c4f3ee8e5d25df40f4fd59a7f44e54c", 792, "oxford-pets-images.tar.gz"),
    "pets-annotations": Archive("https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",
                                "95a8c909bbe2e81eed6a22bccdf3f68f", 19, "oxford-pets-annotations.tar.gz"),
    "caltech101": Archive("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                          "3138e1922a9193bfa496528edbbc45d0", 137, "caltech-101.zip"),
}
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CALTECH101_TRAIN = 30                                  # photos a class in "train", the protocol of the literature


def known(name: str, split: str = "train", root: str | os.PathLike[str] | None = None, size: int | None = None,
          progress: bool = True) -> Dataset:
    """A known set: its "train" or its "test" part.

    root: where archives and photos are kept; the user's cache folder for tinynet if None. size: for sets of photos, the
    shorter side to reduce them to. Raises ArgumentError for an unknown name or split, FileError if a download fails.
    """
    if name not in _SETS:
        raise ArgumentError(f"known: expected one of {', '.join(_SETS)}, got {name!r}")
    if split not in ("train", "test"):
        raise ArgumentError(f"known: expected split 'train' or 'test', got {split!r}")
    if root is None:
        import pooch

        root = pooch.os_cache("tinynet")
    return _SETS[name](Path(root), split, size, progress)


def known_names() -> list[str]:
    """The names that `known` takes."""
    return list(_SETS)


def read_cifar10(folder: str | os.PathLike[str], split: str = "train") -> ArrayDataset:
    """CIFAR-10's binary files in `folder`: records of one label byte, then 32x32 red, green and blue bytes."""
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] if split == "train" else ["test_batch.bin"]
    records = np.concatenate([_cifar_records(Path(folder) / name) for name in names])           # (N, 3073)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)                        # (N, 32, 32, 3)
    return ArrayDataset(np.ascontiguousarray(images), records[:, 0], CIFAR10_CLASSES)


def read_pets(images: str | os.PathLike[str], annotations: str | os.PathLike[str], split: str = "train",
              other: str = "dog", size: int | None = None) -> PhotoDataset:
    """Oxford-IIIT Pet: cats (label 0) against dogs, the latter under the name `other`.

    images: folder of NAME.jpg. annotations: folder of trainval.txt and test.txt, lines "NAME breed species number" with
    species 1 for a cat and 2 for a dog. Some of the files are not JPEG or broken: the first are read, the second skipped.
    """
    listing = Path(annotations) / ("trainval.txt" if split == "train" else "test.txt")
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{listing}: cannot be read ({error}); remove the folder and fetch it again") from error
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    for row in rows:
        if len(row) != 4 or row[2] not in ("1", "2") or Path(row[0]).name != row[0]:
            raise FileError(f"{listing}: expected lines 'NAME breed species number', got {' '.join(row)!r}")
    paths = [Path(images) / f"{row[0]}.jpg" for row in rows]
    return PhotoDataset(paths, np.array([int(row[2]) - 1 for row in rows], dtype=np.int64), ["cat", other], size=size)


def read_caltech101(folder: str | os.PathLike[str], split: str = "train", size: int | None = None) -> Subset:
    """Caltech-101's class folders: "train" is 30 photos of each class drawn with seed 0, "test" all others."""
    names = sorted(entry.name for entry in Path(folder).iterdir() if entry.is_dir() and not entry.name.startswith("."))
    photos = ImageFolder(folder, classes=[name for name in names if name != "BACKGROUND_Google"], size=size)
    train = balanced_sample(photos, CALTECH101_TRAIN, seed=0)
    return train if split == "train" else Subset(photos, np.setdiff1d(np.arange(len(photos)), train.indices))


def _cifar_records(path: Path) -> np.ndarray:
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); remove the folder and fetch it again") from error
    if content.size == 0 or content.size % 3073 or content[::3073].max() > 9:
        raise FileError(f"{path}: not a file of CIFAR-10's binary version (records of 3073 bytes, label first)")
    return content.reshape(-1, 3073)


def _unpacked(key: str, root: Path, progress: bool) -> Path:
    """The folder that holds an archive's content; nothing is fetched if it is there."""
    folder = root / key
    return folder if folder.is_dir() else unpack(fetch(ARCHIVES[key], root, progress), folder)


def _cifar10(root: Path, split: str, size: int | None, progress: bool) -> Dataset:
    return read_cifar10(_unpacked("cifar10", root, progress) / "cifar-10-batches-bin", split)


def _pets(other: str) -> Callable[[Path, str, int | None, bool], Dataset]:
    def read(root: Path, split: str, size: int | None, progress: bool) -> Dataset:
        annotations = _unpacked("pets-annotations", root, progress) / "annotations"
        return read_pets(_unpacked("pets-images", root, progress) / "images", annotations, split, other, size)
    return read


def _caltech101(root: Path, split: str, size: int | None, progress: bool) -> Dataset:
    outer = _unpacked("caltech101", root, progress)
    inner = outer / "caltech-101" / "101_ObjectCategories.tar.gz"            # an archive within the archive
    return read_caltech101(unpack(inner, root / "caltech101-photos") / "101_ObjectCategories", split, size)


_SETS = {"cifar10": _cifar10, "pets-cat-dog": _pets("dog"), "pets-cat-notcat": _pets("notcat"), "caltech101": _caltech101}
