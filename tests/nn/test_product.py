"""Gradients left as products: what they give is what computing them at once gives, alone, added up, and over shards."""

from __future__ import annotations

import numpy as np
import pytest

from tests.checking import Backend, values
from tinynet import nn
from tinynet.distributed import Shards
from tinynet.functional import linear_weight_gradient
from tinynet.kernels import factors
from tinynet.kernels.factors import Product, total


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,)])
def test_a_product_is_the_weight_gradient(lead: tuple[int, ...], backend: Backend) -> None:
    dy, x = backend.array(values(0, (*lead, 4))), backend.array(values(1, (*lead, 5)))
    product, want = Product.of(dy, x), backend.host(linear_weight_gradient(dy, x))
    assert product.shape == (4, 5)
    np.testing.assert_array_equal(backend.host(product.value()), want)


def test_the_sum_of_products_is_a_product_and_of_anything_else_an_array(backend: Backend) -> None:
    shares = [Product(backend.array(values(i, (i, 4))), backend.array(values(9 + i, (i, 5)))) for i in (1, 2, 3)]
    want = sum(backend.host(share.value()) for share in shares)
    both = total(shares)
    assert isinstance(both, Product) and both.dy.shape == (6, 4)
    np.testing.assert_allclose(backend.host(both.value()), want, rtol=0, atol=1e-13)
    mixed = total([shares[0], shares[1].value(), shares[2]])
    np.testing.assert_allclose(backend.host(mixed), want, rtol=0, atol=1e-13)


def test_only_factors_much_smaller_than_their_product_are_kept() -> None:
    layer = nn.Linear(64, 64)                                   # 4 · n · 128 numbers against 4096
    for n, kept in ((8, True), (9, False)):
        x = values(0, (n, 64)).astype(np.float32)
        y, saved = layer.forward(x)
        assert (layer.factored_gradients(saved, y) is not None) == kept
    gradients = nn.backward(layer, layer.forward(x[:8])[1], y[:8], factored=True)[1]
    assert isinstance(gradients["weight"], Product) and gradients["bias"].shape == (64,)
    assert nn.backward(layer, saved, y)[1]["weight"].shape == (64, 64)
    assert nn.backward(layer, layer.forward(x[:8])[1], y[:8], factored=True, only=["bias"])[1].keys() == {"bias"}


def network(rng: np.random.Generator) -> nn.Sequential:
    """With a layer that is used twice, and one whose factors are as large as their product."""
    twice = nn.Linear(64, 64, rng=rng)
    return nn.Sequential(
        first=nn.Linear(48, 64, bias=False, rng=rng), a=twice, relu=nn.ReLU(), b=twice, last=nn.Linear(64, 3, rng=rng)
    ).to(dtype=np.float64)


@pytest.mark.parametrize(("most", "left"), [(5, False), (6, True)])
@pytest.mark.parametrize("workers", [1, 2])
def test_products_of_many_samples_are_written(monkeypatch: pytest.MonkeyPatch, most: int, left: bool, workers: int) -> None:
    """To multiply them some rows at a time would take longer than memory does."""
    monkeypatch.setattr(factors, "_FEW", most)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((6, 48)), rng.integers(0, 3, 6)
    with Shards(workers) as shards:
        gradients = shards.step(network(rng), nn.CrossEntropyLoss(), x, labels, [rng] * workers, factored=True).gradients
    assert isinstance(gradients["first.weight"], Product) == left
    assert Product(np.ones((6, 9), np.float32), np.ones((6, 9), np.float32)).norm_follows == left


@pytest.mark.parametrize(("count", "workers"), [(6, 2), (17, 2), (9, 3), (40, 2), (1, 2), (5, 1)])
def test_shards_of_products_give_the_gradients_of_the_whole_batch(count: int, workers: int) -> None:
    """17 in two: one shard has 8 samples and keeps factors, the other has 9 and does not. Left as they are, products stand for
    the same bits."""
    rng = np.random.default_rng(0)
    model, loss = network(rng), nn.CrossEntropyLoss()
    x, labels, rngs = rng.standard_normal((count, 48)), rng.integers(0, 3, count), [rng] * workers
    logits, saved = model.forward(x, train=True)
    _, whole = nn.backward(model, saved, loss(logits, labels)[1])
    with Shards(workers) as shards:
        steps = [shards.step(model, loss, x, labels, rngs).gradients for _ in range(2)]
        left = shards.step(model, loss, x, labels, rngs, factored=True).gradients
        once = shards.step(model, loss, x, labels, rngs, only={"a.weight"}, factored=True).gradients
    assert list(left) == list(whole) and once.keys() == {"a.weight"}
    per_shard = -(-count // workers)
    for name, gradient in left.items():
        few = 4 * per_shard * (48 + 64) <= 48 * 64 if name == "first.weight" else 4 * 2 * per_shard * 128 <= 64 * 64
        assert isinstance(gradient, Product) == (few and name in ("first.weight", "a.weight"))
        written = gradient.value() if isinstance(gradient, Product) else gradient
        np.testing.assert_array_equal(written, steps[0][name], err_msg=name)
    for gradients in steps:
        assert list(gradients) == list(whole)
        for name, gradient in whole.items():
            assert type(gradients[name]) is np.ndarray and gradients[name].flags.writeable
            np.testing.assert_allclose(gradients[name], gradient, rtol=0, atol=1e-13, err_msg=name)
            np.testing.assert_array_equal(gradients[name], steps[0][name], err_msg=name)


def test_a_gpu_computes_its_gradients(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    model, x, labels = network(rng), rng.standard_normal((6, 48)), rng.integers(0, 3, 6)
    logits, saved = model.forward(x, train=True)
    _, whole = nn.backward(model, saved, nn.CrossEntropyLoss()(logits, labels)[1])
    for name, parameter in model.named_parameters().items():
        layer, _, own = name.rpartition(".")
        setattr(model.layer(layer), own, backend.array(parameter))
    given = (model, nn.CrossEntropyLoss(), backend.array(x), backend.array(labels), [rng] * 2)
    with Shards(2) as shards:
        found = shards.step(*given, factored=True).gradients
    assert isinstance(found["first.weight"], Product) == (backend.xp is np)
    for name, gradient in found.items():
        written = gradient.value() if isinstance(gradient, Product) else gradient
        np.testing.assert_allclose(backend.host(written), whole[name], rtol=0, atol=1e-13, err_msg=name)


class Shift(nn.Layer):
    """y = x + b with one number b: its gradient is a NumPy scalar, no array."""

    parameter_names = ("b",)

    def __init__(self) -> None:
        self.b = np.zeros(())

    def forward(self, x, train=False, rng=None):  # type: ignore[no-untyped-def]
        return x + self.b, nn.Nothing()

    def input_gradient(self, saved, dy):  # type: ignore[no-untyped-def]
        return dy

    def parameter_gradients(self, saved, dy):  # type: ignore[no-untyped-def]
        return {"b": dy.sum()}


def test_a_gradient_that_is_one_number_adds_up() -> None:
    x, labels = np.arange(12.0).reshape(4, 3), np.zeros(4, int)
    with Shards(2) as shards:
        step = shards.step(nn.Sequential(Shift()), nn.MSELoss(), x, labels[:, None] + 0 * x, [np.random.default_rng()] * 2)
    np.testing.assert_allclose(step.gradients["0.b"], 2 * x.sum() / 12, rtol=1e-14)
