"""The part of a photo that a unit sees, and the part of a record that a walk back from it needs.

In VGG11 a unit behind the third convolution sees 18×18 cells of 224×224. A walk back from it is 0 everywhere else, in each map;
so it may go over a record that is cut to what can be reached, and gives the same but for the order of sums. The part begins at a
multiple of all strides, and what it is shorter than the photo is one, too: each map of the part is a piece of that of the photo,
and no stride, rest or padding comes out differently. What the padding holds at a new border the unit does not see: otherwise it
would see the pixels beyond, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, lcm
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..backend import Array, array_module
from ..functional._check import integers
from ..functional.max_pool import Switches
from ..nn import Layer
from ..nn.containers import Container
from ..nn.layer import Saved
from ..nn.norm import _BatchNorm
from ..nn.receptive_field import receptive_fields
from ..nn.split import below, routes_plainly

_LOCAL = {
    nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Identity,
    nn.Dropout, nn.LocalResponseNorm, nn.BatchNorm2d, nn.Upsample, nn.Pad,
}
"""Layers whose cells each depend on a window of the maps below. Of another, a subclass among them, nothing is supposed."""
_EACH_IMAGE = {
    *_LOCAL, nn.Linear, nn.Flatten, nn.AdaptiveAvgPool2d, nn.GroupLogSumExp, nn.BatchNorm1d,
}
"""Layers that compute one image of a batch as if it were alone."""


class Grid(NamedTuple):
    """How the maps up to a layer lie over the photo, (rows, columns) each."""

    step: tuple[int, int]
    """A shift of the photo by so many cells shifts each map by whole cells."""
    jump: tuple[int, int]
    """Cells of the photo between two neighbours in the layer's own map."""
    field: tuple[int, int]
    """Cells that one unit of the layer sees."""


class Part(NamedTuple):
    """Rows and columns of a photo, and where in the map of this part the unit is."""

    rows: slice
    columns: slice
    position: tuple[int, ...]


def grid(model: Layer, layer: str) -> Grid | None:
    """Of the layer at that path; None where no part does: its units see everything, or more than their windows, or the maps lie
    between the cells of one another.
    """
    lower = below(model, layer)
    if not _consists_of(lower, _LOCAL, local=True):
        return None
    fields = {path: field for path, _, field in receptive_fields(lower)}
    if layer not in fields or any(field is None for field in fields.values()):
        return None
    known = [field for field in fields.values() if field is not None]
    if any(not float(jump).is_integer() for field in known for jump in field.jump):
        return None
    own = fields[layer]
    assert own is not None
    rows, columns = (lcm(*(int(field.jump[axis]) for field in known)) for axis in range(2))
    # Behind an upsampling the ends may be fractions of a cell.
    seen = [ceil(own.size[axis]) + (not float(own.start[axis]).is_integer()) for axis in range(2)]
    return Grid((rows, columns), (int(own.jump[0]), int(own.jump[1])), (seen[0], seen[1]))


