"""Class folders of photos as a lazy dataset: DIR/cat/*.jpg, DIR/notcat/*.png -> (picture, label).

How lazy and skipping live together: every file's header (and end mark) is looked at once, when the dataset is made, and
what is broken is reported by name and left out, so that len, labels and splits count good photos only. The pixels
are decoded when asked for. The rare photo whose damage shows only then raises BrokenPhoto, and the loader leaves that
sample out of its batch: the same one at any number of workers, and after a resume.
"""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, FileError
from .dataset import BrokenPhoto, Picture, checked_labels
from .photo import SUFFIXES, check_photo, read_photo

logger = logging.getLogger("tinynet.data")             # its warnings, unless configured, are plain lines on stderr
_LINES = 20                                            # broken photos reported one by one; the others are counted


class Broken(NamedTuple):
    """A photo that was left out, and why."""

    path: Path
    reason: str


class PhotoDataset:
    """Photos by path. Attributes: paths, labels (N,), classes, sizes (N, 2) as height and width, broken, strict, size.

    size: reduce each photo's shorter side to this when decoding (`read_photo`); None gives the photo as it is.
    strict: the first broken photo raises FileError; otherwise each is reported in one line, kept in `broken`, skipped.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], labels: npt.ArrayLike, classes: Sequence[str],
                 size: int | None = None, strict: bool = False) -> None:
        if size is not None and (not isinstance(size, int) or size < 1):
            raise ArgumentError(f"{type(self).__name__}: expected size to be a number of pixels or None, got {size!r}")
        self.classes, self.size, self.strict = list(classes), size, strict
        self.broken: list[Broken] = []
        every = [Path(path) for path in paths]
        every_label = checked_labels(type(self).__name__, labels, len(every), self.classes)
        with ThreadPoolExecutor(4) as pool:            # mostly waiting for the disk
            checks = list(pool.map(self._check, every))
        good = [i for i, check in enumerate(checks) if isinstance(check, tuple)]
        for path, check in zip(every, checks, strict=True):
            if isinstance(check, FileError):
                self._report(path, check)
        if len(self.broken) > _LINES:
            logger.warning("skipped %d more broken photos: see .broken", len(self.broken) - _LINES)
        self.paths = [every[i] for i in good]
        self.labels = every_label[good]
        self.sizes = np.array([checks[i] for i in good], dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Picture, int]:
        return self.load(index, self.size), int(self.labels[index])

    def load(self, index: int, size: int | None) -> Picture:
        """Picture `index`, its shorter side at most `size`. Raises FileError if broken (BrokenPhoto unless strict)."""
        path = self.paths[index]
        try:
            return read_photo(path, size if self.size is None or size is None else min(size, self.size))
        except FileError as error:
            if self.strict:
                raise
            if path not in (broken.path for broken in self.broken):
                self._report(path, error)
            raise BrokenPhoto(str(error)) from error

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def _check(self, path: Path) -> tuple[int, int] | FileError:
        try:
            return check_photo(path)
        except FileError as error:
            return error

    def _report(self, path: Path, error: FileError) -> None:
        if self.strict:
            raise error
        self.broken.append(Broken(path, str(error).removeprefix(f"{path}: ")))
        if len(self.broken) <= _LINES:
            logger.warning("skipped %s", error)


class ImageFolder(PhotoDataset):
    """Photos of ROOT/<class>/**, classes and files in sorted order.

    classes: take these class folders only, in this order; otherwise every folder that is not hidden.
    size, strict: see PhotoDataset. Hidden files and files that are not named like photos are passed over (`ignored`).
    Raises FileError if ROOT is missing or no folder, has fewer than two class folders, or one has no photo to read.
    """

    def __init__(self, root: str | os.PathLike[str], classes: Sequence[str] | None = None,
                 size: int | None = None, strict: bool = False) -> None:
        self.root = Path(root)
        names = _class_folders(self.root, classes)
        paths: list[Path] = []
        labels: list[int] = []
        self.ignored: list[Path] = []
        for label, name in enumerate(names):
            found = list(_files(self.root / name))
            photos = [path for path in found if path.suffix.lower() in SUFFIXES]
            self.ignored += [path for path in found if path.suffix.lower() not in SUFFIXES]
            if not photos:
                raise FileError(f"{self.root / name}: no photo in this class folder; put photos (.jpg, .png, .webp) "
                                "there or remove the folder")
            paths += photos
            labels += [label] * len(photos)
        super().__init__(paths, np.array(labels), names, size=size, strict=strict)
        for label, name in enumerate(names):
            if label not in self.labels:
                raise FileError(f"{self.root / name}: none of its {labels.count(label)} photos can be read")


def any_photos(root: str | os.PathLike[str], size: int | None = None, strict: bool = False) -> PhotoDataset:
    """The photos of a folder to look at, not to learn from: class folders, even one alone, or photos in no class folder at all.

    The photos of a folder without class folders have the one class "photos". Raises FileError if there is none to read.
    """
    root = Path(root)
    if not os.path.isdir(root):
        what = "a file, not a folder" if os.path.exists(root) else "no such folder"
        raise FileError(f"{root}: {what}; expected a folder of photos")
    found = [path for path in _files(root) if path.suffix.lower() in SUFFIXES]
    if not found:
        raise FileError(f"{root}: no photo in this folder; put photos (.jpg, .png, .webp) there")
    folders = [path.relative_to(root).parts[0] if path.parent != root else "photos" for path in found]
    classes = sorted(set(folders))
    photos = PhotoDataset(found, np.array([classes.index(name) for name in folders]), classes, size=size, strict=strict)
    if not len(photos):
        raise FileError(f"{root}: none of its {len(found)} photos can be read")
    return photos


def _class_folders(root: Path, classes: Sequence[str] | None) -> list[str]:
    wanted = f"expected two or more class folders like {root / 'cat'}, {root / 'notcat'}"
    if not os.path.exists(root):
        raise FileError(f"{root}: no such folder; {wanted}")
    if not os.path.isdir(root):
        raise FileError(f"{root}: a file, not a folder; {wanted}")
    try:
        found = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise FileError(f"{root}: cannot be listed ({error.strerror})") from error
    for name in classes or []:
        if name not in found:
            raise FileError(f"{root}: no class folder {name!r}; there are {', '.join(found) or 'none'}")
    names = found if classes is None else list(classes)
    if len(names) < 2:
        raise FileError(f"{root}: {wanted}, found {f'only {names[0]}' if names else 'none'}")
    return names


def _files(folder: Path) -> list[Path]:
    """Every file below a folder that is not hidden, sorted by its path."""
    files = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(here, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda path: path.as_posix())
