"""Initial weights: bounds and variances of the papers, PyTorch's defaults, drawn from the generator that is passed."""

from __future__ import annotations

import tracemalloc
from math import sqrt

import numpy as np
import pytest
import torch

from tinynet import nn
from tinynet.errors import TinynetError

SHAPE = (64, 32, 3, 3)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 2), SHAPE])
def test_fans_are_pytorchs(shape: tuple[int, ...]) -> None:
    assert nn.init.fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu"])
def test_gains_are_pytorchs(name: str) -> None:
    assert nn.init.gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert nn.init.gain("leaky_relu", 0.3) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3))


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("nonlinearity", ["relu", "leaky_relu", "linear"])
def test_kaiming(mode: str, nonlinearity: str) -> None:
    fan = nn.init.fans(SHAPE)[mode == "fan_out"]
    sigma = nn.init.gain(nonlinearity, 0.2) / sqrt(fan)
    uniform = nn.init.kaiming_uniform(np.random.default_rng(0), SHAPE, nonlinearity, 0.2, mode)
    normal = nn.init.kaiming_normal(np.random.default_rng(0), SHAPE, nonlinearity, 0.2, mode)
    for w in (uniform, normal):
        assert w.dtype == np.float32 and w.shape == SHAPE
        assert w.std() == pytest.approx(sigma, rel=0.03)
        assert abs(w.mean()) < 0.03 * sigma
    assert np.abs(uniform).max() <= sqrt(3) * sigma * (1 + 1e-6)
    assert np.abs(uniform).max() > 0.99 * sqrt(3) * sigma
    assert np.abs(normal).max() > 3 * sigma


def test_xavier() -> None:
    sigma = 1.5 * sqrt(2 / sum(nn.init.fans(SHAPE)))
    for make in (nn.init.xavier_uniform, nn.init.xavier_normal):
        w = make(np.random.default_rng(0), SHAPE, 1.5, np.float64)
        assert w.dtype == np.float64
        assert w.std() == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize(("ours", "theirs"), [
    (lambda rng: nn.Conv2d(32, 64, 3, groups=2, rng=rng), lambda: torch.nn.Conv2d(32, 64, 3, groups=2)),
    (lambda rng: nn.Linear(300, 200, rng=rng), lambda: torch.nn.Linear(300, 200)),
    (lambda rng: nn.ConvTranspose2d(32, 64, 3, rng=rng), lambda: torch.nn.ConvTranspose2d(32, 64, 3)),
])  # fmt: skip
def test_layers_start_with_pytorchs_distribution(ours, theirs) -> None:
    layer, module = ours(np.random.default_rng(0)), theirs()
    for name in ("weight", "bias"):
        w, v = getattr(layer, name), getattr(module, name).detach().numpy()
        bound = np.abs(v).max()
        assert np.abs(w).max() == pytest.approx(bound, rel=0.1)
        if name == "weight":
            assert w.std() == pytest.approx(v.std(), rel=0.03)


def test_the_generator_decides() -> None:
    a, b, c = (nn.Conv2d(3, 4, 3, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.weight, b.weight)
    np.testing.assert_array_equal(a.bias, b.bias)
    assert (a.weight != c.weight).any()


def test_invalid() -> None:
    for call in (
        lambda: nn.init.fans((3,)),
        lambda: nn.init.gain("swish"),
        lambda: nn.init.kaiming_normal(np.random.default_rng(0), SHAPE, mode="fan"),
    ):
        with pytest.raises(TinynetError):
            call()


def test_no_draws_draws_nothing() -> None:
    none = nn.init.no_draws
    for draw in (nn.init.kaiming_uniform, nn.init.kaiming_normal, nn.init.xavier_uniform, nn.init.xavier_normal):
        w = draw(none, SHAPE, dtype=np.float64)
        assert w.shape == SHAPE and w.dtype == np.float64 and not w.any()
    w = nn.init.normal(none, SHAPE, 0.1)
    assert w.shape == SHAPE and w.dtype == np.float32 and not w.any()
    layer = nn.Conv2d(3, 4, 3, rng=none)
    assert not layer.weight.any() and layer.bias.shape == (4,) and not layer.bias.any()
    layer.weight += 1
    assert not nn.Conv2d(3, 4, 3, rng=none).weight.any()


def test_normal() -> None:
    w = nn.init.normal(np.random.default_rng(0), SHAPE, 0.02)
    assert w.dtype == np.float32 and w.std() == pytest.approx(0.02, rel=0.03) and abs(w.mean()) < 0.001


def test_a_large_matrix_is_drawn_in_little_more_memory_than_its_own() -> None:
    shape = (1500, 1000)
    tracemalloc.start()
    w = nn.init.normal(np.random.default_rng(5), shape, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(w, (np.random.default_rng(5).standard_normal(shape) * 0.5).astype(np.float32))
    assert peak < 1.9 * w.nbytes                                # 3 times in one draw
