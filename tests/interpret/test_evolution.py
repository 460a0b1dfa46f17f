"""Evolution: its frames against plain calls, in a real training, and over a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tinynet import nn
from tinynet.errors import ArgumentError
from tinynet.interpret import control_projection, deconvnet, randomised
from tinynet.interpret.evolution import Evolution, plot_evolution
from tinynet.interpret.filters import FilterConstraint
from tinynet.interpret.patches import cut, window
from tinynet.nn.receptive_field import receptive_field
from tinynet.optim import SGD
from tinynet.train import EarlyStopping, Trainer
from tinynet.train.queue import QueuedStep, StepQueue


class Batches:
    """Random images whose class is whether red outweighs blue."""

    def __init__(self, count: int = 24, batch: int = 8) -> None:
        self.x = np.random.default_rng(1).standard_normal((count, 3, 12, 12)).astype(np.float32)
        self.y = (self.x[:, 0].mean(axis=(1, 2)) > self.x[:, 2].mean(axis=(1, 2))).astype(np.int64)
        self.batch = batch

    def __len__(self) -> int:
        return len(self.x) // self.batch

    def batches(self, epoch: int, start: int = 0):  # type: ignore[no-untyped-def]
        for i in range(start, len(self)):
            yield self.x[i * self.batch : (i + 1) * self.batch], self.y[i * self.batch : (i + 1) * self.batch]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return self.batches(0)


def net() -> nn.Sequential:
    rng = np.random.default_rng(0)
    return nn.Sequential(
        conv1=nn.Conv2d(3, 4, 3, padding=1, rng=rng), bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(4, 5, 3, rng=rng), relu2=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(),
        fc=nn.Linear(5, 2, rng=rng),
    )


def trainer(evolution: Evolution, epochs: int, output: Path | None = None) -> Trainer:
    model = net()
    return Trainer(
        model, nn.CrossEntropyLoss(), SGD(model.named_parameters(), lr=0.1), Batches(), epochs=epochs, callbacks=[evolution],
        output=output, workers=1, progress="none",
    )


UNITS = {"relu1": [2, 0], "relu2": [1]}


def test_a_frame_is_the_strongest_activation_and_its_projection() -> None:
    model, set_ = net(), Batches()
    frames = Evolution(set_, UNITS, workers=2).look(model, 3)
    assert [(f.epoch, f.layer, f.channel) for f in frames] == [(3, "relu1", 2), (3, "relu1", 0), (3, "relu2", 1)]
    for frame in frames:
        maps: dict[str, np.ndarray] = {}
        model.forward(set_.x, watch=lambda path, _, y, maps=maps: maps.update({path: y}))  # type: ignore[misc]
        y = maps[frame.layer][:, frame.channel]
        assert frame.value == pytest.approx(y.max(), rel=1e-6)
        assert (frame.image, *frame.position) == np.unravel_index(y.argmax(), y.shape)
        x = set_.x[[frame.image]]
        expected = deconvnet(model).attribute(x, layer=frame.layer, unit=(frame.channel, "max"))[0]
        field = receptive_field(model, frame.layer)
        shown = cut(expected, window(field, frame.position, (12, 12)))
        assert field is not None
        assert shown.shape == (3, *map(int, field.size))
        assert np.abs(shown).sum() == pytest.approx(np.abs(expected).sum(), rel=1e-5)      # nothing lies outside the field
        np.testing.assert_allclose(frame.projection, shown / np.abs(shown).max(), atol=1e-3)
        redrawn = randomised(model, np.random.default_rng(0))
        unit = (frame.channel, *frame.position)
        control = cut(control_projection(redrawn, model, x, frame.layer, unit)[0], window(field, frame.position, (12, 12)))
        assert frame.control is not None and control.any()
        np.testing.assert_allclose(frame.control, control / np.abs(control).max(), atol=1e-3)


def test_a_gpu_waits_for_single_steps_only_where_they_are_looked_at() -> None:
    class Late(NamedTuple):
        """The figures of a step that a GPU has not finished."""

        late: bool = True

    for callback, leave in ((Evolution(Batches(), UNITS), 1), (FilterConstraint(), 0), (EarlyStopping(), 1)):
        watched = trainer(callback, 1)                          # type: ignore[arg-type]
        queue = StepQueue(watched)
        queue.steps = [QueuedStep(Late(), np.zeros(1), np.zeros(1), 0.1, {})]   # type: ignore[arg-type]
        assert queue.to_leave() == leave, callback


def test_an_array_is_a_set_too() -> None:
    model, set_ = net(), Batches()
    a = Evolution(set_, UNITS).look(model, 1)
    b = Evolution(set_.x, UNITS, batch_size=7).look(model, 1)
    assert [f[:5] for f in a] == [f[:5] for f in b]


def test_follows_a_training_at_the_chosen_epochs_and_changes_nothing() -> None:
    evolution = Evolution(Batches(), UNITS, epochs=(0, 1, 3, 10))
    watched = trainer(evolution, 4)
    watched.fit()
    assert [f.epoch for f in evolution.frames] == [0] * 3 + [1] * 3 + [3] * 3
    alone = trainer(Evolution(Batches(), UNITS, epochs=()), 4)
    alone.fit()
    for name, value in watched.model.state_dict().items():
        np.testing.assert_array_equal(value, alone.model.state_dict()[name], err_msg=name)
    assert {f.value for f in evolution.frames if f.epoch == 0} != {f.value for f in evolution.frames if f.epoch == 3}


def test_a_resumed_training_has_the_frames_of_a_whole_one(tmp_path: Path) -> None:
    whole = Evolution(Batches(), UNITS, epochs=(1, 2, 3))
    trainer(whole, 3, tmp_path / "a").fit()
    first = Evolution(Batches(), UNITS, epochs=(1, 2, 3))
    trainer(first, 2, tmp_path / "b").fit()
    json.dumps(first.state_dict())
    second = Evolution(Batches(), UNITS, epochs=(1, 2, 3))
    trainer(second, 3, tmp_path / "b").fit(resume=True)
    assert [f[:6] for f in whole.frames] == [f[:6] for f in second.frames]
    for a, b in zip(whole.frames, second.frames, strict=True):
        np.testing.assert_array_equal(a.projection, b.projection)
        assert (a.control is None) == (b.control is None) == (a.epoch != 3), "the newest epoch alone keeps its control"
        assert a.control is None or np.array_equal(a.control, b.control)
    kept = Evolution(Batches(), UNITS)
    kept.load_state_dict(json.loads(json.dumps(second.state_dict())))
    for a, b in zip(whole.frames, kept.frames, strict=True):
        assert a.control is b.control is None or np.array_equal(a.control, b.control)


def test_wrong_arguments_say_what_is_wrong() -> None:
    with pytest.raises(ArgumentError, match=r"nearest: .*relu2"):
        trainer(Evolution(Batches(), {"relu22": [0]}), 1).fit()
    with pytest.raises(ArgumentError, match="channels 0 to 3, got 9"):
        Evolution(Batches(), {"relu1": [9]}).look(net(), 1)
    for training, words in (({"relu1": [999]}, "layer 'relu1' has channels 0 to 3, got 999"), ({"relu1": [-1]}, "got -1")):
        watched = trainer(Evolution(Batches(), training, epochs=(1,)), 1)
        with pytest.raises(ArgumentError, match=words):
            watched.fit()
        assert watched.state.step == 0, "before the first step"
    with pytest.raises(ArgumentError, match="at least one image"):
        trainer(Evolution(np.zeros((0, 3, 12, 12), np.float32), UNITS), 1).fit()
    with pytest.raises(ArgumentError, match="at least 0"):
        Evolution(Batches(), UNITS, epochs=(-1,))
    with pytest.raises(ArgumentError, match="units"):
        Evolution(Batches(), {})
    with pytest.raises(ArgumentError, match="no frame"):
        plot_evolution(Evolution(Batches(), UNITS), "nowhere.png")


def test_the_picture_is_written(tmp_path: Path) -> None:
    evolution = Evolution(Batches(), UNITS)
    evolution.look(net(), 0)
    evolution.look(net(), 5)
    assert plot_evolution(evolution, tmp_path / "a.png").stat().st_size > 5000
