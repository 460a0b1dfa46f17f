"""Invariance: nets of which it is known what they are invariant to, and the transformations themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinynet import nn
from tinynet.data import transforms
from tinynet.errors import ArgumentError, ShapeError
from tinynet.interpret.invariance import FILL, invariance, plot_invariance, transformed

BLACK = (0, 0, 0)


def net(seed: int = 0) -> nn.Sequential:
    """Maps and then the strongest of each: where a thing is does not matter to the last layer, as long as all of it is there."""
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        conv1=nn.Conv2d(3, 4, 3, bias=False, rng=rng), relu1=nn.ReLU(), conv2=nn.Conv2d(4, 6, 3, bias=False, rng=rng),
        relu2=nn.ReLU(), pool=nn.MaxPool2d((20, 20)), flatten=nn.Flatten(), fc=nn.Linear(6, 2, rng=rng),
    )


def thing(seed: int = 0) -> np.ndarray:
    """A small thing in the middle of black."""
    photo = np.zeros((24, 24, 3), np.uint8)
    photo[9:15, 9:15] = np.random.default_rng(seed).integers(0, 256, (6, 6, 3))
    return photo


def test_a_net_that_cannot_see_a_shift_has_distance_zero_at_the_last_layer_and_not_at_the_first() -> None:
    result = invariance(
        net(), [thing(0), thing(1)], [0, 1], transforms.ToArray(), shifts=[-6, -1, 0, 4, 6], scales=[1], angles=[0], fill=BLACK,
    )
    curve = result.curves[0]
    assert result.layers == ("relu1", "flatten")
    assert curve.first.shape == curve.last.shape == curve.probability.shape == (2, 5)
    np.testing.assert_allclose(curve.last, 0, atol=1e-6)
    np.testing.assert_allclose(curve.probability, curve.probability[:, [2]] * np.ones(5), atol=1e-6)
    assert curve.first[:, [0, 1, 3, 4]].min() > 0.1
    assert (curve.first[:, 2] == 0).all()


def test_figures_are_those_of_plain_calls() -> None:
    model, photos, labels = net(), [thing(3), np.full((24, 24, 3), 90, np.uint8)], [1, 0]
    result = invariance(model, photos, labels, transforms.ToArray(), shifts=[0, 9], scales=[1, 1.5], angles=[0, 45, 200])
    to_input = transforms.ToArray()

    def features(photo: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        found["out"] = model.forward(to_input(photo, None)[None], watch=lambda path, _, y: found.update({path: y}))[0]
        return found

    for curve in result.curves:
        for i, photo in enumerate(photos):
            for t, amount in enumerate(curve.amounts):
                a, b = features(photo), features(transformed(photo, curve.kind, amount))
                np.testing.assert_allclose(curve.first[i, t], np.linalg.norm(a["relu1"] - b["relu1"]), rtol=1e-5, atol=1e-6)
                np.testing.assert_allclose(curve.last[i, t], np.linalg.norm(a["flatten"] - b["flatten"]), rtol=1e-5, atol=1e-6)
                e = np.exp(b["out"][0].astype(float))
                np.testing.assert_allclose(curve.probability[i, t], (e / e.sum())[labels[i]], rtol=1e-5)
    np.testing.assert_allclose(result.norms[1, 0], np.linalg.norm(features(photos[0])["flatten"]), rtol=1e-6)


def test_transformations_do_what_they_say() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    for kind, amount in (("translation", 0), ("scale", 1), ("rotation", 0)):
        np.testing.assert_array_equal(transformed(photo, kind, amount), photo)
    down = transformed(photo, "translation", 3)
    np.testing.assert_array_equal(down[3:], photo[:-3])
    assert (down[:3] == FILL).all()
    np.testing.assert_array_equal(transformed(photo, "translation", -4)[:-4], photo[4:])
    square = photo[:, :10]
    np.testing.assert_array_equal(transformed(square, "rotation", 90), np.rot90(square))   # anticlockwise
    np.testing.assert_array_equal(transformed(square, "rotation", 180), square[::-1, ::-1])
    blocks = np.kron(photo, np.ones((6, 6, 1), np.uint8))
    large = transformed(blocks, "scale", 2)                     # about the centre, so that the middle quarter fills the picture
    np.testing.assert_array_equal(large[::12, ::12], photo[2:7, 3:10])


def test_defaults_are_the_papers_ranges() -> None:
    result = invariance(net(), [thing()], [0], transforms.ToArray())
    shifts, scales, angles = (curve.amounts for curve in result.curves)
    assert (shifts.min(), shifts.max()) == (-6, 6)              # 27 % of 24 pixels
    assert (scales.min(), scales.max()) == (1, 1.8)
    assert (angles.min(), angles.max()) == (0, 350)


def test_wrong_arguments_say_what_is_wrong() -> None:
    to_input = transforms.ToArray()
    with pytest.raises(ArgumentError, match="nearest"):
        invariance(net(), [thing()], [0], to_input, last="flaten")
    with pytest.raises(ArgumentError, match="classes 0 to 1"):
        invariance(net(), [thing()], [2], to_input)
    with pytest.raises(ShapeError, match="1 labels"):
        invariance(net(), [thing()], [0, 1], to_input)
    with pytest.raises(ShapeError, match="one size"):
        invariance(net(), [thing(), thing()[:20]], [0, 1], to_input)
    with pytest.raises(ArgumentError, match="translation, scale, rotation"):
        transformed(thing(), "shear", 1)
    with pytest.raises(ArgumentError, match="above 0"):
        transformed(thing(), "scale", 0)


def test_the_picture_is_written(tmp_path: Path) -> None:
    photos = [thing(i) for i in range(5)]
    result = invariance(net(), photos, [0, 1, 0, 1, 1], transforms.ToArray(), shifts=[-2, 2], scales=[1, 2], angles=[0, 90, 180])
    assert plot_invariance(result, photos, tmp_path / "a.png", ["$a", "b"]).stat().st_size > 10000


def test_a_softmax_at_the_end_is_taken_once() -> None:
    whole = nn.Sequential({**dict(net().named_children()), "prob": nn.Softmax(1)})
    plain, found = (
        invariance(m, [thing(3)], [1], transforms.ToArray(), shifts=[0, 9], scales=[1], angles=[0]) for m in (net(), whole)
    )
    assert found.layers == plain.layers
    for ours, its in zip(found.curves, plain.curves, strict=True):
        np.testing.assert_array_equal(ours.probability, its.probability)
