"""Pictures of a training: curves, a confusion matrix, a sheet of predictions. PNG, PDF or SVG, by the file's ending."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..figures import BLUE, GREEN, RED, new_figure, notes_below, save_figure, shorten
from .history import History


def plot_history(history: History, path: str | os.PathLike[str], notes: str = "") -> None:
    """Loss and accuracy over the epochs, training and validation; notes: below, what they are of.

    Raises ArgumentError for a history without epochs.
    """
    from matplotlib.ticker import MaxNLocator

    if not history:
        raise ArgumentError("plot_history: expected a history with at least one epoch, got an empty one")
    panels = [("loss", "loss", 1.0), ("accuracy", "accuracy (%)", 100.0)]
    panels = [panel for panel in panels if _finite(history, f"train_{panel[0]}", f"val_{panel[0]}")]
    figure = new_figure(4.8 * max(len(panels), 1), 3.6)
    epochs = history.column("epoch")
    for number, (name, label, scale) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for part, title, colour, style in [("train", "training", BLUE, "--"), ("val", "validation", RED, "-")]:
            values = scale * np.asarray(history.column(f"{part}_{name}"))
            if np.isfinite(values).any():
                axes.plot(epochs, values, style, color=colour, marker="o", markersize=3.5, label=title)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    notes_below(figure, notes)
    save_figure(figure, path)


def plot_confusion_matrix(matrix: np.ndarray, classes: Sequence[str], path: str | os.PathLike[str]) -> None:
    """The counts (C, C) of metrics.confusion_matrix as a grid, with each cell's share of its true class.

    Raises ShapeError if the matrix does not fit the names of the classes.
    """
    matrix = np.asarray(matrix)
    count = len(classes)
    if matrix.shape != (count, count):
        raise ShapeError(f"plot_confusion_matrix: expected a matrix {(count, count)}, got {matrix.shape}")
    total = matrix.sum(axis=1, keepdims=True)
    share = 100 * np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    side = min(3.4 + 0.55 * count, 20.0)
    figure = new_figure(side + 1.0, side)
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    names = [shorten(name) for name in classes]
    size = 9 if count <= 20 else 6
    slanted = count > 3
    axes.set_xticks(range(count), names, rotation=45 * slanted, ha="right" if slanted else "center", size=size)
    axes.set_yticks(range(count), names, size=size)
    axes.set(xlabel="predicted class", ylabel="true class")
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        label.set_parse_math(False)
    if count <= 20:  # more cells than that leave no room for numbers
        for i, j in np.ndindex(count, count):
            text = f"{matrix[i, j]}\n{share[i, j]:.0f} %" if count <= 10 else f"{matrix[i, j]}"
            axes.text(j, i, text, ha="center", va="center", size=10 if count <= 10 else 8,
                      color="white" if share[i, j] > 55 else "black")  # fmt: skip
    figure.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.85)
    save_figure(figure, path)


def plot_predictions(
    images: Any,
    labels: Any,
    probabilities: Any,
    classes: Sequence[str],
    path: str | os.PathLike[str],
    count: int = 12,
    columns: int = 6,
    of: str = "",
) -> None:
    """A sheet of the predictions the model was surest of: `count` right ones, the classes in turn, below them `count` wrong ones.

    of: which photos these are, for the headings.
    images: images[i] is picture i, uint8 (H, W, 3) or (H, W), or a pair that begins with it, as a dataset gives it.
    labels: (N,). probabilities: (N, C). Raises ShapeError if these do not fit together.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if probabilities.shape != (len(labels), len(classes)) or len(images) != len(labels):
        raise ShapeError(
            f"plot_predictions: expected as many images and labels as rows in probabilities (N, {len(classes)}), "
            f"got {len(images)}, {len(labels)} and {probabilities.shape}"
        )
    predictions = probabilities.argmax(axis=1)
    surest_first = np.argsort(-probabilities.max(axis=1), kind="stable")
    of_class = [[i for i in surest_first if predictions[i] == labels[i] == c] for c in range(len(classes))]
    right = [i for row in zip_longest(*of_class) for i in row if i is not None][:count]
    wrong = [i for i in surest_first if predictions[i] != labels[i]][:count]
    rows = [-(-len(part) // columns) for part in (right, wrong)]
    heights = [2.05 * rows[0] + 0.4, 2.22 * rows[1] + 0.4]  # inches; a wrong one has two lines above it
    figure = new_figure(1.75 * columns, sum(heights))
    parts = figure.subfigures(2, 1, height_ratios=heights)
    for part, chosen, row_count, colour, title in [
        (parts[0], right, rows[0], GREEN, "Surest of what is right"),
        (parts[1], wrong, rows[1], RED, "Surest of what is wrong"),
    ]:
        title += f", {of}" if of else ""
        part.suptitle(title if len(chosen) else f"{title}: there is none", color=colour, weight="bold", size=13)
        for place in range(row_count * columns):  # empty places too: every picture has the same size
            axes = part.add_subplot(row_count, columns, place + 1)
            axes.set_axis_off()
            if place < len(chosen):
                i = chosen[place]
                axes.imshow(_picture(images[i]), cmap="gray", vmin=0, vmax=255)
                said = f"{shorten(classes[predictions[i]])}  {100 * probabilities[i].max():.1f} %"
                text = said if predictions[i] == labels[i] else f"{said}\nis {shorten(classes[labels[i]])}"
                axes.set_title(text, size=9, color=colour, parse_math=False)
    save_figure(figure, path)


def _picture(item: Any) -> np.ndarray:
    """The picture on a white square, so that all of a sheet are drawn to one size."""
    picture = np.asarray(item[0] if isinstance(item, tuple) else item)
    height, width = picture.shape[:2]
    above, left = (max(height, width) - height) // 2, (max(height, width) - width) // 2
    square = np.full((max(height, width),) * 2 + picture.shape[2:], 255, picture.dtype)
    square[above : above + height, left : left + width] = picture
    return square


def _finite(history: History, *columns: str) -> bool:
    return any(np.isfinite(history.column(column)).any() for column in columns)
