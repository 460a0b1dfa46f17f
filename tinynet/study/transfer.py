"""What the features of each layer are worth for other classes: freeze them, train a softmax (Zeiler & Fergus 2014, section 5.2).

The protocol is the paper's for Caltech-101: 15 and 30 photos of each class to train on, up to 50 of the others to test on,
the mean of the classes' accuracies, five folds. Two things differ. Maps are averaged over a grid of at most 4×4 places
first, so that a layer's features fit in memory; and all layers get a softmax, where the paper takes a linear SVM for its
table by layer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..data import Dataset, Loader
from ..distributed import Shards
from ..errors import ArgumentError
from ..figures import new_figure, notes_below, save_figure
from ..interpret.observe import features, observe, stages
from ..interpret.panels import COLOURS
from ..nn import AdaptiveAvgPool2d, Layer
from ..train.features import frozen
from .softmax import DECAY, classify


@dataclass(frozen=True)
class Features:
    """Frozen features of a set: layer → (N, D) float32; labels (N,); the classes' names."""

    layers: dict[str, np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...]


class TransferRow(NamedTuple):
    """accuracy: the mean over folds of the mean over classes (a share). error: its standard error over folds."""

    layer: str
    per_class: int
    accuracy: float
    error: float


@dataclass(frozen=True)
class Transfer:
    """The rows of all layers and training sizes."""

    rows: tuple[TransferRow, ...]
    classes: int
    folds: int

    def table(self) -> str:
        """Layers down, photos per class across; accuracy in per cent."""
        sizes = list(dict.fromkeys(row.per_class for row in self.rows))
        layers = list(dict.fromkeys(row.layer for row in self.rows))
        found = {(row.layer, row.per_class): row for row in self.rows}
        wide = max(len("layer"), *(len(layer) for layer in layers))
        lines = [f"{'layer':<{wide}}  " + "  ".join(f"{size:>4} per class" for size in sizes)]
        for layer in layers:
            cells = (found[layer, size] for size in sizes)
            said = (f"{100 * cell.accuracy:5.1f} ± {100 * cell.error:.1f} %".rjust(14) for cell in cells)
            lines.append(f"{layer:<{wide}}  " + "  ".join(said))
        return "\n".join(lines)


def default_layers(model: Layer) -> list[str]:
    """The rectified maps of each convolution, and what the last linear layer classifies."""
    return list(dict.fromkeys([*stages(model), features(model)]))


def frozen_features(
    model: Layer, photos: Dataset, transform: Any, layers: Sequence[str] | None = None, *, grid: int = 4,
    batch_size: int = 64, workers: int | None = None,
) -> Features:
    """Run every photo through the model once and keep each layer's features, maps averaged over grid×grid places.

    layers: None, those of `default_layers`.
    """
    layers = default_layers(model) if layers is None else list(layers)
    if grid < 1:
        raise ArgumentError(f"frozen_features: expected grid of at least 1, got {grid}")

    def compute(x: Array, shards: Shards) -> dict[str, Array]:
        return {layer: _averaged(values, grid) for layer, values in observe(model, x, layers, shards).layers.items()}

    arrays, labels = frozen(model, Loader(photos, batch_size, transform), len(photos), compute, workers)
    return Features(arrays, labels, tuple(photos.classes))


