"""How much a first and a last layer answer to a photo that is moved, enlarged or turned (Zeiler & Fergus 2014, figure 5).

The photo itself is transformed, with Pillow, before it becomes an input. What comes in from outside at the border is one plain
colour, by default the mean of ImageNet's photos, near 0 in the units of the input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, to_host
from ..data.pinned import fetched
from ..distributed import Shards
from ..errors import ArgumentError, ShapeError
from ..figures import new_figure, notes_below, save_figure, shorten
from ..nn import Layer, without_softmax
from ..nn.classes import probabilities
from .observe import features, inputs, observe, stages
from .panels import COLOURS
from .pictures import Picture

FILL = (124, 116, 104)
KINDS = {"translation": "down, pixels", "scale": "times", "rotation": "degrees"}


@dataclass(frozen=True)
class Curve:
    """What one kind of transformation does to N photos at T amounts.

    kind: "translation" (pixels downwards), "scale" (times) or "rotation" (degrees, anticlockwise). amounts: (T,).
    first, last: (N, T), Euclidean distances of a layer's features to those of the untransformed photo.
    probability: (N, T), of the label.
    """

    kind: str
    amounts: np.ndarray
    first: np.ndarray
    last: np.ndarray
    probability: np.ndarray


@dataclass(frozen=True)
class Invariance:
    """The three curves. layers: the first and the last. norms: (2, N), the lengths of the untransformed photos' features."""

    curves: tuple[Curve, ...]
    layers: tuple[str, str]
    labels: tuple[int, ...]
    norms: np.ndarray
    fill: tuple[int, int, int]


