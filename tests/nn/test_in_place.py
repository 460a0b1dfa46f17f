"""Layers at once and in place on the way up: the same record as layer by layer, and nothing overwritten that somebody holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.checking import Backend, close, values
from tests.nn.helpers import place, randomise
from tests.nn.test_containers import fire
from tinynet import nn


def arrays(saved: Any) -> Iterator[Any]:
    """All arrays of a record."""
    if hasattr(saved, "shape"):
        yield saved
    elif isinstance(saved, (dict, tuple, list)):
        for part in saved.values() if isinstance(saved, dict) else saved:
            yield from arrays(part)


def residual() -> nn.Sequential:
    """As in a ResNet: normalisations and sums before rectifiers, one of them shared."""
    relu, convs = nn.ReLU(), [nn.Conv2d(2, 2, 3, padding=1) for _ in range(2)]
    block = nn.Sequential(conv1=convs[0], bn1=nn.BatchNorm2d(2), relu=relu, conv2=convs[1])
    return nn.Sequential(
        first=nn.Conv2d(2, 2, 1), bn=nn.BatchNorm2d(2), relu0=relu, body=nn.Residual(block), relu1=relu,
        both=nn.Concat(nn.Sequential(nn.Sigmoid()), nn.Sequential(nn.Conv2d(2, 1, 1), nn.ReLU6())), relu2=nn.ReLU6(),
        kept=nn.Sigmoid(), relu3=nn.ReLU(), flat=nn.Flatten(), fc=nn.Linear(60, 5), relu4=nn.ReLU(), nothing=nn.Identity(),
        relu5=nn.ReLU(), last=nn.Sequential(fc=nn.Linear(5, 4)), relu6=nn.ReLU(),
    )


@pytest.mark.parametrize("build", [fire, residual])
@pytest.mark.parametrize("train", [False, True])
def test_the_record_is_that_of_one_layer_after_the_other(
    build: Callable[[], nn.Sequential], train: bool, backend: Backend
) -> None:
    x = backend.array(values(0, (2, 2, 9, 8) if build is fire else (2, 2, 5, 4)))
    before = backend.host(x).copy()
    found = []
    for watch in (None, lambda path, layer, y: None):           # who watches sees every layer, so they go one by one
        model = place(randomise(build()), backend)
        y, saved = model.forward(x, train=train, watch=watch)
        dx, gradients = nn.backward(model, saved, backend.array(values(1, tuple(y.shape))))
        found.append((y, [*arrays(saved)], dx, gradients, model(x, watch=watch)))
    (y, kept, dx, gradients, inferred), others = found[0], found[1]
    np.testing.assert_array_equal(backend.host(x), before)
    close(backend.host(inferred), backend.host(others[4]), "float64")      # inference folds normalisations
    pairs = [(y, others[0]), (dx, others[2]), *zip(kept, others[1], strict=True)]
    for ours, theirs in [*pairs, *((gradients[name], others[3][name]) for name in others[3])]:
        np.testing.assert_array_equal(backend.host(ours), backend.host(theirs))


GIVING: list[tuple[Callable[[], nn.Layer], tuple[int, ...]]] = [
    (lambda: nn.Conv1d(2, 3, 3, padding=1), (2, 2, 5)), (lambda: nn.Conv2d(2, 3, 1), (2, 2, 4, 5)),
    (lambda: nn.Conv2d(2, 2, 3, groups=2), (2, 2, 4, 5)), (lambda: nn.Conv2d(4, 4, 3, padding=1), (4, 9, 8)),
    (lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 3, 3)), (lambda: nn.ConvTranspose2d(2, 3, 3, 2), (2, 2, 3, 3)),
    (lambda: nn.Linear(3, 4), (2, 3)), (lambda: nn.Linear(3, 4, bias=False), (2, 5, 3)), (lambda: nn.BatchNorm1d(3), (4, 3)),
    (lambda: nn.BatchNorm2d(3, affine=False), (2, 3, 4, 5)), (lambda: nn.BatchNorm3d(3), (2, 3, 2, 2, 2)),
    (lambda: nn.BatchNorm2d(3, track_running_stats=False), (2, 3, 4, 5)), (lambda: nn.BatchNorm2d(3), (0, 3, 4, 5)),
    (lambda: nn.Residual(nn.Identity()), (2, 3)), (lambda: nn.Residual(nn.Identity(), nn.ReLU()), (2, 3)),
    (lambda: nn.Concat(nn.Identity()), (2, 3)), (lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), (2, 3)),
]


@pytest.mark.parametrize("number", range(len(GIVING)))
@pytest.mark.parametrize("train", [False, True])
def test_what_a_layer_gives_away_nobody_else_holds(number: int, train: bool, backend: Backend) -> None:
    build, shape = GIVING[number]
    layer, x = place(randomise(build()), backend), backend.array(values(0, shape))
    assert layer.gives_away
    for y, saved in (layer.forward(x, train=train), (layer(x), ())):
        for held in (x, *arrays(saved), *layer.state_dict().values()):
            assert not backend.overlap(y, held)


def test_what_is_held_is_not_given_away() -> None:
    last = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    for layer in (nn.ReLU(), nn.Sigmoid(), nn.Identity(), nn.Flatten(), nn.Dropout(), nn.Sequential(), last):
        assert not layer.gives_away


def test_the_sums_before_a_rectifier_are_not_kept() -> None:
    """A convolution and its ReLU make one array, and so do a sum and the ReLU in its place."""
    rng = np.random.default_rng(0)
    made: list[int] = []

    class Notes(nn.ReLU):
        def overwrite(self, x: Any, train: bool = False, rng: Any = None) -> Any:
            made.append(id(x))
            y, saved = super().overwrite(x, train, rng)
            made.append(id(y))
            return y, saved

    model = nn.Sequential(nn.Linear(3, 3, rng=rng), Notes(), nn.Residual(nn.ReLU()), Notes())
    model.forward(np.ones((2, 3), np.float32), train=True)
    model(np.ones((2, 3), np.float32))
    assert len(made) == 8 and made[::2] == made[1::2]


def test_inference_behind_a_layer_that_gives_away_is_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that cannot work in place is called as ever: a max-pooling behind a convolution looks for no switches."""
    def nobody(*arguments: Any) -> Any:
        raise AssertionError("switches at inference")

    monkeypatch.setattr("tinynet.functional.max_pool.maxima_and_switches", nobody)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.ReLU())
    assert model(np.ones((1, 2, 8, 8), np.float32)).shape == (1, 3, 3, 3)
