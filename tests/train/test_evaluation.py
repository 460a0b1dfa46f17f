"""evaluate and predict: what they give does not depend on batches or threads, and the mirror means what it says."""

from __future__ import annotations

import numpy as np
import pytest

from tinynet import nn
from tinynet.distributed import Shards
from tinynet.errors import ArgumentError
from tinynet.train import evaluate, predict


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    return nn.Sequential(
        conv=nn.Conv2d(3, 4, 3, rng=rng), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(), fc=nn.Linear(16, 3, rng=rng)
    ).to(dtype=np.float64)


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(1)
    return rng.standard_normal((7, 3, 6, 6)), rng.integers(0, 3, 7)


def batches(x, y, size):
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_and_threads_change_nothing(model, photos, size, workers):
    x, y = photos
    with Shards(workers) as shards:
        result = evaluate(model, batches(x, y, size), nn.CrossEntropyLoss(), shards)
    np.testing.assert_allclose(result.logits, model(x), rtol=0, atol=1e-14)
    assert result.loss == pytest.approx(float(nn.CrossEntropyLoss()(model(x), y)[0]), abs=1e-14)
    np.testing.assert_array_equal(result.labels, y)


def test_the_mirror_is_the_mean_of_both_views(model, photos):
    x, y = photos
    both = (model(x) + model(x[..., ::-1])) / 2
    np.testing.assert_allclose(evaluate(model, batches(x, y, 4), mirror=True).logits, both, rtol=0, atol=1e-14)
    e = np.exp(both)
    np.testing.assert_allclose(predict(model, x, mirror=True), e / e.sum(axis=1, keepdims=True), rtol=0, atol=1e-14)
    assert not np.allclose(both, model(x))
    seen_mirrored = evaluate(model, batches(np.ascontiguousarray(x[..., ::-1]), y, 4), mirror=True)
    np.testing.assert_allclose(seen_mirrored.logits, both, rtol=0, atol=1e-14)


def test_nothing_to_look_at_is_an_error(model):
    with pytest.raises(ArgumentError, match="empty loader"):
        evaluate(model, [])
    with pytest.raises(ArgumentError, match="at least one image"):
        predict(model, [])
