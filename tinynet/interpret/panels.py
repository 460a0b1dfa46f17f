"""A row of panels with scales beside them: photos, maps with a colour bar, maps of classes with a legend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..figures import BLUE, GREEN, ORANGE, PURPLE, RED, SKY, new_figure, notes_below, save_figure, shorten
from .pictures import Picture

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, "#F0E442", "#000000")
"""Okabe & Ito's palette, for classes and curves."""


class Board:
    """Panels side by side, all for photos of one size; draw them in order, then save."""

    def __init__(self, count: int, size: tuple[int, int], title: str = "", side: float = 2.5) -> None:
        width = side * min(1.6, max(0.6, size[1] / size[0]))
        self._figure = new_figure(count * (width + 0.45), side + 2.0)
        self._axes = list(self._figure.subplots(1, count, squeeze=False)[0])
        if title:
            self._figure.suptitle(title, size=11, weight="bold", parse_math=False)

    def picture(self, title: str, picture: Picture, caption: str = "", box: tuple[int, int, int, int] | None = None) -> None:
        """A photo or projection. box: top, left, height, width of a grey square to show on it."""
        from matplotlib.patches import Rectangle

        axes = self._next(title, caption)
        axes.imshow(picture, interpolation=_smooth(picture))
        if box is not None:
            top, left, height, width = box
            axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, facecolor="0.5", edgecolor="white", linewidth=1.2))

    def map(
        self, title: str, values: np.ndarray, caption: str = "", *, low: float | None = None, least: float = 0.0,
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> None:
        """A map (H, W) in cividis with its scale: from `low` (its smallest value) to its largest, at least `least` apart.

        bounds: what the values can be at all; the scale does not leave them.
        """
        low, high = float(values.min()) if low is None else low, float(values.max())
        if high - low < least:                                  # rather flat than noise painted as structure
            low, high = max(bounds[0], high - least), min(bounds[1], max(high, bounds[0] + least))
        axes = self._next(title, room=6)                           # for the scale, which the layout does not see
        image = axes.imshow(values, cmap="cividis", vmin=low, vmax=high if high > low else low + 1, interpolation="nearest")
        bar = self._figure.colorbar(image, cax=axes.inset_axes((0.04, -0.1, 0.92, 0.045)), orientation="horizontal")
        bar.ax.tick_params(labelsize=7)
        bar.set_label(caption, size=7.5, parse_math=False)

    def classes(self, title: str, values: np.ndarray, names: Sequence[str], most: int = 7) -> None:
        """A map (H, W) of class numbers; the `most` frequent have a colour of their own, the others are grey."""
        from matplotlib.colors import to_rgb
        from matplotlib.patches import Patch

        numbers, counts = np.unique(values, return_counts=True)
        chosen = numbers[np.argsort(-counts, kind="stable")][:most]
        own = len(names) <= len(COLOURS)                        # then a class has the same colour in every picture
        palette = {int(c): COLOURS[int(c) if own else i] for i, c in enumerate(chosen)}
        picture = np.full((*values.shape, 3), 0.6)
        for number, colour in palette.items():
            picture[values == number] = to_rgb(colour)
        rows = -(-(len(chosen) + (len(numbers) > len(chosen))) // 2)
        axes = self._next(title, room=2 * rows + 1)             # for the legend
        axes.imshow(picture, interpolation="nearest")
        share = {int(n): 100 * c / values.size for n, c in zip(numbers, counts, strict=True)}
        handles: list[Any] = [Patch(color=colour, label=f"{shorten(names[n])} {share[n]:.0f} %") for n, colour in palette.items()]
        if len(numbers) > len(chosen):
            handles.append(Patch(color="0.6", label=f"{len(numbers) - len(chosen)} others"))
        legend = axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=7, frameon=False, ncols=2)
        for text in legend.get_texts():
            text.set_parse_math(False)

    def save(self, path: str | os.PathLike[str], notes: str = "", command: str = "") -> Path:
        notes_below(self._figure, notes, command)
        return save_figure(self._figure, path)

    def _next(self, title: str, caption: str = "", room: int = 0) -> Any:
        """room: lines to leave empty below instead of a caption; of something, since the layout leaves out what has no width."""
        axes = self._axes.pop(0)
        axes.set_title(title, size=9, parse_math=False)
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_visible(False)
        if caption:
            axes.set_xlabel(caption, size=7.5, labelpad=3, parse_math=False)
        if room:
            axes.set_xlabel("\n" * (room - 1) + ".", size=7.5, labelpad=3, alpha=0)
        return axes


def _smooth(picture: Picture) -> str:
    return "nearest" if max(picture.shape[:2]) < 100 else "antialiased"


__all__ = ["COLOURS", "Board"]
