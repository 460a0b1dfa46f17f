"""Ground truth: a network whose answer a planted patch alone decides, so that where the evidence lies is known."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from tests.checking import Backend
from tests.nn.helpers import place
from tinynet import nn
from tinynet.errors import ArgumentError, ShapeError
from tinynet.interpret.control import randomised
from tinynet.interpret.family import FAMILY, Located, localisation, localisation_table
from tinynet.optim import Adam

SIDE, PATCH = 32, 7
MARGIN = {method.name: 70 if method.name == "occlusion" else 80 for method in FAMILY}
"""How many hits in a hundred each method must have more than the better of chance and a guess at the centre."""


def planted(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, labels, masks of the patch: in noise two patches of stripes, neither at a special place.

    One has diagonal stripes, and its direction alone is the class. The other has upright or level stripes, drawn by another coin:
    it stands out as much, and says nothing.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.7, (count, 3, SIDE, SIDE))
    labels, masks = rng.integers(0, 2, count), np.zeros((count, SIDE, SIDE), bool)
    i = np.arange(PATCH)
    for n, label in enumerate(labels):
        taken = np.zeros((SIDE, SIDE), bool)
        for pattern in (i[:, None] + (1 if label else -1) * i, i[:, None] + 0 * i if rng.integers(2) else 0 * i[:, None] + i):
            while True:
                y, left = rng.integers(0, SIDE - PATCH + 1, 2)
                here = np.s_[y : y + PATCH, left : left + PATCH]
                if not taken[here].any():
                    break
            if not taken.any():
                masks[n][here] = True
            taken[here] = True
            x[(n, slice(None), *here)] = np.where(pattern % 3 == 0, 1.4, -0.7) + rng.normal(0, 0.2, (PATCH, PATCH))
    return x.astype(np.float32), labels, masks


@pytest.fixture(scope="session")
def trained() -> nn.Sequential:
    """Two convolutions and the strongest answer anywhere, trained by tinynet itself, in seconds."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        conv1=nn.Conv2d(3, 12, 5, padding=2, rng=rng), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(12, 16, 3, padding=1, rng=rng), relu2=nn.ReLU(), pool=nn.MaxPool2d(SIDE // 2), flatten=nn.Flatten(),
        fc=nn.Linear(16, 2, rng=rng),
    )
    x, labels, _ = planted(512, 1)
    optimiser, loss = Adam(model.named_parameters(), lr=4e-3), nn.CrossEntropyLoss()
    for epoch in range(8):
        order = np.random.default_rng(epoch).permutation(len(x))
        for begin in range(0, len(x), 64):
            part = order[begin : begin + 64]
            y, saved = model.forward(x[part], train=True)
            optimiser.step(nn.backward(model, saved, loss(y, labels[part])[1], input_gradient=False)[1])
    return model


def test_every_method_points_at_the_planted_patch(trained: nn.Sequential) -> None:
    x, labels, masks = planted(24, 2)
    assert (trained(x).argmax(1) == labels).mean() > 0.95, "the network has not learned its task"
    rows = {row.name: row for row in localisation(trained, x, masks, labels)}
    assert set(rows) == {*MARGIN, "centre guess", "chance"} and len(MARGIN) == 8
    assert rows["chance"].pointing == pytest.approx(PATCH**2 / SIDE**2)
    assert rows["chance"].energy == pytest.approx(PATCH**2 / SIDE**2)
    for name, margin in MARGIN.items():
        row = rows[name]
        assert 100 * min(row.over_chance, row.over_centre) > margin, row
        assert row.energy > 1.5 * max(rows["chance"].energy, rows["centre guess"].energy), row


def test_with_redrawn_weights_they_do_not(trained: nn.Sequential) -> None:
    """The same question to a network that has learned nothing: whatever stands out of the noise, by chance the right patch."""
    x, labels, masks = planted(40, 3)
    quick = [method for method in FAMILY if method.name not in ("occlusion", "integrated gradients", "SmoothGrad")]
    real, redrawn = (
        {row.name: row for row in localisation(model, x, masks, labels, methods=quick)}
        for model in (trained, randomised(trained, np.random.default_rng(0)))
    )
    for method in quick:
        assert redrawn[method.name].pointing < real[method.name].pointing - 0.4, method.name
        assert redrawn[method.name].energy < 0.5 * real[method.name].energy, method.name


def test_batches_tolerance_and_the_models_own_answer(trained: nn.Sequential) -> None:
    x, _, masks = planted(7, 4)
    quick = [m for m in FAMILY if m.name in ("saliency", "Grad-CAM")]
    said = trained(x).argmax(1)
    rows = localisation(trained, x, masks, said, methods=quick)
    for how in ({"batch_size": 3}, {"batch_size": 2, "layer": "relu2", "target": list(said)}):
        for row, other in zip(rows, localisation(trained, x, masks, methods=quick, **how), strict=True):
            assert row.name == other.name and row[1:] == pytest.approx(other[1:], abs=1e-6)     # float32, other shards
    assert localisation(trained, x, masks, methods=quick, layer="relu1") != rows
    assert localisation(trained, x, masks, 0, methods=quick) == localisation(trained, x, masks, [0] * 7, methods=quick)
    assert localisation(trained, x, masks, 1, methods=quick) != localisation(trained, x, masks, 0, methods=quick)
    wide = localisation(trained, x, masks, methods=quick, tolerance=99)
    assert [row.pointing for row in wide] == [1] * 4


def test_on_a_device(backend: Backend, trained: nn.Sequential) -> None:
    x, labels, masks = planted(3, 5)
    expected = localisation(trained, x, masks, labels)
    got = localisation(place(copy.deepcopy(trained), backend), backend.array(x), backend.array(masks), labels)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a[1:], b[1:], atol=1e-4)


def test_the_table_says_by_how_much() -> None:
    centre = Located("centre guess", 0.1, 0.06, 0.05, 0)
    rows = [Located("chance", 0.05, 0.05, 0, -0.05), Located("saliency", 0.9, 0.4, 0.85, 0.8), centre]
    lines = localisation_table(rows).splitlines()
    assert lines[0].split() == ["pointing", "game", "over", "chance", "over", "centre", "energy", "inside"]
    assert lines[1].split() == ["saliency", "90.0", "%", "+85.0", "+80.0", "40.0", "%"]
    assert lines[3].split() == ["chance", "5.0", "%", "+0.0", "-5.0", "5.0", "%"]


def test_what_localisation_refuses(trained: nn.Sequential) -> None:
    x, _, masks = planted(2, 6)
    with pytest.raises(ShapeError, match=r"expected masks \(2, 32, 32\)"):
        localisation(trained, x, masks[:1])
    with pytest.raises(ArgumentError, match="batch_size"):
        localisation(trained, x, masks, batch_size=0)


def test_a_softmax_at_the_end_changes_nothing(trained: nn.Sequential) -> None:
    x, labels, masks = planted(2, 7)
    whole = nn.Sequential({**dict(trained.named_children()), "prob": nn.Softmax(1)})
    assert localisation(whole, x, masks, labels) == localisation(trained, x, masks, labels)
