"""The pictures are files of the right size and content, made without pyplot."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinynet.errors import ArgumentError, FileError, ShapeError
from tinynet.train import EpochRecord, History, plots


def history(epochs: int = 3, **fixed: float) -> History:
    rows = [
        {
            "epoch": e + 1, "train_loss": 1 / (e + 1), "train_accuracy": 0.5 + 0.1 * e, "val_loss": 1.1 / (e + 1),
            "val_accuracy": 0.45 + 0.1 * e, "lr": 0.1, "seconds": 1.0, "images_per_second": 10.0, **fixed,
        }
        for e in range(epochs)
    ]  # fmt: skip
    return History(EpochRecord(**row) for row in rows)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def colours(path: Path, colour: str) -> int:
    """How many pixels have that colour."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels == wanted).all(axis=1).sum())


def test_curves_have_their_notes_below(tmp_path):
    for notes in ("", "over 10 finer classes"):
        plots.plot_history(history(), tmp_path / "curves.svg", notes)
        text = (tmp_path / "curves.svg").read_text()
        assert ("<!-- over 10 finer classes -->" in text) == bool(notes)
        plots.plot_history(history(), tmp_path / "curves.png", notes)
        assert size(tmp_path / "curves.png") == (1152, 432)


def test_curves(tmp_path):
    plots.plot_history(history(), tmp_path / "both.png")
    plots.plot_history(history(val_loss=math.nan, val_accuracy=math.nan), tmp_path / "train.png")
    plots.plot_history(history(1, train_accuracy=math.nan, val_accuracy=math.nan), tmp_path / "loss.png")
    sizes = {name: size(tmp_path / f"{name}.png") for name in ("both", "train", "loss")}
    assert sizes["both"] == sizes["train"] == (1152, 432)
    assert sizes["loss"] == (576, 432)
    assert colours(tmp_path / "both.png", plots.BLUE) > 200
    assert colours(tmp_path / "both.png", plots.RED) > 200
    assert colours(tmp_path / "train.png", plots.RED) == 0
    with pytest.raises(ArgumentError, match="at least one epoch"):
        plots.plot_history(History(), tmp_path / "none.png")


@pytest.mark.parametrize("classes", [1, 2, 12, 25])
def test_confusion_matrix(tmp_path, classes):
    names = [f"class ${i}_" for i in range(classes)]  # no formula, whatever matplotlib would make of it
    plots.plot_confusion_matrix(np.diag(np.arange(classes)), names, tmp_path / "c.png")
    width, height = size(tmp_path / "c.png")
    assert width > height > 300
    with pytest.raises(ShapeError, match="expected a matrix"):
        plots.plot_confusion_matrix(np.eye(3), ["a", "b"], tmp_path / "x.png")


def test_the_sheet_shows_the_surest_first(tmp_path):
    """Sixty plain pictures, each of its own colour: the ones that appear are the surest right and wrong ones."""
    images = [np.full((8 + i % 3, 8, 3), (4 * i, 255 - 4 * i, 130), np.uint8) for i in range(60)]
    surety = np.linspace(0.51, 0.99, 60)
    probabilities = np.stack([surety, 1 - surety], axis=1)
    labels = np.arange(60) % 2  # even: right
    plots.plot_predictions(images, labels, probabilities, ["cat", "not_cat"], tmp_path / "s.png", count=4, columns=3)

    def shown(i: int) -> bool:
        return colours(tmp_path / "s.png", "#{:02x}{:02x}{:02x}".format(*images[i][0, 0])) > 1000

    assert [i for i in range(60) if shown(i)] == [52, 53, 54, 55, 56, 57, 58, 59]


def test_the_sheet_says_which_photos_it_shows(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    data = np.zeros((2, 4, 6, 3), np.uint8)
    plots.plot_predictions(data, [0, 1], np.eye(2), ["a", "b"], tmp_path / "s.png", of="2 test photos")
    headings = [part._suptitle.get_text() for part in figures[0].subfigs]
    assert headings == ["Surest of what is right, 2 test photos", "Surest of what is wrong, 2 test photos: there is none"]


def test_a_sheet_with_nothing_wrong_and_pairs_and_grey(tmp_path):
    data = [(np.zeros((4, 6), np.uint8), 0), (np.zeros((6, 4), np.uint8), 1)]
    plots.plot_predictions(data, [0, 1], np.eye(2), ["a", "b"], tmp_path / "s.png")
    assert colours(tmp_path / "s.png", plots.RED) > 50  # the heading that says there is none
    with pytest.raises(ShapeError, match="as many images"):
        plots.plot_predictions(data, [0], np.eye(2), ["a", "b"], tmp_path / "x.png")


def test_files(tmp_path):
    plots.plot_history(history(), tmp_path / "curves.pdf")
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(FileError, match=r"such as .png or .pdf, got .doc"):
        plots.plot_history(history(), tmp_path / "curves.doc")
    with pytest.raises(FileError, match="cannot be written"):
        plots.plot_history(history(), tmp_path / "none" / "curves.png")
    assert [p.name for p in tmp_path.iterdir()] == ["curves.pdf"]


def test_heavy_packages_are_imported_only_when_used():
    code = (
        "import sys, tinynet.train, tinynet.train.plots, tinynet.optim\n"
        "print([m for m in ('matplotlib', 'tqdm', 'safetensors', 'typer', 'pooch', 'torch') if m in sys.modules])\n"
        "from tinynet.train import plots, History, EpochRecord\nimport os, tempfile\n"
        "path = os.path.join(tempfile.mkdtemp(), 'x.png')\n"
        "plots.plot_history(History([EpochRecord(1, 1, 1, 1, 1, 1, 1, 1)]), path)\n"
        "print('matplotlib.pyplot' in sys.modules)\n"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert out.stdout.splitlines() == ["[]", "False"]


def test_right_predictions_show_the_classes_in_turn(tmp_path, monkeypatch):
    """Otherwise the class that is easiest fills the sheet."""
    from tinynet.train import plots

    shown, show = [], plots._picture
    monkeypatch.setattr(plots, "_picture", lambda item: (shown.append(int(item[0, 0, 0])), show(item))[1])
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    surety = np.array([0.99, 0.98, 0.97, 0.60, 0.70, 0.95])
    labels = np.array([0, 0, 0, 1, 1, 0])
    probabilities = np.stack([np.where(labels == 0, surety, 1 - surety), np.where(labels == 0, 1 - surety, surety)], axis=1)
    plots.plot_predictions(images, labels, probabilities, ["easy", "hard"], tmp_path / "sheet.png", count=5)
    assert shown == [0, 4, 1, 3, 2]
