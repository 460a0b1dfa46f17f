"""Correspondence: a planted part that every photo has, somewhere, and the measure itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinynet import nn
from tinynet.errors import ArgumentError, ShapeError
from tinynet.interpret.correspondence import correspondence, hamming, plot_correspondence


def planted(count: int = 5) -> tuple[nn.Sequential, np.ndarray, np.ndarray]:
    """Noise with a red square somewhere, and a net whose every feature is a mean colour; the squares' boxes (N, 4)."""
    rng = np.random.default_rng(0)
    x = 0.3 * rng.standard_normal((count, 3, 16, 16))
    boxes = np.concatenate([rng.integers(0, 12, (count, 2)), np.full((count, 2), 4)], axis=1)
    for i, (top, left, height, width) in enumerate(boxes):
        x[i, :, top : top + height, left : left + width] = np.array([3.0, -2, 1])[:, None, None]
    model = nn.Sequential(
        conv1=nn.Conv2d(3, 12, 1, bias=False, rng=rng, dtype=np.float64), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(),
        fc=nn.Linear(12, 2, rng=rng, dtype=np.float64),
    )
    return model, x, boxes


def test_a_part_that_changes_all_photos_alike_has_distance_zero_and_random_boxes_do_not() -> None:
    model, x, boxes = planted()
    found = correspondence(model, x, {"square": boxes}, ["flatten"], draws=20)
    assert found.row("flatten", "square").delta == 0
    assert found.row("flatten", "random").delta > 0.2
    assert [(row.layer, row.part) for row in found.rows] == [("flatten", "square"), ("flatten", "random")]
    assert "square" in found.table()


def test_figures_are_those_of_plain_calls() -> None:
    model, x, boxes = planted(4)
    other = np.array([[0, 0, 5, 3]] * 4)
    found = correspondence(model, x, {"a": boxes, "b": other}, draws=0, fill=0.5, workers=2)
    assert {row.layer for row in found.rows} == {"conv1", "flatten"}
    for name, where in (("a", boxes), ("b", other)):
        epsilon = []
        for i, (top, left, height, width) in enumerate(where):
            covered = x[i].copy()
            covered[:, top : top + height, left : left + width] = 0.5
            conv = model["conv1"]
            epsilon.append(np.sign(conv(x[[i]]) - conv(covered[None])).ravel())
        pairs = [np.mean(epsilon[i] != epsilon[j]) for i in range(4) for j in range(i)]
        assert found.row("conv1", name).delta == pytest.approx(np.mean(pairs), abs=1e-12)


def test_hamming_and_its_error() -> None:
    signs = np.array([[1, 1, -1, 0], [1, -1, -1, 0], [1, 1, 1, 1]])
    delta, error = hamming(signs)
    assert delta == pytest.approx((0.25 + 0.5 + 0.75) / 3)
    without = np.array([0.75, 0.5, 0.25])                       # the pairs that are left without photo 0, 1, 2
    assert error == pytest.approx(np.sqrt(2 / 3 * ((without - 0.5) ** 2).sum()))
    assert np.isnan(hamming(signs[:2])[1])
    assert hamming(np.ones((4, 9))) == (0, 0)


def test_the_error_is_that_of_repeated_draws_of_photos() -> None:
    """Each photo's signs are drawn with a probability of its own; the spread of Δ over new sets of photos is estimated."""
    rng = np.random.default_rng(0)

    def draw() -> tuple[float, float]:
        p = rng.uniform(0.6, 1, (8, 1))
        return hamming(np.where(rng.random((8, 200)) < p, 1, -1))

    deltas, errors = np.array([draw() for _ in range(200)]).T
    assert 0.8 < np.sqrt((errors**2).mean()) / deltas.std() < 1.25


def test_wrong_arguments_say_what_is_wrong() -> None:
    model, x, boxes = planted()
    with pytest.raises(ShapeError, match=r"integers \(5, 4\)"):
        correspondence(model, x, {"square": boxes[:4]})
    with pytest.raises(ArgumentError, match="photo 0 is not within 16×16"):
        correspondence(model, x, {"square": boxes + [[20, 0, 0, 0]] * 5})
    with pytest.raises(ArgumentError, match="nearest"):
        correspondence(model, x, {"square": boxes}, ["fc2"])
    with pytest.raises(ArgumentError, match="named 'random'"):
        correspondence(model, x, {"random": boxes})
    with pytest.raises(ArgumentError, match="two photos"):
        correspondence(model, x[:1], {"square": boxes[:1]})


def test_the_picture_is_written(tmp_path: Path) -> None:
    model, x, boxes = planted()
    found = correspondence(model, x, {"$square": boxes}, draws=2)
    assert plot_correspondence(found, tmp_path / "a.png").stat().st_size > 5000