def part(
    grid: Grid | None, rows: slice, columns: slice, position: Sequence[int], size: Sequence[int], least: Sequence[int] = (0, 0)
) -> Part:
    """The part that holds what a unit at `position` sees, these rows and columns of a photo of `size`. grid None: all of it.

    least: cells that it has at least, such as what `length` gives, so that the parts of all units of a layer have one size.
    """
    if grid is None:
        return Part(slice(0, size[0]), slice(0, size[1]), tuple(position))
    cells, place = [], []
    for axis, (seen, step) in enumerate(zip((rows, columns), grid.step, strict=True)):
        begin = seen.start // step * step
        end = size[axis] - (size[axis] - seen.stop) // step * step
        count = max(end - begin, least[axis])
        begin = min(begin, size[axis] - count)
        cells.append(slice(begin, begin + count))
        place.append(int(position[axis]) - begin // grid.jump[axis])
    return Part(cells[0], cells[1], tuple(place))


def length(grid: Grid, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a part that do for every unit of the layer in a photo of that size."""
    counts = []
    for field, step, cells in zip(grid.field, grid.step, size, strict=True):
        missing = cells - (field + step - 1)                    # wherever between two steps the field begins
        counts.append(cells - max(missing, 0) // step * step)
    return counts[0], counts[1]


def each_image_alone(model: Layer) -> bool:
    """Whether no image of a batch has a part in what is computed of another, on either way."""
    return _consists_of(model, _EACH_IMAGE, local=False)


def _consists_of(model: Layer, kinds: set[type], local: bool) -> bool:
    return all(
        routes_plainly(layer) if isinstance(layer, Container)
        else type(layer) in kinds and _plain(layer, local)
        for _, layer in model.layers()
    )


def _plain(layer: Layer, local: bool) -> bool:
    if isinstance(layer, _BatchNorm):
        return layer.fixed
    if local and isinstance(layer, nn.Upsample):                # made smaller, a cell needs those beyond what it is made of
        factors = layer.scale_factor if isinstance(layer.scale_factor, (tuple, list)) else (layer.scale_factor,)
        return all(factor is not None and factor >= 1 for factor in factors)
    if local and isinstance(layer, nn.ConvTranspose2d):         # padding that cuts cells off which more inputs bring back
        names = ("padding", "output_padding", "kernel_size", "dilation", "stride")
        given = (integers("part", name, getattr(layer, name), 2, 0) for name in names)
        return all(pad <= d * (k - 1) + more - (s - 1) for pad, more, k, d, s in zip(*given, strict=True))
    if isinstance(layer, nn.Pad):                               # a mirrored border is made of cells that no window holds
        return len(layer.pad) <= 4 and (not local or (layer.mode == "constant" and min(layer.pad, default=0) >= 0))
    return not isinstance(layer, nn.Flatten) or layer.start_dim > 0


# A record, cut.


class Places(NamedTuple):
    """Pieces of one size of a batch of photos: image and first cell of each on the host, and there where the record is."""

    images: np.ndarray
    """(T,)."""
    begins: np.ndarray
    """(T, 2): row and column."""
    there: tuple[Array, Array]
    """Both once more."""


def pieces(saved: Saved, empty: Saved, places: Places, size: Sequence[int], piece: Sequence[int]) -> Saved:
    """The record of the T pieces, each as a photo of its own, from that of the photos they are of.

    Of layers that compute each image alone, and, where the pieces are not the photos themselves, each cell from a window. empty:
    the record of no photos of the pieces' size. size, piece: (H, W) of a photo and of a piece. Of one photo that is needed whole
    nothing is copied.
    """
    if isinstance(saved, dict):
        return {name: pieces(kept, empty[name], places, size, piece) for name, kept in saved.items()}
    changed: dict[str, Any] = {}
    for name in getattr(saved, "_fields", ()):
        kept, none = getattr(saved, name), getattr(empty, name)
        if name in ("input", "output"):
            changed[name] = _cut(kept, none.shape[2:], places, size, piece)
        elif name == "size":                                    # of the input
            changed[name] = (len(places.images), *none[1:])
        elif name == "children":
            changed[name] = pieces(kept, none, places, size, piece)
        elif name == "switches":
            changed[name] = _cut_switches(kept, none, places, size, piece)
    return saved._replace(**changed) if changed else saved


def _cut(maps: Array, shape: Sequence[int], places: Places, size: Sequence[int], piece: Sequence[int]) -> Array:
    """(T, C, *shape) of the maps (N, C, …)."""
    xp, count = array_module(maps), len(places.images)
    if tuple(maps.shape[2:]) == tuple(shape):
        one = len(maps) == 1
        return xp.broadcast_to(maps, (count, *maps.shape[1:])) if one else maps[places.there[0]]
    begins = _begins(places.begins, maps.shape[2:], shape, size, piece)
    h, w = shape
    if xp is np:
        return np.stack([maps[i, :, y : y + h, x : x + w] for i, (y, x) in zip(places.images, begins, strict=True)])
    images, begins = places.there[0], _begins(places.there[1], maps.shape[2:], shape, size, piece)
    rows, columns = begins[:, 0, None] + xp.arange(h), begins[:, 1, None] + xp.arange(w)
    channels = xp.arange(maps.shape[1])[:, None, None]
    return maps[images[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]]


def _begins(begins: Array, maps: Sequence[int], shape: Sequence[int], size: Sequence[int], piece: Sequence[int]) -> Array:
    """(T, 2): the first cells of pieces of a map. It and its piece differ by as many jumps as the photo and its piece."""
    xp = array_module(begins)
    return xp.stack([
        begins[:, axis] * (maps[axis] - shape[axis]) // max(size[axis] - piece[axis], 1) for axis in range(2)
    ], axis=1)


def _cut_switches(switches: Switches, empty: Switches, places: Places, size: Sequence[int], piece: Sequence[int]) -> Switches:
    shape, old, new = empty.kept.shape[2:], switches.geometry.size, empty.geometry.size
    if tuple(old) == tuple(new):
        return switches._replace(kept=_cut(switches.kept, shape, places, size, piece))
    cells = _cut(switches.indices, shape, places, size, piece)
    xp = array_module(cells)
    begins = _begins(places.there[1], old, new, size, piece)[:, :, None, None, None]
    # Windows at a new border may point beyond it. No signal comes to them; in their piece they must point into it.
    row = xp.clip(cells // old[1] - begins[:, 0], 0, new[0] - 1)
    column = xp.clip(cells % old[1] - begins[:, 1], 0, new[1] - 1)
    return empty.pointing(row * new[1] + column)


__all__ = ["Grid", "Part", "Places", "each_image_alone", "grid", "length", "part", "pieces"]
