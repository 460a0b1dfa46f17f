"""The row of panels: nothing that is written runs into anything else."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tinynet.figures import notes_below, wrapped
from tinynet.interpret.panels import Board


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (60, 120), (150, 50)])
@pytest.mark.parametrize("classes", [2, 9])
def test_no_words_run_into_others(tmp_path: Path, size: tuple[int, int], classes: int) -> None:
    """The bounding boxes of all text and scales, as drawn."""
    rng = np.random.default_rng(0)
    board = Board(4, size, title="A title")
    board.picture("(a) photo", rng.integers(0, 256, (*size, 3)).astype(np.uint8), "here it costs most:\ncat 87.2 % → 12.5 %")
    board.map("(b) map", rng.random(size), "summed activation; 34.9 uncovered")
    board.map("(d) probability of notcat", 100 * rng.random(size), "%; 99.9 % uncovered")
    board.classes("(e) class", rng.integers(0, classes, size), [f"class {i}" for i in range(classes)])
    board.save(tmp_path / "a.png", "One line of notes.\n" + "A long one. " * 40, "tinynet study model " + "folder/" * 40)
    figure = board._figure
    figure.canvas.draw()
    axes = [a for a in figure.axes if a.images]
    bars = [child for a in axes for child in a.child_axes]
    assert len(axes) == 4 and len(bars) == 2
    boxes = {f"panel {i}": a.get_window_extent() for i, a in enumerate(axes)}
    boxes |= {f"scale {i}": a.get_tightbbox() for i, a in enumerate(bars)}
    boxes |= {f"caption {i}": a.xaxis.label.get_window_extent() for i, a in enumerate(axes) if len(a.get_xlabel().strip()) > 1}
    boxes |= {f"title {i}": a.title.get_window_extent() for i, a in enumerate(axes)}
    boxes |= {"legend": axes[3].get_legend().get_window_extent(), "notes": figure._supxlabel.get_window_extent()}
    boxes["head"] = figure._suptitle.get_window_extent()
    for (name, a), (other, b) in combinations(boxes.items(), 2):
        alone = a.width * a.height == 0 or b.width * b.height == 0
        assert alone or not a.overlaps(b), (name, other)
    notes, whole = boxes["notes"], figure.bbox
    assert notes.x1 <= whole.x1 and notes.y0 >= whole.y0, "the notes fit the picture"


def test_notes_are_wrapped_and_the_command_is_named() -> None:
    text = wrapped("first " * 40 + "\nsecond", "tinynet atlas", 5)
    lines = text.split("\n")
    assert lines[-2:] == ["second", "Made by: tinynet atlas"] and max(map(len, lines)) <= 85
    assert wrapped("", "", 5) == ""

    class Nothing:
        def get_size_inches(self) -> tuple[float, float]:
            return 5.0, 5.0

    notes_below(Nothing(), "")                                  # nothing to write: nothing is asked of the figure
