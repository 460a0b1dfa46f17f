"""What a unit saw, and what its activation is made of: exact receptive-field patches, and projections cut to the same cells."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..backend import Array, array_module
from ..data.dataset import Dataset
from ..data.loader import Transform
from ..data.transforms import ToArray
from ..distributed import Shards
from ..errors import FileError, ShapeError
from ..nn import Layer
from ..nn.receptive_field import ReceptiveField, receptive_field
from .attribution import Attribution
from .deconvnet import deconvnet
from .deletion import Areas, unit_areas
from .observe import beside_model
from .scores import importance
from .strongest import model_input
from .top import LayerTop, TopActivations
from .unit_walks import Found, Photo, UnitWalks, Walk
from .units import check_index

_CHUNK = 32                                                     # photos between two looks at the keyboard


class Window(NamedTuple):
    """Cells of the input: rows top … top + height − 1, columns left … left + width − 1. It may reach beyond the border."""

    top: int
    left: int
    height: int
    width: int


def window(field: ReceptiveField | None, position: Sequence[int], size: Sequence[int]) -> Window:
    """The input cells that the unit at (y, x) of a map can see, of one size for all units of a layer.

    field: of its layer; None: everything. size: (H, W) of the input. Along an axis where the field is as long as the input or
    longer, or where the layer has no positions, it is the whole axis. Fractions of a cell (behind an upsampling) count as cells.
    """
    if len(size) != 2:
        raise ShapeError(f"window: expected the input's size (H, W), got {tuple(size)}")
    if field is None or len(position) != 2:
        return Window(0, 0, size[0], size[1])
    begin, length = [0, 0], [int(s) for s in size]
    for axis in range(2):
        start = field.start[axis] + field.jump[axis] * int(position[axis])
        whole = float(field.jump[axis]).is_integer() and float(field.start[axis]).is_integer()
        cells = math.ceil(field.size[axis]) + (not whole)
        if cells < size[axis]:
            begin[axis], length[axis] = math.floor(start), cells
    return Window(begin[0], begin[1], length[0], length[1])


def cut(x: Array, where: Window) -> Array:
    """The cells (…, height, width) of x (…, H, W); 0 beyond its border, which is what a zero-padded layer sees there."""
    top, left, height, width = where
    out = array_module(x).zeros((*x.shape[:-2], height, width), dtype=x.dtype)
    y0, y1 = max(top, 0), min(top + height, x.shape[-2])
    x0, x1 = max(left, 0), min(left + width, x.shape[-1])
    if y0 < y1 and x0 < x1:
        out[..., y0 - top : y1 - top, x0 - left : x1 - left] = x[..., y0:y1, x0:x1]
    return out


def seen(where: Window, size: Sequence[int]) -> np.ndarray:
    """The window as a mask (H, W) of the input."""
    mask = np.zeros(tuple(size), bool)
    mask[max(where.top, 0) : max(where.top + where.height, 0), max(where.left, 0) : max(where.left + where.width, 0)] = True
    return mask


class UnitPatches(NamedTuple):
    """One unit's k strongest photos, the strongest first, all cut to its receptive field.

    patches: (k, 3, h, w) of the input as the model takes it. projections: (k, 3, h, w), each of that one activation.
    controls: the same through a model with other weights, or None. images, positions, values: as in LayerTop.
    areas: deletion and insertion in the order of the first projection, or None.
    """

    channel: int
    images: np.ndarray
    positions: np.ndarray
    values: np.ndarray
    patches: np.ndarray
    projections: np.ndarray
    controls: np.ndarray | None
    areas: Areas | None


def unit_patches(
    model: Layer, dataset: Dataset, top: TopActivations, layer: str, channels: Sequence[int] | None = None, *,
    transform: Transform | None = None, method: Attribution | None = None, control: Layer | None = None, side: int | None = None,
    steps: int = 0, workers: int | None = None, progress: bool = False,
) -> list[UnitPatches]:
    """The patches and projections of a layer's top activations, unit by unit.

    dataset, transform: those of the search. channels: the units; None: all. method: the way back (None: deconvnet(model)).
    control: a model of the same structure with other weights; its walk begins with the same value at the same place.
    side: reduce what is larger to that many pixels along its longer edge. steps: of deletion and insertion; 0: leave them out.
    workers: threads, which share the photos.
    Every photo is read once, and goes up once (more often for very many units: unit_walks.PICTURE_BYTES). Raises ArgumentError
    for an unknown layer or channel.
    """
    found = top[layer]
    channels = range(len(found.values)) if channels is None else channels
    for channel in channels:
        check_index(channel, len(found.values), f"layer {layer!r}")
    field, transform = receptive_field(model, layer), ToArray() if transform is None else transform
    ways = [deconvnet(model) if method is None else method] + ([] if control is None else [deconvnet(control)])
    tasks: dict[int, list[tuple[int, int]]] = {}                # photo → (channel, rank)
    for channel in channels:
        for rank, image in enumerate(found.images[channel].tolist()):
            tasks.setdefault(image, []).append((channel, rank))
    images = sorted(tasks, key=lambda image: -len(tasks[image]))
    made: dict[tuple[int, int], list[np.ndarray]] = {}          # (channel, rank) → patch, projection, control
    areas: dict[int, Areas] = {}

    def photo(image: int) -> Photo:
        x = model_input(ways[0].model, dataset, image, transform)
        if x is None:
            raise FileError(f"photo {image} was readable when the top activations were found, and is broken now")
        walks = [unit_walk(channel, found.positions[channel, rank].tolist(), field, x) for channel, rank in tasks[image]]
        return Photo(image, x, walks)

    def finish(given: Found) -> None:
        channel, rank = tasks[given.photo.name][given.walk]
        x, unit, pictures = given.photo.x, given.photo.walks[given.walk].unit, given.pictures
        where = window(field, unit[1:], x.shape[2:])
        inside = where._replace(top=where.top - given.rows.start, left=where.left - given.columns.start)
        made[channel, rank] = [reduced(tile, side) for tile in (cut(x[0], where), *(cut(p, inside) for p in pictures))]
        if steps and rank == 0:
            whole = np.zeros_like(x)
            whole[0, :, given.rows, given.columns] = pictures[0]
            areas[channel] = _areas(model, layer, steps, unit, x, whole, seen(where, x.shape[2:]))

    from tqdm import tqdm

    def chunks() -> Iterator[list[Photo]]:
        for begin in range(0, len(images), _CHUNK):
            yield shards.each(photo, images[begin : begin + _CHUNK])

    bar = tqdm(total=len(images), unit="photo", desc=f"projections of {layer}", leave=False,
               disable=not (progress and sys.stderr.isatty()))
    with bar, Shards(workers) as shards:
        for number, _ in enumerate(UnitWalks(ways, layer).run(chunks(), shards, finish)):
            bar.update(min(_CHUNK, len(images) - number * _CHUNK))
    return [_gather(channel, found, made, areas.get(channel)) for channel in channels]


def unit_walk(channel: int, position: list[int], field: ReceptiveField | None, x: np.ndarray) -> Walk:
    """The walk from a unit of a photo x (1, C, H, W)."""
    top, left, height, width = window(field, position, x.shape[2:])
    rows, columns = (
        slice(min(max(begin, 0), size), min(max(begin + count, 0), size))
        for begin, count, size in zip((top, left), (height, width), x.shape[2:], strict=True)
    )
    return Walk((int(channel), *position), rows, columns)


def _areas(
    model: Layer, layer: str, steps: int, unit: tuple[int, ...], x: np.ndarray, picture: np.ndarray, within: np.ndarray
) -> Areas:
    """Deletion and insertion in the order of the unit's picture of the photo x, both (1, C, H, W)."""
    x, map = (beside_model(model, array) for array in (x, importance(picture, signed=False)))
    return unit_areas(model, x, map, layer, unit, within, steps, workers=1)


def reduced(x: np.ndarray, side: int | None) -> np.ndarray:
    """x (3, H, W), its longer edge reduced to `side` pixels by averaging; as it is if it is not longer."""
    height, width = x.shape[1:]
    if side is None or max(height, width) <= side:
        return x
    share = side / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    planes = [Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32)).resize(size, Image.Resampling.BOX) for plane in x]
    return np.stack([np.asarray(plane) for plane in planes])


def _gather(
    channel: int, found: LayerTop, made: dict[tuple[int, int], list[np.ndarray]], areas: Areas | None
) -> UnitPatches:
    columns = list(zip(*(made[channel, rank] for rank in range(found.images.shape[1])), strict=True))
    parts = [np.stack(column) for column in columns]
    return UnitPatches(
        int(channel), found.images[channel], found.positions[channel], found.values[channel], parts[0], parts[1],
        parts[2] if len(parts) > 2 else None, areas,
    )


__all__ = ["UnitPatches", "Window", "cut", "reduced", "seen", "unit_patches", "unit_walk", "window"]
