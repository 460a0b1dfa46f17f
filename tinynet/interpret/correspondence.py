"""Whether a network relates the same part in different photos (Zeiler & Fergus 2014, section 4.3, tables 1 and 2).

The same part is covered in every photo (the left eye, say). ε_i = x_i − x̃_i is how the features of photo i change. If the
network knew of the part, the changes would be alike: Δ, the mean over pairs of photos of the share of features in which the
signs of ε_i and ε_j differ, would be smaller than for random parts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..backend import Array, array_module, to_host
from ..distributed import Shards
from ..errors import ArgumentError, ShapeError
from ..figures import new_figure, notes_below, save_figure, shorten
from ..nn import Layer
from .observe import beside_model, features, last_stage, observe
from .panels import COLOURS

RANDOM = "random"


class Row(NamedTuple):
    """Δ of one part at one layer (a share, 0 to 1), and its standard error over photos."""

    layer: str
    part: str
    delta: float
    error: float


@dataclass(frozen=True)
class Correspondence:
    """One row for each layer and part. photos: how many. draws: random boxes a photo. boxes: part → (N, 4), as covered."""

    rows: tuple[Row, ...]
    photos: int
    draws: int
    boxes: dict[str, np.ndarray]

    def row(self, layer: str, part: str) -> Row:
        for row in self.rows:
            if (row.layer, row.part) == (layer, part):
                return row
        raise ArgumentError(f"no row for {layer!r}, {part!r}")

    def table(self) -> str:
        """Parts down, layers across: Δ ± standard error."""
        layers = list(dict.fromkeys(row.layer for row in self.rows))
        parts = list(dict.fromkeys(row.part for row in self.rows))
        wide = max(len("part"), *(len(part) for part in parts))
        head = f"{'part':<{wide}}  " + "  ".join(f"{layer:>15}" for layer in layers)
        lines = [head]
        for part in parts:
            cells = (self.row(layer, part) for layer in layers)
            lines.append(f"{part:<{wide}}  " + "  ".join(f"{cell.delta:.3f} ± {cell.error:.3f}".rjust(15) for cell in cells))
        return "\n".join(lines)


def hamming(signs: np.ndarray) -> tuple[float, float]:
    """Δ of signs (N, D): the mean over pairs of the share of features in which they differ, and its standard error.

    The error is the jackknife's over photos: pairs share photos, so that the usual one over pairs would be too small. It is
    nan for two photos.
    """
    count = len(signs)
    if count < 2:
        raise ArgumentError(f"correspondence: expected at least two photos, got {count}")
    differ = np.array([[np.mean(a != b) for b in signs] for a in signs])
    total = differ.sum()
    delta = total / (count * (count - 1))
    if count == 2:
        return float(delta), float("nan")
    without = (total - 2 * differ.sum(axis=1)) / ((count - 1) * (count - 2))
    return float(delta), float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))


def correspondence(
    model: Layer, x: Array, parts: Mapping[str, npt.ArrayLike], layers: Sequence[str] | None = None, *, draws: int = 10,
    fill: float = 0.0, seed: int = 0, workers: int | None = None,
) -> Correspondence:
    """Cover each part in all photos, and random boxes of the same sizes, and compare the changes.

    x: (N, C, H, W), the paper takes five. parts: name → boxes (N, 4): top, left, height, width in each photo, pixels.
    layers: None, the last convolution's maps and the features that are classified. fill: what covers, in the units of x.
    draws: random boxes a photo; their Δ is the mean over draws, its error that over photos too. seed: of the random boxes.
    """
    if x.ndim != 4:
        raise ShapeError(f"correspondence: expected photos (N, C, H, W), got {tuple(x.shape)}")
    if len(x) < 2:
        raise ArgumentError(f"correspondence: expected at least two photos, got {len(x)}")
    if not parts or RANDOM in parts:
        raise ArgumentError(f"correspondence: expected parts, none of them named {RANDOM!r}")
    size = x.shape[2:]
    boxes = {name: _checked(name, given, len(x), size) for name, given in parts.items()}
    layers = list(dict.fromkeys([last_stage(model), features(model)])) if layers is None else list(layers)
    rng = np.random.default_rng(seed)
    x = beside_model(model, x)
    rows = []
    with Shards(workers) as shards:
        plain = observe(model, x, layers, shards).layers

        def signs(where: np.ndarray) -> dict[str, np.ndarray]:
            """layer → (N, D) of −1, 0, 1: how the features change when each photo's box is covered."""
            covered = x.copy()
            for i, (top, left, height, width) in enumerate(where.tolist()):
                covered[i, :, top : top + height, left : left + width] = fill
            seen = observe(model, covered, layers, shards).layers
            xp = array_module(x)
            return {name: to_host(xp.sign(plain[name] - y).reshape(len(x), -1)).astype(np.int8) for name, y in seen.items()}

        for name, where in boxes.items():
            found = signs(where)
            rows += [Row(layer, name, *hamming(found[layer])) for layer in layers]
        if draws:
            drawn = [signs(_random(boxes, size, rng)) for _ in range(draws)]
            for layer in layers:
                # Draws side by side: the mean over them, photo against photo, and one jackknife over the photos.
                rows.append(Row(layer, RANDOM, *hamming(np.concatenate([found[layer] for found in drawn], axis=1))))
    return Correspondence(tuple(rows), len(x), draws, boxes)


