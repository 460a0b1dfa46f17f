"""`tinynet explain`: for each photo two sheets, and one file with all figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data import read_photo
from ..data.preprocessing import Preprocessing
from ..data.transforms import CenterCrop, Resize
from ..errors import ArgumentError, FileError, nearest
from ..files import make_folder, write_text
from ..models import TrainedModel
from .control import controls_of
from .explain import explain
from .explain_sheets import class_sheet, figures_table, says, unit_sheet
from .observe import beside_model
from .scores import box_mask


class Explained(NamedTuple):
    """files: what was written. failed: a line for each photo that could not be read. left_out, warning: see Explanation."""

    files: list[Path]
    failed: list[str]
    left_out: list[str]
    warning: str | None


def explain_photos(
    trained: TrainedModel, photos: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str], *,
    layers: Sequence[str] | None = None, units: int = 3, target: str | None = None, mask: str | os.PathLike[str] | None = None,
    box: Sequence[int] | None = None, command: str = "", say: Callable[[str], None] = print,
) -> Explained:
    """Explain photos of any size, turned into the model's input as in training: NAME-units.png, NAME-class.png, figures.json.

    target: the name of a class (default: what the model says of each photo). mask: a picture of the photo's size, not black where
    the object is, or a folder with one for each photo, of its name but for the ending. box: instead, for one photo, the object's
    (top, left, bottom, right) in its pixels, the last two excluded. say: is told each photo's figures.
    A photo that cannot be read is left out. Raises ArgumentError or FileError for layers, a class or masks that are not there.
    """
    chosen = None if target is None else _class(target, trained.classes)
    if box is not None and (mask is not None or len(photos) > 1):
        raise ArgumentError("a box is for one photo, and stands instead of a mask")
    masks = _masks(mask, photos)
    controls = controls_of(trained.model)
    folder = make_folder(output)
    files: list[Path] = []
    failed: list[str] = []
    figures: dict[str, Any] = {"classes": trained.classes, "command": command, "photos": {}}
    left_out: list[str] = []
    warning = None
    for path, name in zip(map(Path, photos), _names(photos), strict=True):
        try:
            picture = read_photo(path)
        except FileError as error:
            failed.append(str(error))
            continue
        x = beside_model(trained.model, trained.preprocessing.transform()(picture, np.random.default_rng(0)))
        truth = None if masks is None else read_mask(masks[path], picture.shape[:2], trained.preprocessing)
        if box is not None:
            truth = _as_seen(box_mask(picture.shape[0], picture.shape[1], box), trained.preprocessing, f"box {tuple(box)}")
        found = explain(trained.model, x, chosen, layers=layers, units=units, mask=truth, controls=controls)
        trained.check_outputs(len(found.probabilities))
        left_out, warning = found.left_out, found.warning       # of the model, whatever the photo
        how: dict[str, Any] = {"classes": trained.classes, "command": command}
        if found.units:
            files.append(unit_sheet(found, folder / f"{name}-units.png", trained.preprocessing, **how))
        files.append(class_sheet(found, folder / f"{name}-class.png", trained.preprocessing, **how))
        figures["photos"][name] = {"photo": path.name, "class_name": trained.classes[found.target], **found.to_dict()}
        write_text(folder / "figures.json", json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
        say(f"{path}: {says(found, trained.classes)}\n{figures_table(found)}")
    if figures["photos"]:
        files.append(folder / "figures.json")
    return Explained(files, failed, left_out, warning)


def read_mask(path: str | os.PathLike[str], size: Sequence[int], preprocessing: Preprocessing) -> np.ndarray:
    """A mask file for a photo of size (H, W), as the model sees it: (crop, crop), true where it is not black.

    Raises FileError if it is of another size, or marks nothing that the model sees.
    """
    marked = np.asarray(read_photo(path).max(axis=2) > 0)
    if marked.shape != tuple(size):
        height, width = marked.shape
        raise FileError(f"{path}: expected a mask of the photo's {size[1]}×{size[0]} pixels, got {width}×{height}")
    return _as_seen(marked, preprocessing, path)


def _as_seen(marked: np.ndarray, preprocessing: Preprocessing, what: Any) -> np.ndarray:
    """A mask (H, W) of a photo as the model sees it: (crop, crop)."""
    white = np.repeat(marked[..., None], 3, axis=2).astype(np.uint8) * 255
    mask = np.asarray(CenterCrop(preprocessing.crop)(Resize(preprocessing.resize)(white)))[..., 0] >= 128
    if not mask.any():
        raise FileError(f"{what}: marks nothing in the middle of the photo, which is what the model sees")
    return mask


def _masks(mask: str | os.PathLike[str] | None, photos: Sequence[Any]) -> dict[Path, Path] | None:
    """photo → its mask."""
    if mask is None:
        return None
    if not Path(mask).is_dir():
        if len(photos) > 1:
            raise ArgumentError(f"{mask}: one mask for {len(photos)} photos; expected a folder with masks of the photos' names")
        return {Path(photos[0]): Path(mask)}
    there = {path.stem: path for path in sorted(Path(mask).iterdir()) if path.is_file()}
    found: dict[Path, Path] = {}
    for photo in map(Path, photos):
        stem = next((s for s in (photo.stem, f"{photo.stem}_mask") if s in there), None)
        if stem is None:
            raise FileError(f"{mask}: no mask for {photo.name}; nearest: {nearest(photo.stem, there) or 'none, it is empty'}")
        found[photo] = there[stem]
    return found


def _class(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise ArgumentError(f"the model has no class {name!r}; nearest: {nearest(name, classes)}")
    return list(classes).index(name)


def _names(photos: Sequence[Any]) -> list[str]:
    """A name for each photo's sheets: its own without the ending, with a number where two are the same."""
    stems = [Path(photo).stem for photo in photos]
    return [stem if stems.count(stem) == 1 else f"{stem}-{stems[: i + 1].count(stem)}" for i, stem in enumerate(stems)]


__all__ = ["Explained", "explain_photos", "read_mask"]