def transformed(photo: Picture, kind: str, amount: float, fill: Sequence[int] = FILL) -> Picture:
    """A photo, uint8 (H, W, 3), moved down by `amount` pixels, enlarged `amount` times about its centre, or turned by `amount`
    degrees, bilinearly; fill: the colour of what comes in from outside.
    """
    from PIL import Image

    if kind not in KINDS:
        raise ArgumentError(f"transformed: expected one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "scale" and not amount > 0:
        raise ArgumentError(f"transformed: expected a scale above 0, got {amount!r}")
    height, width = photo.shape[:2]
    image, colour, how = Image.fromarray(photo), tuple(fill), Image.Resampling.BILINEAR
    if kind == "rotation":
        return np.asarray(image.rotate(amount, how, fillcolor=colour))
    if kind == "scale":
        matrix = (1 / amount, 0, width / 2 * (1 - 1 / amount), 0, 1 / amount, height / 2 * (1 - 1 / amount))
    else:
        matrix = (1, 0, 0, 0, 1, -amount)                       # where each pixel comes from
    return np.asarray(image.transform(image.size, Image.Transform.AFFINE, matrix, how, fillcolor=colour))


def invariance(
    model: Layer, photos: Sequence[Picture] | np.ndarray, labels: Sequence[int], to_input: Callable[[Picture, Any], Array], *,
    first: str | None = None, last: str | None = None, shifts: Sequence[float] | None = None,
    scales: Sequence[float] | None = None, angles: Sequence[float] | None = None, fill: Sequence[int] = FILL,
    batch_size: int = 32, workers: int | None = None,
) -> Invariance:
    """Transform each photo by each amount, and measure what changes at a first and a last layer.

    photos: N of uint8 (H, W, 3), all of one size, that of the model's input (the paper takes five). labels: (N,), true classes.
    to_input: (photo, rng) → float32 (3, H, W), such as preprocessing.to_input().
    first, last: layers; None: the first convolution's rectified maps, and the features that the last linear layer classifies.
    shifts: pixels downwards; None: ±27 % of the height, as in the paper. scales: None: 1 to 1.8. angles: None: 0 to 350 degrees.
    Raises ArgumentError for an unknown layer, with the nearest names.
    """
    photos = [np.asarray(photo) for photo in photos]
    if not photos or any(p.dtype != np.uint8 or p.ndim != 3 or p.shape != photos[0].shape for p in photos):
        raise ShapeError("invariance: expected photos of one size, uint8 (H, W, 3) each")
    if len(labels) != len(photos):
        raise ShapeError(f"invariance: expected {len(photos)} labels, one a photo, got {len(labels)}")
    height, model = photos[0].shape[0], without_softmax(model)
    known = stages(model)
    if first is None and not known:
        raise ArgumentError("invariance: the model has no convolution; name the layers")
    pair = (known[0] if first is None else first, features(model) if last is None else last)
    amounts = {
        "translation": np.unique(np.rint(np.linspace(-0.27, 0.27, 25) * height)) if shifts is None else np.asarray(shifts, float),
        "scale": np.linspace(1.0, 1.8, 17) if scales is None else np.asarray(scales, float),
        "rotation": np.arange(0.0, 351.0, 10.0) if angles is None else np.asarray(angles, float),
    }

    parts = [                                                   # the plain photos first, then (kind, photo, amounts)
        (kind, i, slice(begin, begin + batch_size))
        for kind, values in amounts.items() for i in range(len(photos)) for begin in range(0, len(values), batch_size)
    ]

    def stacked(pictures: Iterable[Picture]) -> np.ndarray:
        return np.stack([to_host(to_input(picture, None)) for picture in pictures])

    def batches() -> Iterator[np.ndarray]:
        yield stacked(photos)
        for kind, i, part in parts:
            yield stacked(transformed(photos[i], kind, float(v), fill) for v in amounts[kind][part])

    with Shards(workers) as shards:
        def answers() -> Iterator[tuple[Array, ...]]:
            for x in inputs(model, batches()):
                seen = observe(model, x, pair, shards)
                yield *(seen.layers[layer] for layer in pair), seen.output

        def features_and_classes() -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
            """Of each batch the features of both layers (B, D) and the class probabilities (B, C)."""
            for *seen, output in fetched(answers()):
                yield [y.reshape(len(y), -1).astype(np.float64) for y in seen], probabilities(output)

        results = features_and_classes()
        plain, certain = next(results)
        if max(labels) >= certain.shape[1] or min(labels) < 0:
            raise ArgumentError(f"invariance: the model has classes 0 to {certain.shape[1] - 1}, got labels {list(labels)}")
        found = {kind: np.empty((3, len(photos), len(values))) for kind, values in amounts.items()}
        for (kind, i, part), (seen, certain) in zip(parts, results, strict=True):
            for which in (0, 1):
                found[kind][which, i, part] = np.linalg.norm(seen[which] - plain[which][i], axis=1)
            found[kind][2, i, part] = certain[:, labels[i]]
    curves = [Curve(kind, values, *found[kind]) for kind, values in amounts.items()]
    norms = np.stack([np.linalg.norm(flat, axis=1) for flat in plain])
    red, green, blue = (int(v) for v in fill)
    return Invariance(tuple(curves), pair, tuple(int(label) for label in labels), norms, (red, green, blue))


def plot_invariance(
    result: Invariance, photos: Sequence[Picture] | np.ndarray, path: str | os.PathLike[str], classes: Sequence[str] = (), *,
    command: str = "",
) -> Path:
    """The panels of the paper's figure 5: for each transformation the photos, both distances and the probability."""
    names = [classes[label] if len(classes) else f"class {label}" for label in result.labels]
    figure = new_figure(14.0, 2.9 * len(result.curves) + 0.7)
    grid = figure.subplots(len(result.curves), 4, squeeze=False, gridspec_kw={"width_ratios": [1.15, 1, 1, 1]})
    panels = [
        ("first", f"distance at {result.layers[0]}"), ("last", f"distance at {result.layers[1]}"),
        ("probability", "probability of the class named (%)"),
    ]
    for r, curve in enumerate(result.curves):
        shown = curve.amounts[np.unique(np.linspace(0, len(curve.amounts) - 1, 5).round().astype(int))]
        grid[r, 0].imshow(_strip(photos, curve.kind, shown, result.fill))
        grid[r, 0].set_yticks([(i + 0.5) * _THUMB for i in range(len(names))], [
            f"{shorten(name, 10)} {_STYLES[i % len(_STYLES)][1]}" for i, name in enumerate(names)], size=8)
        for i, text in enumerate(grid[r, 0].get_yticklabels()):
            text.set(color=COLOURS[i % len(COLOURS)], weight="bold", parse_math=False)
        grid[r, 0].tick_params(axis="y", length=0)
        grid[r, 0].set_xticks([(i + 0.5) * _THUMB for i in range(len(shown))], [f"{v:.3g}" for v in shown], size=8)
        grid[r, 0].set_xlabel(f"{curve.kind} ({KINDS[curve.kind]})", size=9)
        for c, (name, label) in enumerate(panels, 1):
            axes, values = grid[r, c], getattr(curve, name)
            for i, row in enumerate(values):
                axes.plot(curve.amounts, 100 * row if name == "probability" else row, color=COLOURS[i % len(COLOURS)],
                          linestyle=_STYLES[i % len(_STYLES)][0], linewidth=1.4)
            axes.set_ylim((-3, 103) if name == "probability" else (0, None))
            axes.grid(alpha=0.3)
            axes.tick_params(labelsize=8)
            axes.set_xlabel(f"{curve.kind} ({KINDS[curve.kind]})", size=9)
            if r == 0:
                axes.set_title(label, size=9.5, parse_math=False)
    grid[0, 0].set_title("the photos, and their lines", size=9.5)
    figure.suptitle("Invariance: how the network's answer changes as a photo is moved, enlarged, turned", size=11, weight="bold")
    notes = (
        f"Distances are Euclidean, between what {result.layers[0]}, and further up {result.layers[1]}, gives for the transformed "
        "and for the untransformed photo. "
        f"What comes in from outside the photo has the colour {result.fill} (R, G, B)."
    )
    notes_below(figure, notes, command)
    return save_figure(figure, path)


_THUMB = 64
_STYLES = (("-", "───"), ("--", "─ ─"), ("-.", "─ ·"), (":", "· · ·"))
"""Of the lines, and as letters."""


def _strip(photos: Sequence[Picture] | np.ndarray, kind: str, amounts: np.ndarray, fill: Sequence[int]) -> Picture:
    """A grid of small pictures: a row a photo, a column an amount."""
    from PIL import Image

    size = (_THUMB - 2, _THUMB - 2)
    out = np.full((len(photos) * _THUMB, len(amounts) * _THUMB, 3), 255, np.uint8)
    for r, photo in enumerate(photos):
        for c, amount in enumerate(amounts):
            small = Image.fromarray(transformed(np.asarray(photo), kind, float(amount), fill)).resize(size)
            out[r * _THUMB + 1 : (r + 1) * _THUMB - 1, c * _THUMB + 1 : (c + 1) * _THUMB - 1] = np.asarray(small)
    return out


__all__ = ["FILL", "Curve", "Invariance", "invariance", "plot_invariance", "transformed"]
