"""Frozen layers: they compute no gradients, the walk ends above them, and what is trained gets the gradients it always had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.nn.test_containers import fire
from tinynet import nn
from tinynet.distributed import Shards


class Spy:
    """Counts which layers are asked for which gradients."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: nn.Layer) -> None:
        self.asked: dict[str, set[str]] = {"input_gradient": set(), "parameter_gradients": set()}
        paths = {id(layer): path for path, layer in model.layers() if not isinstance(layer, nn.Container)}
        for kind in {type(layer) for _, layer in model.layers() if not isinstance(layer, nn.Container)}:
            for name in (*self.asked, "gradients"):
                monkeypatch.setattr(kind, name, self.wrapped(getattr(kind, name), name, paths))

    def wrapped(self, method: Any, name: str, paths: dict[int, str]) -> Any:
        def call(layer: nn.Layer, *arguments: Any) -> Any:
            for asked in self.asked if name == "gradients" else (name,):
                self.asked[asked].add(paths[id(layer)])
            return method(layer, *arguments)

        return call


CHOICES = {
    "the head alone": ["head.weight", "head.bias"],
    "a bias in the middle": ["expand3x3.bias"],
    "one branch of a residual": ["down.downsample.weight"],
    "a layer that is used twice": ["res.0.0.weight"],
    "the lowest": ["stem.0.weight"],
    "nothing": [],
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("train", [True, False])
def test_what_is_wanted_is_what_it_was(choice: str, train: bool) -> None:
    model, rng = fire().to(dtype=np.float64), np.random.default_rng(0)
    x, dy = rng.standard_normal((3, 2, 17, 18)), rng.standard_normal((3, 3))
    saved = model.forward(x, train=train)[1]
    whole_dx, whole = nn.backward(model, saved, dy)
    only = CHOICES[choice]
    assert set(only) <= set(whole)
    for input_gradient in (True, False):
        dx, some = nn.backward(model, saved, dy, input_gradient, only)
        assert list(some) == [name for name in whole if name in only]
        for name in only:
            np.testing.assert_array_equal(some[name], whole[name])
        if input_gradient:
            np.testing.assert_array_equal(dx, whole_dx)
        else:
            assert dx is None


def test_nobody_below_the_lowest_trained_layer_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rng = fire().to(dtype=np.float64), np.random.default_rng(0)
    x, dy = rng.standard_normal((3, 2, 17, 18)), rng.standard_normal((3, 3))
    saved, spy = model.forward(x)[1], Spy(monkeypatch, model)
    nn.backward(model, saved, dy, False, CHOICES["the head alone"])
    assert spy.asked == {"input_gradient": set(), "parameter_gradients": {"head"}}
    nn.backward(model, saved, dy, False, ["down.downsample.weight"])
    assert spy.asked["parameter_gradients"] == {"head", "down.downsample"}
    assert spy.asked["input_gradient"] == {"head", "flat", "pool"}
    nn.backward(model, saved, dy, False)
    assert "stem.0" in spy.asked["parameter_gradients"] and "stem.0" not in spy.asked["input_gradient"]


def test_shards_and_the_trainer_ask_for_what_the_optimiser_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinynet import data, optim, train

    rng = np.random.default_rng(0)
    model = nn.Sequential(
        conv=nn.Conv2d(3, 4, 3, rng=rng), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(),
        fc=nn.Linear(4, 2, rng=rng),
    )  # fmt: skip
    before = {name: x.copy() for name, x in model.state_dict().items()}
    photos = data.ArrayDataset(rng.integers(0, 255, (8, 9, 9, 3), dtype=np.uint8), np.arange(8) % 2, ["a", "b"])
    spy = Spy(monkeypatch, model)
    with Shards(2) as shards:
        step = shards.step(
            model, nn.CrossEntropyLoss(), rng.standard_normal((4, 3, 9, 9)).astype(np.float32), np.array([0, 1, 0, 1]),
            [np.random.default_rng(i) for i in range(2)], {"fc.bias"},
        )
    assert list(step.gradients) == ["fc.bias"]
    optimiser = optim.SGD({
        name: p for name, p in model.named_parameters().items() if name.startswith("fc.")}, lr=0.1)
    trainer = train.Trainer(model, nn.CrossEntropyLoss(), optimiser, data.Loader(photos, 4), epochs=2, progress="none", workers=1)
    trainer.fit()
    changed = {name for name, x in model.state_dict().items() if not np.array_equal(x, before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert spy.asked == {"input_gradient": set(), "parameter_gradients": {"fc"}}
