"""How what a network sees is shown: the same conventions in every picture.

A projection has signs, and zero means "nothing": it is shown zero-centred, mid grey for 0, scaled by a stated percentile of its
magnitude. (Stretching from smallest to largest would move zero and paint structure where there is none.) Maps of one sign are
shown in cividis, maps with a sign in a purple-white-orange scale; both can be read by colour-blind readers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..backend import Array, to_host
from ..errors import ShapeError
from ..figures import new_figure, notes_below, save_figure, shorten, wrapped

Picture = npt.NDArray[np.uint8]                                # (H, W, 3)
PERCENTILE = 99.0
"""Magnitudes up to this percentile are within the scale; what is beyond is shown as the darkest or brightest."""


def centred(projection: Array, percentile: float = PERCENTILE, scale: float | None = None) -> Picture:
    """A projection (3, H, W) as colours: 0 is mid grey; ±scale, by default the percentile of its magnitude, are the ends."""
    values = _host(projection, 3)
    scale = magnitude(values, percentile) if scale is None else scale
    shown = 0.5 + 0.5 * values / scale if scale > 0 else np.full_like(values, 0.5)
    return (255 * np.clip(shown, 0, 1)).round().astype(np.uint8).transpose(1, 2, 0)


def magnitude(values: Array, percentile: float = PERCENTILE) -> float:
    """What a zero-centred scale ends at: the percentile of |v|, or the largest where nearly all are 0."""
    sizes = np.abs(to_host(values))
    return float(np.percentile(sizes, percentile)) or float(sizes.max())


def photo(x: Array, mean: Sequence[float] = (0.0, 0.0, 0.0), std: Sequence[float] = (1.0, 1.0, 1.0)) -> Picture:
    """A normalised input (3, H, W) as the photo that it was: x · std + mean, on the scale 0 … 1."""
    values = _host(x, 3) * np.reshape(std, (-1, 1, 1)) + np.reshape(mean, (-1, 1, 1))
    return (255 * np.clip(values, 0, 1)).round().astype(np.uint8).transpose(1, 2, 0)


def heat(values: Array, low: float | None = None, high: float | None = None) -> Picture:
    """A map (H, W) of one sign in cividis, from `low` (its smallest value) to `high` (its largest)."""
    from matplotlib import colormaps

    values = _host(values, 2)
    low, high = float(values.min()) if low is None else low, float(values.max()) if high is None else high
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return (255 * colormaps["cividis"](np.clip(share, 0, 1))[..., :3]).round().astype(np.uint8)


def signed(values: Array, percentile: float = PERCENTILE) -> Picture:
    """A map (H, W) with a sign: purple is negative, white 0, orange positive, scaled by the percentile of its magnitude."""
    from matplotlib import colormaps

    values = _host(values, 2)
    scale = magnitude(values, percentile)
    share = 0.5 + 0.5 * values / scale if scale > 0 else np.full_like(values, 0.5)
    return (255 * colormaps["PuOr_r"](np.clip(share, 0, 1))[..., :3]).round().astype(np.uint8)


def overlay(picture: Picture, values: Array, strength: float = 0.55) -> Picture:
    """A map (H, W), at least 0, laid over a photo of its size: the photo in grey, the map in colour where it is strong."""
    grey = picture.mean(axis=2, keepdims=True)
    values = np.clip(_host(values, 2), 0, None)
    share = strength * (values / values.max() if values.max() > 0 else values)[..., None]
    return ((1 - share) * grey + share * heat(values)).round().astype(np.uint8)


def enlarged(picture: Picture, least: int) -> Picture:
    """Every pixel as a square of equal pixels, so many that the longer edge has at least `least`; larger ones as they are."""
    times = -(-least // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def block(pictures: Sequence[Picture], columns: int = 3, gap: int = 2) -> Picture:
    """Pictures of one size (h, w, 3) as a block, row by row, with clear lines of `gap` pixels between: (H, W, 4), RGBA."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    whole = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=np.uint8)
    for number, picture in enumerate(pictures):
        y, x = number // columns * (height + gap), number % columns * (width + gap)
        whole[y : y + height, x : x + width, :3] = picture
        whole[y : y + height, x : x + width, 3] = 255
    return whole


class Tile(NamedTuple):
    """A picture of a sheet, and the line or lines below it."""

    picture: Picture
    caption: str = ""


def sheet(
    rows: Sequence[Sequence[Tile | None]], path: str | os.PathLike[str], *, title: str = "", notes: str = "", command: str = "",
    row_names: Sequence[str] = (), column_names: Sequence[str] = (), tile: float = 1.5, aspect: float = 1.0,
) -> Path:
    """A grid of pictures with captions as one picture file. None leaves a place empty.

    title: above. notes: below, a paragraph a line: units, what the picture is and is not; then the command that made it. tile:
    the width of a picture in inches. aspect: the height of a picture for a width of 1.
    """
    columns = max((len(row) for row in rows), default=1)
    left = 1.1 if row_names else 0.0
    width = max(columns * (tile + 0.12) + left, 5.0)
    lines = wrapped(notes, command, width).count("\n") + 1 if notes or command else 0
    below = max((cell.caption.count("\n") + 1 for row in rows for cell in row if cell is not None and cell.caption), default=0)
    height = len(rows) * (tile * aspect + 0.1 + 0.2 * bool(below) + 0.13 * max(0, below - 1)) + 0.1
    height += 0.35 * bool(title) + 0.3 * bool(column_names) + 0.19 * lines
    figure = new_figure(width, height)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for r, row in enumerate(rows):
        for c in range(columns):
            axes = grid[r, c]
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_visible(False)
            cell = row[c] if c < len(row) else None
            if cell is not None:
                axes.imshow(cell.picture, interpolation="nearest" if max(cell.picture.shape[:2]) < 100 else "antialiased")
                if cell.caption:
                    axes.set_xlabel(cell.caption, size=7.5, labelpad=2, parse_math=False)
            if c == 0 and r < len(row_names):
                axes.set_ylabel(shorten(row_names[r], 28), size=9, rotation=0, ha="right", va="center", parse_math=False)
            if r == 0 and c < len(column_names):
                axes.set_title(column_names[c], size=9, parse_math=False)
    if title:
        figure.suptitle(title, size=11, weight="bold", parse_math=False)
    notes_below(figure, notes, command)
    return save_figure(figure, path)


def _host(values: Array, axes: int) -> np.ndarray:
    values = np.asarray(to_host(values), dtype=np.float64)
    if values.ndim == axes == 3 and len(values) == 1:           # grey, shown as it is
        values = values.repeat(3, axis=0)
    if values.ndim != axes or (axes == 3 and len(values) != 3):
        raise ShapeError(f"expected a picture of shape {'(3, H, W)' if axes == 3 else '(H, W)'}, got {values.shape}")
    return values


__all__ = [
    "PERCENTILE", "Picture", "Tile", "block", "centred", "enlarged", "heat", "magnitude", "overlay", "photo", "sheet", "signed",
]
