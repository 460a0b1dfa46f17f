"""The atlas of a network: of every layer the units' strongest activations as in figure 2 of Zeiler & Fergus (2014).

A unit has three blocks of k pictures in the same order: the projections of its k strongest activations, the patches of the photos
they were found in, and the control, the same projections through a network with redrawn weights.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.dataset import Dataset, name
from ..data.preprocessing import Preprocessing
from ..errors import ArgumentError
from ..figures import shorten
from ..nn import Layer
from ..nn.receptive_field import ReceptiveField, receptive_field
from . import pictures
from .control import randomised
from .deletion import Areas
from .observe import tells_classes
from .patches import UnitPatches, cut, reduced, unit_patches, window
from .pictures import Picture, Tile, digits
from .scores import rank_correlation, ssim
from .top import TopActivations
from .words import AREAS, BEYOND, WORDS, areas_words, scale, two

_LEGEND = (
    "Each unit: left, projections of its {} strongest activations, one a photo, the strongest first; middle, what the unit saw; "
    "right, the control. Below: values of the first and the last, the ends of the projections' scale, what is on the photos; "
    "like: the structural similarity of projections and control (1: the same). " + AREAS
)
STEPS = 8
"""Of deletion and insertion for each unit's strongest activation."""
_SMALLEST = 24                                                  # pixels that a tile has at least


class PlacedPhoto(NamedTuple):
    """One of a unit's strongest activations: where, and how strong."""

    photo: str
    label: str
    position: tuple[int, ...]
    value: float


class UnitBlocks(NamedTuple):
    """One unit's blocks (H, W, 4), and the figures beside them.

    scale, control_scale: the ends of the projections' grey scales. likeness, ranks: the mean structural similarity and rank
    correlation of projection and control, 1 where they are the same. areas: deletion and insertion of the strongest activation.
    """

    channel: int
    photos: list[PlacedPhoto]
    projections: Picture
    patches: Picture
    control: Picture
    scale: float
    control_scale: float
    likeness: float
    ranks: float
    areas: Areas | None

    @property
    def labels(self) -> list[tuple[str, int]]:
        """How many of the photos have which label, most first."""
        return Counter(photo.label for photo in self.photos).most_common()


@dataclass(frozen=True)
class LayerAtlas:
    """The chosen units of a layer. count: of all its units. silent: those that no photo excites (no value above 0).

    field: what a unit sees; None: everything. size: (H, W) of the input. of_classes: whether nothing comes behind that mixes
    channels, so that they are the classes if there are as many.
    """

    layer: str
    kind: str
    count: int
    field: ReceptiveField | None
    size: tuple[int, int]
    silent: list[int]
    units: list[UnitBlocks]
    of_classes: bool = False

    def name(self, channel: int, classes: Sequence[str]) -> str:
        """The class that a unit is, if this layer's units are the model's classes; otherwise ""."""
        return classes[channel] if self.of_classes and len(classes) == self.count else ""

    @property
    def sees(self) -> str:
        """What a unit sees, in words."""
        if self.field is None:
            return "each unit sees the whole photo"
        size, jump = ("×".join(f"{s:g}" for s in values) for values in (self.field.size, self.field.jump))
        if any(field >= side for field, side in zip(self.field.size, self.size, strict=True)):
            return f"each unit could see {size} pixels, more than the photo has: it is shown whole"
        return f"each unit sees {size} pixels, its neighbour {jump} further"


def layer_atlas(
    model: Layer, dataset: Dataset, top: TopActivations, layer: str, preprocessing: Preprocessing, *, units: int | None = None,
    side: int = 96, control: Layer | None = None, workers: int | None = None, progress: bool = True,
) -> LayerAtlas:
    """The blocks of `units` units (None: all), which are spread evenly over those that some photo excites: nobody chose them.

    top: what top_activations found over `dataset` with preprocessing.transform(). side: the longest edge of a picture in pixels.
    control: the network with redrawn weights; None: randomised(model) by seed 0.
    """
    if units is not None and units < 1:
        raise ArgumentError(f"layer_atlas: expected at least one unit, got {units}")
    found, field = top[layer], receptive_field(model, layer)
    strongest = found.values[:, 0]
    active = np.flatnonzero(strongest > 0) if (strongest > 0).any() else np.arange(len(strongest))
    chosen = range(len(strongest)) if units is None or units >= len(strongest) else _spread(active, units)
    patches = unit_patches(
        model, dataset, top, layer, chosen, transform=preprocessing.transform(), side=side,
        control=randomised(model, np.random.default_rng(0)) if control is None else control, steps=STEPS, workers=workers,
        progress=progress,
    )
    return LayerAtlas(
        layer, type(model.layer(layer)).__name__, len(strongest), field,
        (preprocessing.crop, preprocessing.crop), np.flatnonzero(strongest <= 0).tolist(),
        [_blocks(unit, field, dataset, preprocessing) for unit in patches], tells_classes(model, layer),
    )


