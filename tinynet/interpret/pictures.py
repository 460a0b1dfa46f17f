"""How what a network sees is shown: the same conventions in every picture.

A projection has signs, and zero means "nothing": it is shown zero-centred, mid grey for 0, scaled by a stated percentile of its
magnitude. (Stretching from smallest to largest would move zero and paint structure where there is none.) Maps of one sign are
shown in cividis, maps with a sign in a purple-white-orange scale; both can be read by colour-blind readers.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..backend import Array, to_host
from ..errors import ShapeError
from ..figures import new_figure, save_figure, wrapped

Picture = npt.NDArray[np.uint8]                                # (H, W, 3)
GREY = 128
"""Of each colour: 0 in a projection, and in a photo what lies beyond its border."""
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


def framed(picture: Picture) -> Picture:
    """With a line of light grey around it, which tells a white picture from a white page."""
    return np.pad(picture, ((1, 1), (1, 1), (0, 0)), constant_values=190)


def digits(value: float) -> str:
    """Three significant digits, thousands in full."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


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
    names = [broken(name) for name in row_names]
    left = max((_inches(line, 9) for name in names for line in name.split("\n")), default=0.0) + 0.15 * bool(names)
    width = max(max((len(row) for row in rows), default=1) * (tile + _GAP) + left + _GAP / 2, 5.0)
    title = textwrap.fill(title, int(width / _inches("n", 11)))
    text = wrapped(notes, command, width)
    below = [max((_height(cell.caption, 7.5) for cell in row if cell is not None), default=0.0) for row in rows]
    tops, y = [], 0.08 + _height(title, 11) + max((_height(name, 9) for name in column_names), default=0.0)
    for under in below:
        tops.append(y)
        y += tile * aspect + under + _GAP
    # One system of coordinates for all, inches from the upper left corner: axes for each picture would take most of the time.
    figure = new_figure(width, y + _height(text, 7.5), arranged=False)
    figure.suppressComposite = True                             # in a PDF or SVG every picture keeps its own pixels
    axes = figure.add_axes((0, 0, 1, 1), frame_on=False, xticks=[], yticks=[])
    axes.set(xlim=(0, width), ylim=(y + _height(text, 7.5), 0), autoscale_on=False)

    def say(x: float, y: float, words: str, **how: Any) -> None:
        axes.text(x, y, words, **{"ha": "center", "va": "top", "parse_math": False, **how})

    for row, top in zip(rows, tops, strict=True):
        for column, cell in enumerate(row):
            if cell is not None:
                x, y = left + _GAP / 2 + column * (tile + _GAP), top
                h, w = (size * min(tile / cell.picture.shape[1], tile * aspect / cell.picture.shape[0])
                        for size in cell.picture.shape[:2])
                begin, high = x + (tile - w) / 2, top + (tile * aspect - h) / 2
                small = max(cell.picture.shape[:2]) < 100
                axes.imshow(cell.picture, extent=(begin, begin + w, high + h, high), aspect="auto",
                            interpolation="nearest" if small else "antialiased")
                say(x + tile / 2, top + tile * aspect + 0.03, cell.caption, size=7.5)
    for name, top in zip(names, tops, strict=False):
        say(left, top + tile * aspect / 2, name, ha="right", va="center", size=9)
    for column, name in enumerate(column_names):
        say(left + _GAP / 2 + column * (tile + _GAP) + tile / 2, tops[0] - 0.05 if tops else 0.0, name, va="bottom", size=9)
    say(width / 2, 0.07, title, size=11, weight="bold")
    say(0.08, figure.get_figheight() - 0.05, text, size=7.5, color="0.3", ha="left", va="bottom")
    return save_figure(figure, path)


_GAP = 0.12                                                     # between two pictures, inches


def _inches(line: str, points: float) -> float:
    """How wide a line of text is."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(line, FontProperties(size=points), ismath=False)[0] / 72


def _height(words: str, points: float) -> float:
    """How high lines of text are, with a little room."""
    return (words.count("\n") + 1) * 1.2 * points / 72 + 0.08 if words else 0.0


def broken(name: str, most: int = 16) -> str:
    """A name whole, in lines of at most `most` characters where it has dots, underscores or blanks to break at."""
    lines = [""]
    for part in re.findall(r"[^._ \n]*(?:[._ \n]|$)", name):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > most:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip(" ") for line in "".join(f"{line}\n" for line in lines).split("\n") if line)


def _host(values: Array, axes: int) -> np.ndarray:
    values = np.asarray(to_host(values), dtype=np.float64)
    if values.ndim == axes == 3 and len(values) == 1:           # grey, shown as it is
        values = values.repeat(3, axis=0)
    if values.ndim != axes or (axes == 3 and len(values) != 3):
        raise ShapeError(f"expected a picture of shape {'(3, H, W)' if axes == 3 else '(H, W)'}, got {values.shape}")
    return values


__all__ = [
    "GREY", "PERCENTILE", "Picture", "Tile", "block", "broken", "centred", "digits", "enlarged", "framed", "heat", "magnitude",
    "overlay", "photo", "sheet", "signed",
]
