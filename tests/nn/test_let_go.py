"""A walk back with keep=False lets go of what each layer kept as soon as it is past that layer."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.checking import values
from tests.nn.test_containers import fire
from tests.train.runs import loaders
from tinynet import nn, optim
from tinynet.distributed import Shards
from tinynet.errors import ArgumentError
from tinynet.nn.group import current_member
from tinynet.train import Trainer


def shard() -> int:
    """The number of this thread's shard; a thread may have another one on the way back than on the way up."""
    member = current_member()
    return 0 if member is None else member.rank


class Keeps(nn.Layer):
    """y = 2x. Keeps an array that nobody else has; notes on the way back how many of those behind it are still there."""

    class Saved(NamedTuple):
        mine: np.ndarray

    def __init__(self) -> None:
        self.kept: dict[int, weakref.ref[np.ndarray]] = {}
        self.behind: list[Keeps] = []
        self.alive: list[int] = []

    def forward(self, x: Any, train: bool = False, rng: Any = None) -> Any:
        mine = x.copy()
        self.kept[shard()] = weakref.ref(mine)
        return 2 * x, self.Saved(mine)

    def input_gradient(self, saved: Saved, dy: Any) -> Any:
        me = shard()
        assert self.kept[me]() is saved.mine
        self.alive.append(sum(other.kept[me]() is not None for other in self.behind))
        return 2 * dy


def chain(build: Any, count: int) -> tuple[nn.Layer, list[Keeps]]:
    """The model that build makes of so many layers, which stand one behind the other in the order of the walk."""
    layers = [Keeps() for _ in range(count)]
    for i, layer in enumerate(layers):
        layer.behind = layers[i + 1 :]
    return build(*layers), layers


BUILDS = {
    "sequential": (nn.Sequential, 3),
    "nested": (lambda a, b, c, d: nn.Sequential(a, nn.Sequential(b, nn.Sequential(c)), d), 4),
    "residual": (lambda a, b, c, d: nn.Sequential(a, nn.Residual(nn.Sequential(b, c)), d), 4),
    "two branches": (lambda a, b, c: nn.Sequential(a, nn.Residual(_c=nn.Sequential(c=c), _b=nn.Sequential(b=b))), 3),
    "concat": (lambda a, b, c, d: nn.Sequential(a, nn.Concat(_c=nn.Sequential(c=c), _b=nn.Sequential(b=b)), d), 4),
}


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("keep", [True, False])
def test_what_lies_behind_is_gone_when_a_layer_runs_backward(name: str, keep: bool) -> None:
    model, layers = chain(*BUILDS[name])
    y, saved = model.forward(np.ones((2, 3)))
    dx, _ = nn.backward(model, saved, np.ones_like(y), keep=keep)
    assert [layer.alive for layer in layers] == [[len(layer.behind) if keep else 0] for layer in layers]
    assert dx is not None
    if not keep:
        assert all(layer.kept[shard()]() is None for layer in layers)
        with pytest.raises(ArgumentError, match="keep=False") as caught:
            nn.backward(model, saved, np.ones_like(y))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_training_step_lets_go_in_every_shard(workers: int) -> None:
    model, layers = chain(lambda *layers: nn.Sequential(nn.Linear(3, 4), *layers), 3)
    x, labels, rngs = np.ones((5, 3), np.float32), np.zeros(5, int), [np.random.default_rng()] * workers
    with Shards(workers) as shards:
        shards.step(model, nn.CrossEntropyLoss(), x, labels, rngs)
    assert [layer.alive for layer in layers] == [[0] * workers] * 3


@pytest.mark.parametrize("workers", [1, 2])
def test_the_trainer_holds_no_second_reference(workers: int) -> None:
    model, layers = chain(lambda *layers: nn.Sequential(nn.Flatten(), nn.Linear(192, 2), *layers), 3)
    train, _ = loaders()
    run = Trainer(
        model, nn.CrossEntropyLoss(), optim.SGD(model.named_parameters()), train, epochs=1, workers=workers, progress="none"
    )
    run.fit()
    assert len(layers[0].alive) == workers * len(train) and not any(count for layer in layers for count in layer.alive)


def test_the_gradients_are_the_same() -> None:
    model, x, dy = fire().to(dtype=np.float64), values(0, (2, 2, 9, 8)), values(1, (2, 3))
    kept, let_go = (nn.backward(model, model.forward(x)[1], dy, keep=keep) for keep in (True, False))
    np.testing.assert_array_equal(kept[0], let_go[0])
    assert kept[1].keys() == let_go[1].keys()
    for name in kept[1]:
        np.testing.assert_array_equal(kept[1][name], let_go[1][name])