def _spread(active: np.ndarray, count: int) -> list[int]:
    """`count` of the numbers, or all if they are fewer, at even distances."""
    if len(active) <= count:
        return active.tolist()
    return active[np.arange(count) * len(active) // count].tolist()


def photo_name(dataset: Dataset, index: int) -> str:
    """What a reader knows a photo by: its folder and file."""
    return "/".join(Path(name(dataset, index)).parts[-2:])


def tile_side(pictures_in_all: int, megabytes: float = 9.0) -> int:
    """The longest edge of a picture in pixels, such that a report with that many stays near a size."""
    return int(min(112, max(40, sqrt(megabytes * 1e6 / max(1, pictures_in_all) / 0.19))))


def layer_sheet(
    atlas: LayerAtlas, path: str | os.PathLike[str], *, units: int = 16, classes: Sequence[str] = (), title: str = "",
    command: str = "",
) -> Path:
    """The paper's figure 2 for one layer: projections, photos and control of at most `units` units, spread evenly over those of
    the atlas. classes: the model's, for a layer whose units they are. Writes a picture file.
    """
    shown = [atlas.units[i] for i in _spread(np.arange(len(atlas.units)), units)]
    columns = 1 if len(shown) < 3 else 2
    tiles = [Tile(_row(unit), caption(unit, atlas.name(unit.channel, classes))) for unit in shown]
    rows: list[list[Tile | None]] = [list(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    aspect = max((tile.picture.shape[0] / tile.picture.shape[1] for tile in tiles), default=0.3)
    count = f"{len(shown)} of {atlas.count} units" if len(shown) < atlas.count else f"{atlas.count} units"
    notes = [
        f"{atlas.layer} ({atlas.kind}), {count}; {atlas.sees}.",
        _LEGEND.format(len(shown[0].photos) if shown else 0), f"{scale('each block of projections')} {BEYOND}", WORDS,
    ]
    return pictures.sheet(
        rows, path, title=title or f"What excites the units of {atlas.layer} most", notes="\n".join(notes), command=command,
        column_names=["projections   ·   photos   ·   control"] * columns, tile=5.4 if columns == 2 else 7.0, aspect=aspect,
    )


def caption(unit: UnitBlocks, name: str = "") -> str:
    """A unit's figures in two lines. name: of the class that it is."""
    values = [photo.value for photo in unit.photos]
    labels = ", ".join(f"{count} {shorten(label, 14)}" for label, count in unit.labels[:3])
    figures = f"{digits(values[0])} … {digits(values[-1])}; ±{digits(unit.scale)}"
    words = "" if unit.areas is None else f" · {areas_words(unit.areas)}"
    name = f", {shorten(name)}" if name else ""
    return f"unit {unit.channel}{name}: {figures}; {labels}\nlike {two(unit.likeness)}{words}"


def _blocks(unit: UnitPatches, field: ReceptiveField | None, dataset: Dataset, preprocessing: Preprocessing) -> UnitBlocks:
    control = unit.controls if unit.controls is not None else np.zeros_like(unit.projections)
    scale, control_scale = pictures.magnitude(unit.projections), pictures.magnitude(control)
    placed = [
        PlacedPhoto(photo_name(dataset, image), dataset.classes[int(dataset.labels[image])], tuple(place), value)
        for image, place, value in zip(unit.images.tolist(), unit.positions.tolist(), unit.values.tolist(), strict=True)
    ]
    photos = [_photo(patch, field, place, preprocessing) for patch, place in zip(unit.patches, unit.positions, strict=True)]
    pairs = list(zip(unit.projections, control, strict=True))
    return UnitBlocks(
        unit.channel, placed, _block([pictures.centred(p, scale=scale) for p in unit.projections]), _block(photos),
        _block([pictures.centred(p, scale=control_scale) for p in control]), scale, control_scale,
        float(np.mean([ssim(*pair) for pair in pairs])), float(np.mean([rank_correlation(*pair) for pair in pairs])), unit.areas,
    )


def _photo(patch: np.ndarray, field: ReceptiveField | None, place: Sequence[int], preprocessing: Preprocessing) -> Picture:
    """A patch as a piece of the photo; mid grey beyond the photo's border."""
    size = (preprocessing.crop, preprocessing.crop)
    inside = reduced(cut(np.ones((1, *size)), window(field, place, size)), max(patch.shape[1:]))[0][..., None]
    shown = inside * pictures.photo(patch, preprocessing.mean, preprocessing.std) + (1 - inside) * pictures.GREY
    return shown.round().astype(np.uint8)


def _block(tiles: Sequence[Picture]) -> Picture:
    return pictures.block([pictures.framed(pictures.enlarged(tile, _SMALLEST)) for tile in tiles], ceil(sqrt(len(tiles))))


def _row(unit: UnitBlocks) -> Picture:
    """The three blocks side by side, with a margin to the next unit's."""
    gap = np.zeros((unit.patches.shape[0], max(6, unit.patches.shape[1] // 24), 4), dtype=np.uint8)
    return np.concatenate([gap, gap, unit.projections, gap, unit.patches, gap, unit.control, gap, gap], axis=1)


__all__ = [
    "LayerAtlas", "PlacedPhoto", "UnitBlocks", "layer_atlas", "layer_sheet", "tile_side",
]
