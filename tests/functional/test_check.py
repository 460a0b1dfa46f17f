"""What every op says of arguments that are none: one line that names what came and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tinynet import functional as F
from tinynet import interpret, nn
from tinynet.errors import ArgumentError, DtypeError, ShapeError
from tinynet.functional._check import generator
from tinynet.models import create, names

X = np.zeros((2, 3, 8, 8), np.float32)

LAYERS: list[nn.Layer] = [
    nn.Conv2d(3, 2, 3), nn.ConvTranspose2d(3, 2, 3), nn.Linear(8, 2), nn.BatchNorm2d(3), nn.LocalResponseNorm(2), nn.ReLU(),
    nn.Sigmoid(), nn.Softmax(1), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Pad((1, 1)),
    nn.Upsample(scale_factor=2), nn.Flatten(), nn.Dropout(),
    nn.Sequential(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), relu=nn.ReLU()),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), [
    (torch.zeros(2, 3, 8, 8), r"got a torch.Tensor; convert it first: x.numpy\(\)"),
    (X.tolist(), "got list; convert it first, e.g. numpy.asarray"),
    (None, "expected a NumPy or CuPy array, got None"),
], ids=["tensor", "list", "none"])  # fmt: skip
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_what_is_no_array_is_named_by_every_layer(layer: nn.Layer, given: Any, message: str) -> None:
    rng = np.random.default_rng(0)
    for way in (layer, layer.forward, lambda x: layer.forward(x, train=True, rng=rng)):
        with pytest.raises(DtypeError, match=message) as error:
            way(given)
        assert "input: " in str(error.value)


@pytest.mark.parametrize("given", [torch.zeros(2, 3, 8, 8), X.tolist(), None], ids=lambda given: type(given).__name__)
def test_what_is_no_array_is_named_by_the_ways_back(given: Any) -> None:
    model = nn.Sequential(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU(), flatten=nn.Flatten(), fc=nn.Linear(144, 3))
    for method in (interpret.deconvnet, interpret.saliency, interpret.integrated_gradients, interpret.guided_backprop):
        with pytest.raises(DtypeError, match="attribute: x: expected a NumPy or CuPy array, got"):
            method(model).attribute(given, target=1)
        with pytest.raises(DtypeError, match="attribute: x: expected a NumPy or CuPy array, got"):
            method(model).attribute(given, layer="relu", unit=1)


def test_of_two_dtypes_the_wide_one_is_to_be_converted() -> None:
    model = nn.Sequential(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU())
    with pytest.raises(DtypeError, match=r"conv: conv2d: .* input of float64 and weight of float32; .*input\.astype"):
        model(X.astype(np.float64))
    with pytest.raises(DtypeError, match=r"mse_loss: .* input of float32 and target of float64; .*target\.astype"):
        F.mse_loss(X, X.astype(np.float64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_that_are_floats_are_told_to_be_integers(dtype: Any) -> None:
    logits = np.zeros((2, 3), np.float32)
    for loss in (F.cross_entropy, F.cross_entropy_input_gradient, nn.CrossEntropyLoss()):
        with pytest.raises(ShapeError, match=r"class numbers, integers \(2,\).*target\.astype\(numpy\.int64\)"):
            loss(logits, np.zeros(2, dtype))
    with pytest.raises(DtypeError, match=r"class numbers.*target\.astype\(numpy\.int64\)"):
        F.nll_loss(logits, np.zeros(2, dtype))
    with pytest.raises(DtypeError, match=r"class numbers.*target\.astype\(numpy\.int64\)"):
        F.cross_entropy(logits, np.zeros(2, np.int32))


@pytest.mark.parametrize("seed", [0, 5, False, np.random.RandomState(0)], ids=repr)
def test_a_seed_in_place_of_a_generator_is_refused(seed: Any) -> None:
    x = np.ones((2, 3), np.float32)
    ways: dict[str, Callable[[], Any]] = {
        "conv": lambda: nn.Conv2d(3, 2, 3, rng=seed), "transposed": lambda: nn.ConvTranspose1d(3, 2, 3, rng=seed),
        "linear": lambda: nn.Linear(3, 2, rng=seed), "init": lambda: nn.init.kaiming_normal(seed, (3, 2)),
        "dropout": lambda: F.dropout(x, rng=seed), "mask": lambda: F.dropout_mask((2, 3), 0.5, seed),
        "layer": lambda: nn.Dropout().forward(x, train=True, rng=seed), "drawn": lambda: nn.init.xavier_uniform(seed, (3, 2)),
    }
    for name in names():
        ways[name] = lambda name=name: create(name, rng=seed)
    for name, way in ways.items():
        with pytest.raises(ArgumentError, match=r"expected a numpy.random.Generator, such as numpy.random.default_rng\(0\), got"):
            pytest.fail(f"{name}: {way()!r}")


def test_no_generator_is_a_fresh_one_and_a_given_one_is_itself() -> None:
    rng = np.random.default_rng(0)
    assert generator(rng) is rng and generator(nn.init.no_draws) is nn.init.no_draws
    assert generator(None).random() != generator(None).random()
    assert (nn.Linear(3, 2).weight != nn.Linear(3, 2).weight).any()