def plot_correspondence(result: Correspondence, path: str | os.PathLike[str], *, command: str = "") -> Path:
    """Δ of each part at each layer, with standard errors; lower: the network relates the part. Writes a picture file."""
    layers = list(dict.fromkeys(row.layer for row in result.rows))
    parts = list(dict.fromkeys(row.part for row in result.rows))
    width = 1.8 + 0.62 * len(parts) * len(layers)
    figure = new_figure(max(width, 6.0), 3.6)
    axes = figure.add_subplot()
    for p, part in enumerate(parts):
        cells = [result.row(layer, part) for layer in layers]
        places = np.arange(len(layers)) + (p - (len(parts) - 1) / 2) * 0.8 / len(parts)
        axes.bar(
            places, [cell.delta for cell in cells], 0.74 / len(parts), yerr=[cell.error for cell in cells], capsize=3,
            color="0.75" if part == RANDOM else COLOURS[p % len(COLOURS)], hatch="//" if part == RANDOM else None,
            edgecolor="0.3", linewidth=0.6, label=shorten(part),
        )
    axes.set_xticks(range(len(layers)), layers)
    axes.set(ylabel="Δ: share of signs that differ", ylim=(0, 1.3 * max(max(row.delta for row in result.rows), 0.1)))
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, ncols=4, framealpha=0.8, loc="upper left")
    axes.set_title("Correspondence: do the same parts change the features alike?", size=11, weight="bold")
    notes = (
        f"{result.photos} photos; mean over pairs, ± one standard error over photos. Random: boxes of the same sizes anywhere, "
        f"{result.draws} a photo. Below random: covering the part changes the features of different photos in the same way."
    )
    notes_below(figure, notes, command)
    return save_figure(figure, path)


def _checked(name: str, given: npt.ArrayLike, count: int, size: Sequence[int]) -> np.ndarray:
    boxes = np.asarray(given)
    if boxes.shape != (count, 4) or boxes.dtype.kind not in "iu":
        raise ShapeError(f"correspondence: expected boxes of {name!r} as integers ({count}, 4), got {boxes.dtype} {boxes.shape}")
    for i, (top, left, height, width) in enumerate(boxes.tolist()):
        if min(top, left) < 0 or min(height, width) < 1 or top + height > size[0] or left + width > size[1]:
            box = (top, left, height, width)
            raise ArgumentError(f"correspondence: {name!r} of photo {i} is not within {size[0]}×{size[1]}: {box}")
    return boxes


def _random(boxes: Mapping[str, np.ndarray], size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """(N, 4): for each photo a box of the size of one of its parts, anywhere in it."""
    every = np.stack(list(boxes.values()), axis=1)              # (N, parts, 4)
    chosen = every[np.arange(len(every)), rng.integers(every.shape[1], size=len(every)), 2:]
    corner = rng.integers(0, np.asarray(size) - chosen + 1)     # (N, 2)
    return np.concatenate([corner, chosen], axis=1)


__all__ = ["Correspondence", "Row", "correspondence", "hamming", "plot_correspondence"]