def transfer(
    features: Features, per_class: Sequence[int] = (15, 30), folds: int = 5, *, most: int = 50, decay: float = DECAY,
    seed: int = 0, workers: int | None = None,
) -> Transfer:
    """Train a softmax on each layer's frozen features, fold by fold, with the same photos for all layers.

    per_class: photos of each class to train on. most: test photos a class at most, of those that are left. decay: of the
    softmax's weights. workers: threads that share the folds. Raises ArgumentError, naming the class, if one has too few photos.
    """
    counts = np.bincount(features.labels, minlength=len(features.classes))
    for size in per_class:
        if size < 1 or counts.min() <= size:
            short = int(counts.argmin())
            raise ArgumentError(
                f"transfer: expected more than {size} photos of every class, {features.classes[short]!r} has {counts[short]}"
            )
    if folds < 1:
        raise ArgumentError(f"transfer: expected at least one fold, got {folds}")
    classes, rows = len(features.classes), []
    tasks = [(size, fold) for fold in range(folds) for size in per_class]
    splits = {
        (size, fold): _split(features.labels, classes, size, most, np.random.default_rng((seed, size, fold)))
        for size, fold in tasks
    }
    for layer, x in features.layers.items():

        def accuracies(numbers: np.ndarray, x: np.ndarray = x) -> list[float]:
            found = []
            for number in numbers:
                train, test = splits[tasks[number]]
                said = classify(x[train], features.labels[train], x[test], classes, decay)
                found.append(_mean_per_class(features.labels[test], said, classes))
            return found

        with Shards(workers) as shards:
            shared = [share for part in shards.apply(accuracies, np.arange(len(tasks))) for share in part]
        for size in per_class:
            found = [share for share, (one, _) in zip(shared, tasks, strict=True) if one == size]
            error = float(np.std(found, ddof=1) / np.sqrt(folds)) if folds > 1 else float("nan")
            rows.append(TransferRow(layer, size, float(np.mean(found)), error))
    return Transfer(tuple(rows), len(features.classes), folds)


def plot_transfer(
    results: dict[str, Transfer], path: str | os.PathLike[str], *, command: str = ""
) -> Path:
    """Accuracy over layers, a line for each training size; results by name ("trained", "random weights"), later ones dashed."""
    figure = new_figure(7.4, 4.0)
    axes = figure.add_subplot()
    first = next(iter(results.values()))
    layers = list(dict.fromkeys(row.layer for row in first.rows))
    for n, (name, result) in enumerate(results.items()):
        for s, size in enumerate(dict.fromkeys(row.per_class for row in result.rows)):
            rows = {row.layer: row for row in result.rows if row.per_class == size}
            axes.errorbar(
                range(len(layers)), [100 * rows[layer].accuracy for layer in layers],
                [100 * rows[layer].error for layer in layers],
                color=COLOURS[s % len(COLOURS)], linestyle=("-", "--", ":")[n % 3], marker=("o", "s", "^")[n % 3], markersize=4.5,
                capsize=3, label=f"{name}, {size} per class",
            )
    axes.axhline(100 / first.classes, color="0.5", linewidth=1, linestyle="-.", label="chance")
    axes.set_xticks(range(len(layers)), layers)
    axes.set(ylabel="mean accuracy of the classes (%)", ylim=(0, 102))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, framealpha=0.8)
    axes.set_title("Transfer: a softmax on frozen features of each layer", size=11, weight="bold")
    notes = (
        f"{first.classes} classes, mean of {first.folds} folds ± one standard error over folds (which share photos). "
        "Maps are averaged over at most 4×4 places."
    )
    notes_below(figure, notes, command)
    return save_figure(figure, path)


def _averaged(values: Array, grid: int) -> Array:
    if values.ndim == 4 and max(values.shape[2:]) > grid:
        values = AdaptiveAvgPool2d(tuple(min(grid, side) for side in values.shape[2:]))(values)
    return values.reshape(len(values), -1)


def _split(labels: np.ndarray, classes: int, size: int, most: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places of the photos to train and to test on."""
    train, test = [], []
    for label in range(classes):
        members = rng.permutation(np.flatnonzero(labels == label))
        train.append(members[:size])
        test.append(members[size : size + most])
    return np.concatenate(train), np.concatenate(test)


def _mean_per_class(labels: np.ndarray, said: np.ndarray, classes: int) -> float:
    return float(np.mean([(said[labels == label] == label).mean() for label in range(classes)]))


__all__ = [
    "Features", "Transfer", "TransferRow", "default_layers", "frozen_features", "plot_transfer", "transfer",
]
