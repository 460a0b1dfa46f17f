"""Batches: shared out over threads, gone through in pieces, and every image as if it were alone."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from tests.interpret.nets import pair
from tinynet import nn
from tinynet.errors import ArgumentError
from tinynet.interpret import (
    attribution,
    deconvnet,
    grad_cam,
    guided_backprop,
    input_x_gradient,
    integrated_gradients,
    saliency,
    smoothgrad,
)

METHODS: dict[str, Any] = {
    "saliency": saliency, "absolute": lambda model, **how: saliency(model, absolute=True, **how), "guided": guided_backprop,
    "deconvnet": deconvnet, "input x gradient": input_x_gradient,
    "integrated": lambda model, **how: integrated_gradients(model, 5, **how),
    "smooth": lambda model, **how: smoothgrad(model, 3, **how), "cam": lambda model, **how: grad_cam(model, "relu3", **how),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_is_shared_out_over_threads(name: str) -> None:
    """Each image keeps its own class and unit, in whatever shard it is, and BLAS its threads for one image alone."""
    model, _, x = pair("mixed")
    x = np.concatenate([x, 2 * x[::-1], x[:1] - 1])             # 5 images
    target = np.array([3, 0, 2, 1, 1])
    for n in (5, 1):
        one = METHODS[name](model, workers=1).attribute(x[:n], target=target[:n])
        for workers in (2, 3, 8):
            threads: set[int] = set()
            method = METHODS[name](model, workers=workers)
            plain = method.step
            method.step = lambda *a, plain=plain, threads=threads: (threads.add(threading.get_ident()), plain(*a))[1]
            np.testing.assert_allclose(method.attribute(x[:n], target=target[:n]), one, atol=1e-12)
            alone = n == 1 and name not in ("integrated", "smooth")     # of which even one image makes a batch
            assert alone == (threads == {threading.get_ident()}) and threads
        if name != "cam":
            units = [METHODS[name](model, workers=w).attribute(x[:n], layer="conv1", unit=(1, "max")) for w in (1, 3)]
            np.testing.assert_allclose(*units, atol=1e-12)
    other = METHODS[name](model).attribute(x, target=target[::-1].copy())
    assert not np.allclose(METHODS[name](model).attribute(x, target=target), other)


@pytest.mark.parametrize("name", METHODS)
def test_a_large_batch_goes_some_images_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more on the way than AT_ONCE numbers say, or one a worker, and the same for every image."""
    model, _, x = pair("mixed")
    x, target = np.concatenate([x, 2 * x[::-1], x[:1] - 1, x * 3]), np.array([3, 0, 2, 1, 1, 0, 3])
    whole = METHODS[name](model, workers=2).attribute(x, target=target)
    walked: list[int] = []
    forward = nn.Sequential.forward
    monkeypatch.setattr(nn.Sequential, "forward", lambda self, x, *a, **k: (walked.append(len(x)), forward(self, x, *a, **k))[1])
    for numbers, most in ((0, 1), (3 * x[0].size, 2), (4 * x[0].size, 2), (100 * x[0].size, 4)):     # a shard: half, rounded up
        walked.clear()
        monkeypatch.setattr(attribution, "AT_ONCE", numbers)
        np.testing.assert_allclose(METHODS[name](model, workers=2).attribute(x, target=target), whole, atol=1e-12)
        if name not in ("integrated", "smooth"):                # whose batches are of inputs, several an image
            assert max(walked) == most


def test_a_wrong_number_of_targets_is_said_of_the_whole_batch() -> None:
    model, _, x = pair("mixed")
    for target in ([0], [0, 1, 2]):
        with pytest.raises(ArgumentError, match="or 2 of them"):
            saliency(model, workers=2).attribute(x, target=target)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_averages_do_not_depend_on_how_many_inputs_go_at_once(batch_size: int) -> None:
    model, _, x = pair("mixed")
    for small, large in (
        (smoothgrad(model, 4, batch_size=batch_size), smoothgrad(model, 4)),
        (integrated_gradients(model, 4, batch_size=batch_size), integrated_gradients(model, 4)),
    ):
        np.testing.assert_allclose(small.attribute(x, target=[1, 2]), large.attribute(x, target=[1, 2]), atol=1e-12)
