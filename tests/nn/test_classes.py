"""A softmax at the end of a network is seen, however deep it stands, and the network without it is the same below."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tinynet import nn
from tinynet.errors import ArgumentError, ShapeError
from tinynet.nn.classes import final_softmax, probabilities, without_softmax


def body() -> dict[str, nn.Layer]:
    rng = np.random.default_rng(0)
    return {"flatten": nn.Flatten(), "fc": nn.Linear(12, 3, rng=rng)}


X = np.random.default_rng(1).standard_normal((2, 3, 2, 2)).astype(np.float32)


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Softmax(-1), nn.LogSoftmax(1)], ids=repr)
def test_a_softmax_at_the_end_is_taken_off_wherever_it_stands(end: nn.Layer) -> None:
    plain = nn.Sequential(body())
    for whole in (
        nn.Sequential({**body(), "prob": end}), nn.Sequential({**body(), "prob": end, "out": nn.Identity()}),
        nn.Sequential(net=nn.Sequential(body()), head=nn.Sequential(_hidden=nn.Sequential(prob=end))),
    ):
        assert final_softmax(whole) is end
        before = [path for path, _ in whole.layers()]
        logits = without_softmax(whole)
        np.testing.assert_array_equal(logits(X), plain(X))
        assert [path for path, _ in whole.layers()] == before, "the model is left as it is"
        kept = [path for path, layer in whole.layers() if not isinstance(layer, nn.Container) and layer is not end]
        assert [path for path, layer in logits.layers() if not isinstance(layer, nn.Container)] == kept
        assert all(logits.layer(path) is whole.layer(path) for path in kept)
    assert np.array_equal(without_softmax(end)(X), X)


def test_a_softmax_that_is_not_over_the_classes_at_the_end_stays() -> None:
    class Scaled(nn.Sequential):
        def forward(self, x, train=False, rng=None, watch=None):  # type: ignore[no-untyped-def]
            return super().forward(2 * x, train, rng, watch)

    for model in (
        nn.Sequential(body()), nn.Sequential(soft=nn.Softmax(1), **body()), nn.Sequential({**body(), "prob": nn.Softmax(0)}),
        Scaled({**body(), "prob": nn.Softmax(1)}), nn.Residual(nn.Softmax(1)), nn.Sequential(),
    ):
        assert final_softmax(model) is None and without_softmax(model) is model


def test_a_network_of_independent_answers_is_refused() -> None:
    with pytest.raises(ArgumentError, match="ends in Sigmoid"):
        without_softmax(nn.Sequential({**body(), "yes": nn.Sigmoid()}))


def test_probabilities_are_pytorchs_softmax_in_float64() -> None:
    logits = 90 * X.reshape(2, 12)
    found = probabilities(logits)
    assert found.dtype == np.float64 and found.min() > 0
    np.testing.assert_allclose(found, torch.softmax(torch.from_numpy(logits).double(), 1).numpy(), rtol=1e-12)
    with pytest.raises(ShapeError, match=r"expected a model with an output \(N, classes\), got \(2, 3, 2, 2\)"):
        probabilities(X)
