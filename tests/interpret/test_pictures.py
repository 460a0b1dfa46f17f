"""Sheets: every word is inside and whole, every picture in its place and shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tinynet import figures
from tinynet.interpret import pictures
from tinynet.interpret.pictures import Tile, broken, sheet


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved."""
    found: list[Any] = []

    def save(figure: Any, path: Any) -> Any:
        found.append(figure)
        return figures.save_figure(figure, path)

    monkeypatch.setattr(pictures, "save_figure", save)
    return found


def picture(height: int, width: int) -> pictures.Picture:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(("columns", "tile", "aspect"), [(1, 1.15, 1.0), (3, 4.7, 0.2), (9, 1.45, 1.0)])
def test_no_word_is_cut_and_none_lies_on_a_picture(
    drawn: list[Any], tmp_path: Path, columns: int, tile: float, aspect: float
) -> None:
    names = ["features.11.expand3x3_activation", "redrawn\ndown to\nfeatures.9.squeeze", "WWW_WWWWWWWWWWWW.WWWWWWWWWWWWWWWW"]
    captions = ["", "caption", "caption of\ntwo lines"]
    rows = [[Tile(picture(20, 100), caption) for _ in range(columns)] for caption in captions]
    how = {"title": "A title " * 12, "notes": "A note. " * 60 + "\nAnother.", "command": "tinynet explain photo.jpg"}
    heads = ["one", "two\nlines", *["more"] * columns][:columns]
    sheet(rows, tmp_path / "a.png", row_names=names, column_names=heads, tile=tile, aspect=aspect, **how)
    figure = drawn[0]
    canvas, (axes,) = FigureCanvasAgg(figure), figure.axes
    renderer, (width, height) = canvas.get_renderer(), canvas.get_width_height()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts if text.get_text()}
    for name in names:
        assert broken(name) in boxes
    assert sum(len(box) > 0 for box in boxes) >= 3 + len(set(heads)) + 2 + 2
    for words, box in boxes.items():
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, words
    shown = [image.get_window_extent(renderer) for image in axes.images]
    assert len(shown) == 3 * columns
    boxes_and_pictures = [*boxes.items(), *((f"picture {i}", box) for i, box in enumerate(shown))]
    for words, box in boxes.items():
        for others, other in boxes_and_pictures:
            apart = box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0
            assert words == others or apart, (words, others)


def test_pictures_keep_their_shape_and_empty_places_stay_empty(drawn: list[Any], tmp_path: Path) -> None:
    tall, wide = picture(30, 10), picture(200, 400)
    rows = [[Tile(tall), None, Tile(wide)], [None, Tile(tall)]]
    assert sheet(rows, tmp_path / "a.png", tile=2, aspect=0.75).is_file()
    axes = drawn[0].axes[0]
    extents = [image.get_extent() for image in axes.images]
    sizes = [(right - left, low - high) for left, right, low, high in extents]
    np.testing.assert_allclose(sizes, [(0.5, 1.5), (2, 1), (0.5, 1.5)])
    middles = [((left + right) / 2, (low + high) / 2) for left, right, low, high in extents]
    step, down = 2 + 0.12, 1.5 + 0.12
    np.testing.assert_allclose(np.subtract(middles, middles[0]), [(0, 0), (2 * step, 0), (step, down)], atol=1e-12)
    assert [image.get_interpolation() for image in axes.images] == ["nearest", "antialiased", "nearest"]
    np.testing.assert_array_equal(axes.images[1].get_array(), wide)
    assert sheet([], tmp_path / "none.png").is_file()
    assert sheet(rows, tmp_path / "vector.svg", row_names=["a", "b"]).read_text().count("<image") == 3


@pytest.mark.parametrize(("name", "lines"), [
    ("conv1", ["conv1"]), ("features.9.squeeze", ["features.9.", "squeeze"]), ("layer4.1.relu_1", ["layer4.1.relu_1"]),
    ("features.11.expand3x3_activation", ["features.11.", "expand3x3_", "activation"]),
    ("redrawn\ndown to\nconv5", ["redrawn", "down to", "conv5"]), ("relu2, map 12 of 64", ["relu2, map 12 of", "64"]),
    ("x" * 40, ["x" * 40]), ("", []),
])  # fmt: skip
def test_names_are_broken_and_not_cut(name: str, lines: list[str]) -> None:
    assert broken(name).split("\n") == (lines or [""])
