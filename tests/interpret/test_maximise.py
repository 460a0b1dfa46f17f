"""Activation maximisation: the closed form exactly, and properties of the ascent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.checking import Backend
from tests.nn.helpers import place
from tinynet import nn
from tinynet.errors import ArgumentError
from tinynet.interpret.maximise import first_layer_optimum, maximise, plot_maximisation


def net() -> nn.Sequential:
    rng = np.random.default_rng(0)
    return nn.Sequential(
        conv1=nn.Conv2d(3, 4, 5, rng=rng, dtype=np.float64), relu1=nn.ReLU(),
        conv2=nn.Conv2d(4, 6, 3, rng=rng, dtype=np.float64), relu2=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(6, 3, rng=rng, dtype=np.float64),
    )


def test_closed_form_is_the_best_patch_of_length_one() -> None:
    model = net()
    conv = model["conv1"]
    best = first_layer_optimum(model)
    np.testing.assert_allclose(np.linalg.norm(best.pictures.reshape(4, -1), axis=1), 1, rtol=0, atol=1e-14)
    conv.bias[...] = 0  # type: ignore[attr-defined]
    own = np.diagonal(conv(best.pictures)[:, :, 0, 0])          # what filter f answers to picture f
    np.testing.assert_allclose(own, best.activations, rtol=0, atol=1e-14)
    np.testing.assert_allclose(best.activations, np.linalg.norm(conv.weight.reshape(4, -1), axis=1), atol=1e-14)  # type: ignore[attr-defined]
    others = np.random.default_rng(1).standard_normal((200, 3, 5, 5))
    others /= np.linalg.norm(others.reshape(200, -1), axis=1)[:, None, None, None]
    assert (conv(others)[:, :, 0, 0].max(axis=0) < best.activations).all()


def test_ascent_reaches_the_closed_form_where_there_is_one() -> None:
    model = nn.Sequential(conv1=net()["conv1"])
    best = first_layer_optimum(model)
    found = maximise(model, "conv1", range(4), (3, 5, 5), jitter=0, blur=0, decay=0.05, steps=200)
    for picture, expected in zip(found.pictures, best.pictures, strict=True):
        assert (picture * expected).sum() / np.linalg.norm(picture) == pytest.approx(1, abs=1e-4)


def test_what_was_climbed_is_what_the_unit_sees_and_the_jitter_beside_it() -> None:
    for jitter in (0, 3):
        found = maximise(net(), "relu1", [0, 2], (3, 40, 30), jitter=jitter, blur=0, decay=0, steps=12)
        start = maximise(net(), "relu1", [0, 2], (3, 40, 30), jitter=jitter, blur=0, decay=0, steps=1, rate=1e-12)
        moved = np.abs(found.pictures - start.pictures).max(axis=(0, 1)) > 1e-9
        rows, columns = np.flatnonzero(moved.any(axis=1)), np.flatnonzero(moved.any(axis=0))
        # A map of 36×26: its unit (18, 13) sees the pixels 18 … 22, 13 … 17.
        assert found.where == (18 - jitter, 13 - jitter, 5 + 2 * jitter, 5 + 2 * jitter)
        top, left, height, width = found.where
        assert top <= rows.min() and rows.max() < top + height and left <= columns.min() and columns.max() < left + width
        assert len(rows) > 5 or jitter == 0
    for layer, whole in ((None, False), ("fc", False), ("relu1", True)):
        assert maximise(net(), layer, [0], (3, 12, 11), whole=whole, steps=1).where == (0, 0, 12, 11)
    assert maximise(net(), "relu1", [0], (3, 8, 7), steps=1, jitter=2).where == (0, 0, 8, 7)


@pytest.mark.parametrize(("layer", "whole"), [("conv2", False), ("relu1", True), ("fc", False), (None, False)])
def test_ascent_climbs_what_it_says(layer: str | None, whole: bool) -> None:
    model = net()
    found = maximise(model, layer, [0, 2], (3, 11, 13), whole=whole, steps=40)
    assert (found.activations > found.history[0] + 0.01).all()
    seen: dict[str | None, np.ndarray] = {}
    seen[None] = model.forward(found.pictures, watch=lambda path, _, y: seen.update({path: y}))[0]
    for i, channel in enumerate((0, 2)):
        y = seen[layer][i, channel]
        value = y if y.ndim == 0 else y.mean() if whole else y[y.shape[0] // 2, y.shape[1] // 2]
        assert found.activations[i] == pytest.approx(float(value), rel=1e-9)


def test_a_unit_that_is_silent_at_first_is_woken() -> None:
    model = nn.Sequential(conv1=net()["conv1"], relu1=nn.ReLU())
    model["conv1"].bias[...] = -1  # type: ignore[attr-defined]
    found = maximise(model, "relu1", range(4), (3, 9, 9), steps=60)
    assert (found.history[0] == 0).all()
    assert (found.activations > 0.1).all()


def test_a_unit_does_not_depend_on_its_company_nor_on_threads() -> None:
    together = maximise(net(), "conv2", [5, 1, 3], (3, 9, 9), steps=10, workers=2)
    alone = maximise(net(), "conv2", [1], (3, 9, 9), steps=10, workers=1)
    np.testing.assert_allclose(together.pictures[1], alone.pictures[0], rtol=0, atol=1e-9)
    other = maximise(net(), "conv2", [1], (3, 9, 9), steps=10, seed=1)
    assert np.abs(other.pictures - alone.pictures).max() > 0.01


def test_regularisers_do_what_they_say() -> None:
    def rough(x: np.ndarray) -> float:
        return float((np.diff(x, axis=-1) ** 2).mean() / (x**2).mean())

    plain = maximise(net(), "conv2", [0], (3, 11, 11), jitter=0, blur=0, decay=0, steps=40)
    blurred = maximise(net(), "conv2", [0], (3, 11, 11), jitter=0, blur=1, decay=0, steps=40)
    decayed = maximise(net(), "conv2", [0], (3, 11, 11), jitter=0, blur=0, decay=0.1, steps=40)
    assert rough(blurred.pictures) < 0.7 * rough(plain.pictures)
    assert np.abs(decayed.pictures).mean() < 0.5 * np.abs(plain.pictures).mean()
    bounded = maximise(net(), "conv2", [0], (3, 11, 11), steps=40, bounds=((-1, -0.5, -0.1), 0.2))
    assert bounded.pictures[:, 1].min() >= -0.5
    assert bounded.pictures.max() <= 0.2
    assert bounded.pictures[:, 0].min() < -0.5


def test_jitter_moves_the_picture_and_moves_it_back() -> None:
    """A first-layer unit of 5×5: without jitter all that grows is in its field, with jitter also around it, and not beyond."""
    def energy(jitter: int) -> tuple[float, float]:
        model = nn.Sequential(conv1=net()["conv1"])
        x = maximise(model, "conv1", [0], (3, 17, 17), jitter=jitter, blur=0, decay=0.05, steps=150).pictures[0] ** 2
        inside, around = x[:, 6:11, 6:11].sum(), x[:, 4:13, 4:13].sum()
        return inside / x.sum(), around / x.sum()

    assert energy(0)[0] > 0.999
    inside, around = energy(2)
    assert inside < 0.95
    assert around > 0.999


def test_runs_where_the_model_is(backend: Backend) -> None:
    expected = maximise(net(), "conv2", [0, 4], (3, 9, 9), steps=5)
    found = maximise(place(net(), backend), "conv2", [0, 4], (3, 9, 9), steps=5)
    np.testing.assert_allclose(found.pictures, expected.pictures, rtol=0, atol=1e-9)


def test_wrong_arguments_say_what_is_wrong() -> None:
    with pytest.raises(ArgumentError, match="nearest"):
        maximise(net(), "conv9", [0], (3, 9, 9))
    with pytest.raises(ArgumentError, match="channels 0 to 5, got 6"):
        maximise(net(), "conv2", [6], (3, 9, 9))
    with pytest.raises(ArgumentError, match="steps"):
        maximise(net(), "conv2", [0], (3, 9, 9), steps=0)
    with pytest.raises(ArgumentError, match="at least one channel"):
        maximise(net(), "conv2", [], (3, 9, 9))


def test_the_picture_is_written(tmp_path: Path) -> None:
    results = [maximise(net(), layer, [0, 1], (3, 9, 9), steps=3) for layer in ("conv1", None)]
    assert plot_maximisation(results, tmp_path / "a.png", classes="abc").stat().st_size > 5000
    assert plot_maximisation(results, tmp_path / "b.png", mean=(0.5,) * 3, std=(0.2,) * 3).stat().st_size > 5000
