"""A large linear layer whose product the shards of a batch share: each thread computes some columns for all samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinynet import interpret, nn
from tinynet.distributed import Shards
from tinynet.errors import ShapeError
from tinynet.nn import linear


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight counts as large."""
    monkeypatch.setattr(linear, "_LARGE", 1)


def network(rng: np.random.Generator) -> nn.Sequential:
    """With fewer features than threads at its end, and a layer that is used twice."""
    twice = nn.Linear(5, 5, rng=rng)
    return nn.Sequential(
        first=nn.Linear(4, 5, bias=False, rng=rng), a=twice, relu=nn.ReLU(), b=twice, last=nn.Linear(5, 1, rng=rng)
    ).to(dtype=np.float64)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each shared product was of."""
    seen: list[int] = []
    shared = linear._shared

    def noted(member: Any, x: Any, product: Any) -> Any:
        return shared(member, x, lambda whole: (seen.append(len(whole)), product(whole))[1])

    monkeypatch.setattr(linear, "_shared", noted)
    return seen


@pytest.mark.parametrize(("count", "workers"), [(8, 2), (7, 3), (2, 3), (1, 2), (5, 1)])
def test_a_step_and_inference_are_those_of_the_whole_batch(count: int, workers: int, products: list[int]) -> None:
    rng = np.random.default_rng(0)
    model, loss = network(rng), nn.MSELoss()
    x, target, rngs = rng.standard_normal((count, 4)), rng.standard_normal((count, 1)), [rng] * workers
    logits, saved = model.forward(x, train=True)
    _, whole = nn.backward(model, saved, loss(logits, target)[1])
    with Shards(workers) as shards:
        steps = [shards.step(model, loss, x, target, rngs) for _ in range(2)]
        inferred = shards.infer(model, x)
    threads = min(count, workers)
    # Forward four layers, of which one is used twice, back three (the first gives no input gradient); inference four.
    assert products == ([count] * threads * (4 + 3 + 4 + 3 + 4) if threads > 1 else [])
    np.testing.assert_allclose(inferred, logits, rtol=0, atol=1e-14)
    for step in steps:
        np.testing.assert_allclose(step.logits, logits, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(step.logits, steps[0].logits)
        for name, gradient in whole.items():
            np.testing.assert_allclose(step.gradients[name], gradient, rtol=0, atol=1e-14, err_msg=name)
            np.testing.assert_array_equal(step.gradients[name], steps[0].gradients[name], err_msg=name)


def test_shards_that_need_not_go_in_step_share_nothing(products: list[int]) -> None:
    """One calls the layer once, the other twice: neither may wait for the other."""
    layer, x = nn.Linear(4, 3, rng=np.random.default_rng(0)), np.ones((3, 4), np.float32)

    def work(part: Any) -> Any:
        return [layer(part) for _ in range(len(part))][-1]

    with Shards(2) as shards:
        found = shards.apply(work, x)
    np.testing.assert_allclose(np.concatenate(found), layer(x), rtol=1e-6, atol=1e-6)     # sums of numbers near 1
    assert not products


@pytest.mark.parametrize("workers", [2, 3])
def test_looking_inside_shares_it_and_shows_the_same(workers: int, products: list[int]) -> None:
    """Projections, gradients and occlusion: every shard goes through the same linear layers, wherever its squares lie."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        conv=nn.Conv2d(1, 2, 3, padding=1, rng=rng), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(),
        fc=nn.Linear(32, 5, rng=rng), relu2=nn.ReLU(), last=nn.Linear(5, 3, rng=rng),
    ).to(dtype=np.float64)
    x = rng.standard_normal((7, 1, 8, 8))
    for way in (interpret.deconvnet, interpret.saliency):
        alone = way(model, workers=1).attribute(x, target=1)
        assert not products
        np.testing.assert_allclose(way(model, workers=workers).attribute(x, target=1), alone, rtol=0, atol=1e-14)
        assert products == [7] * workers * 4                    # two layers, both ways
        products.clear()
    alone, shared = (interpret.occlusion(model, x[0], patch=3, stride=1, target=1, batch_size=7, workers=w) for w in (1, workers))
    np.testing.assert_allclose(shared.probability, alone.probability, rtol=0, atol=1e-12)
    assert products == [7] * workers * 2 * 5                    # 36 squares: the first by itself, five times seven


def test_what_is_no_matrix_of_its_features_goes_the_plain_way(products: list[int]) -> None:
    layer = nn.Linear(4, 3)
    with Shards(2) as shards:
        y = shards.infer(layer, np.ones((4, 2, 4), np.float32))
        with pytest.raises(ShapeError, match=r"expected input \(..., 4\), got \(2, 5\)"):
            shards.infer(layer, np.ones((4, 5), np.float32))
    assert y.shape == (4, 2, 3) and not products


class Fails(nn.Identity):
    def forward(self, x: Any, train: bool = False, rng: Any = None) -> Any:
        if x[0, 0] == 0:
            raise ZeroDivisionError("in one shard")
        return super().forward(x)


def test_a_shard_that_fails_leaves_nobody_waiting() -> None:
    model = nn.Sequential(Fails(), nn.Linear(4, 3))
    with Shards(2) as shards, pytest.raises(ZeroDivisionError, match="in one shard"):
        shards.infer(model, np.arange(16, dtype=np.float32).reshape(4, 4))
