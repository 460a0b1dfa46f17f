"""Batch normalisation in blocks of every size, near zero and far from it, whole and in shards, against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.checking import values
from tinynet import functional as F
from tinynet import nn
from tinynet.distributed import Shards
from tinynet.functional.batch_norm import batch_norm_gradients, batch_statistics
from tinynet.kernels import batch_norm

SHAPES = [(3, 5, 4, 7), (1, 2, 33), (4, 1, 2, 3, 5), (2, 3, 16), (5, 2, 5, 3)]


def theirs(x: np.ndarray, dy: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> list[np.ndarray]:
    """y and the three gradients, in float64."""
    tensors = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in (x, gamma, beta)]
    y = torch.nn.functional.batch_norm(tensors[0], None, None, *tensors[1:], training=True)
    y.backward(torch.from_numpy(dy.astype(np.float64)))
    return [y.detach().numpy(), *(t.grad.numpy() for t in tensors)]


@pytest.mark.parametrize("offset", [0.0, 1.0, 100.0])
@pytest.mark.parametrize(("numbers", "run"), [(1, 1), (16, 5), (40, 16), (1 << 19, 1 << 13)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_of_every_size(
    shape: tuple[int, ...], numbers: int, run: int, offset: float, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_norm, "NUMBERS", numbers)
    monkeypatch.setattr(batch_norm, "_RUN", run)
    c = shape[1]
    far = offset * (1 + np.arange(c)).reshape(-1, *[1] * (len(shape) - 2))  # other in each channel
    x, dy = (values(0, shape) + far).astype(dtype), values(1, shape).astype(dtype)
    gamma, beta = values(2, (c,)).astype(dtype), values(3, (c,)).astype(dtype)
    assert batch_norm.fits(x, dy) == (np.prod(shape[2:]) >= 16)
    untouched = x.copy(), dy.copy()
    y = F.batch_norm(x, None, None, gamma, beta, training=True)
    statistics = batch_statistics(x)
    ours = [y, *batch_norm_gradients(dy, x, statistics, gamma)]
    # A rounding of x itself, seen from deviations of order 1; sums of at most some hundred numbers.
    eps = np.finfo(dtype).eps
    for mine, its in zip(ours, theirs(x, dy, gamma, beta), strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, its, rtol=0, atol=300 * eps * (1 + offset))
    np.testing.assert_array_equal(ours[1], F.batch_norm_input_gradient(dy, x, None, None, gamma, True))
    np.testing.assert_array_equal(ours[2], F.batch_norm_weight_gradient(dy, x, None, None, True))
    for array, before in zip((x, dy), untouched, strict=True):
        np.testing.assert_array_equal(array, before)


def test_a_mean_far_from_zero_costs_no_digits_of_the_variance() -> None:
    """1e4 deviations: of Σ x² − n mean² no digit would be left."""
    x = (values(0, (8, 2, 64)) + 1e4).astype(np.float32)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(batch_statistics(x).variance, exact.var((0, 2)), rtol=1e-6)
    y = F.batch_norm(x, None, None, training=True)
    np.testing.assert_allclose(y, (exact - exact.mean((0, 2), keepdims=True)) / exact.std((0, 2), keepdims=True), atol=2e-3)


def test_what_is_not_finite_stays_in_its_channel() -> None:
    x = values(0, (2, 3, 20))
    clean = F.batch_norm(x, None, None, training=True)
    x[0, 1, 4] = np.nan
    y = F.batch_norm(x, None, None, training=True)
    assert np.isnan(y[:, 1]).all()
    np.testing.assert_allclose(y[:, [0, 2]], clean[:, [0, 2]], rtol=0, atol=1e-14)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("shape", [(7, 3, 5, 5), (7, 3, 2, 2)])
def test_shards_have_the_statistics_and_gradients_of_the_whole_batch(shape: tuple[int, ...], offset: float) -> None:
    x, target = values(0, shape) + offset, values(1, shape)
    x[3:] += 10                                                 # the shards' means differ
    layers = [nn.BatchNorm2d(3, dtype=np.float64) for _ in range(2)]
    models = [nn.Sequential(layer) for layer in layers]
    steps = []
    for model, workers in zip(models, (1, 3), strict=True):
        with Shards(workers) as shards:
            steps.append(shards.step(model, nn.MSELoss(), x, target, [np.random.default_rng()] * workers))
    np.testing.assert_allclose(steps[0].logits, steps[1].logits, rtol=0, atol=1e-13 * (1 + offset))
    for name, gradient in steps[0].gradients.items():
        np.testing.assert_allclose(steps[1].gradients[name], gradient, rtol=0, atol=1e-13 * (1 + offset))
    for name, buffer in models[0].named_buffers().items():
        np.testing.assert_allclose(models[1].named_buffers()[name], buffer, rtol=1e-12)
