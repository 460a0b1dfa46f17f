"""Inference does a normalisation with what stands around it: the numbers of one layer after the other, and PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checking import Backend, close, values
from tests.nn.helpers import copy_state, place, randomise
from tinynet import nn
from tinynet.errors import TinynetError
from tinynet.interpret import touched
from tinynet.interpret.observe import observe

KINDS = {"float64": 0.0, "float32": 2e-4}
"""dtype: what may differ of outputs of order one; Winograd's algorithm leaves up to 1e-4 in float32."""


@st.composite
def chains(draw: st.DrawFn) -> dict[str, Any]:
    """(first layer, normalisation, what follows) with the first a convolution or a pooling, and their input."""
    n = draw(st.integers(1, 3))
    groups, per, channels = draw(st.sampled_from([(1, 3, 2), (1, 8, 5), (2, 2, 2), (3, 1, 1)]))
    filters, channels = per * groups, channels * groups
    kernel, stride, padding = draw(st.sampled_from([(1, 1, 0), (2, 2, 0), (3, 1, 1), (3, 2, 1), (5, 1, 2)]))
    affine, bias = draw(st.booleans()), draw(st.booleans())
    tail = draw(st.sampled_from([(), ("ReLU",), ("ReLU6",), ("ReLU", "MaxPool"), ("MaxPool",), ("Sigmoid",)]))
    first = draw(st.sampled_from(["Conv", "Conv", "MaxPool", "Conv+MaxPool", "nothing"]))
    size = [draw(st.integers(6, 10)) for _ in range(n)] if n < 3 else [6] * n

    def build(module: Any) -> Any:
        """The same in tinynet.nn and torch.nn."""
        layers: list[Any] = []
        c = channels

        def kind(name: str) -> Any:
            return getattr(module, f"{name}{n}d")

        if "Conv" in first:
            layers.append(kind("Conv")(channels, filters, kernel, stride, padding, groups=groups, bias=bias))
            c = filters
        if "MaxPool" in first:
            layers.append(kind("MaxPool")(2))
        layers.append(kind("BatchNorm")(c, affine=affine))
        layers += [kind(name)(2) if name == "MaxPool" else getattr(module, name)() for name in tail]
        return module.Sequential(*layers)

    return {"build": build, "shape": (draw(st.sampled_from([0, 1, 3])), channels, *size), "seed": draw(st.integers(0, 999))}


@pytest.mark.parametrize("dtype", KINDS)
@settings(max_examples=150)
@given(case=chains())
def test_against_pytorch_and_one_by_one(backend: Backend, dtype: str, case: dict[str, Any]) -> None:
    model, module = randomise(case["build"](nn), case["seed"]), case["build"](torch.nn).double().eval()
    copy_state(model, module)
    try:
        expected = module(torch.from_numpy(values(case["seed"], case["shape"]))).detach().numpy()
    except RuntimeError:                                        # a map that a second pooling makes nothing of
        return
    model = place(model.to(dtype=np.dtype(dtype)), backend)
    x = backend.array(values(case["seed"], case["shape"]).astype(dtype))
    before, seen = backend.host(x).copy(), []
    one_by_one = model(x, watch=lambda path, layer, y: seen.append(path))
    assert seen == [str(i) for i in range(len(model))], "a watch sees every layer"
    close(backend.host(one_by_one), expected, dtype, "one by one", KINDS[dtype])
    close(backend.host(model(x)), expected, dtype, "at once", KINDS[dtype])
    np.testing.assert_array_equal(backend.host(x), before)


def chain(norm: nn.Layer, *others: nn.Layer) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, rng=np.random.default_rng(0)), norm, *others)


def test_how_many_layers_go_at_once() -> None:
    def others(first: nn.Layer, *following: nn.Layer) -> int:
        fused = first.fused(following)
        return 0 if fused is None else fused.others

    conv, norm, relu, pool = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)
    assert others(conv, norm, relu, conv) == 2 and others(conv, norm, nn.ReLU6()) == others(conv, norm) == 1
    assert others(pool, norm, relu) == 2 and others(pool, norm) == others(norm, relu) == 1
    assert others(norm, nn.Sigmoid()) == others(norm) == others(pool, relu) == others(conv, pool, norm) == 0


@pytest.mark.parametrize("what", ["statistics of the batch", "other dtype", "a class of its own", "other channels", "transposed"])
def test_what_is_not_a_fixed_scale_and_shift_is_not_folded(what: str) -> None:
    class Doubled(nn.BatchNorm2d):
        def forward(self, *arguments: Any, **options: Any) -> Any:
            y, saved = super().forward(*arguments, **options)
            return 2 * y, saved

    conv: Any = nn.ConvTranspose2d(2, 3, 3) if what == "transposed" else nn.Conv2d(2, 3, 3)
    norm: Any = {
        "statistics of the batch": lambda: nn.BatchNorm2d(3, track_running_stats=False), "a class of its own": lambda: Doubled(3),
        "other dtype": lambda: nn.BatchNorm2d(3, dtype=np.float64), "other channels": lambda: nn.BatchNorm2d(4),
    }.get(what, lambda: nn.BatchNorm2d(3))()
    assert conv.fused([norm, nn.ReLU()]) is None
    x, model = values(0, (2, 2, 6, 6)).astype(np.float32), nn.Sequential(conv, norm, nn.ReLU())
    try:
        expected = model(x, watch=lambda *seen: None)
    except TinynetError as error:
        with pytest.raises(type(error)) as found:
            model(x)
        assert str(found.value) == str(error)
        return
    np.testing.assert_array_equal(model(x), expected)


def test_one_image_is_refused_as_ever_and_a_map_of_one_axis_is_a_batch() -> None:
    with pytest.raises(TinynetError, match="BatchNorm2d: expected input of 4 axes"):
        chain(nn.BatchNorm2d(3), nn.ReLU())(np.ones((2, 5, 5), np.float32))
    flat = randomise(nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU()))
    x = values(0, (2, 5))                                       # one sample (C, L), whose output (3, 3) is a batch to the norm
    np.testing.assert_allclose(flat(x), flat(x, watch=lambda *seen: None), rtol=1e-12)


def test_a_mean_far_from_zero_costs_no_digits_behind_a_pooling() -> None:
    norm = nn.BatchNorm2d(2)
    norm.running_mean[...], norm.running_var[...] = 1000, 1e-4
    x = (1000 + values(0, (3, 2, 8, 8)) / 100).astype(np.float32)
    exact = (x.reshape(3, 2, 4, 2, 4, 2).max(axis=(3, 5)).astype(np.float64) - 1000) / np.sqrt(1e-4 + 1e-5)
    np.testing.assert_allclose(nn.Sequential(nn.MaxPool2d(2), norm)(x), exact, rtol=0, atol=1e-5)


def test_who_looks_between_sees_what_is_there() -> None:
    model = randomise(nn.Sequential(
        conv=nn.Conv2d(2, 3, 3, padding=1), bn=nn.BatchNorm2d(3), relu=nn.ReLU(), last=nn.Conv2d(3, 1, 1),
    ))  # fmt: skip
    x = values(0, (2, 2, 6, 6))
    seen = observe(model, x, ["conv", "bn", "relu"]).layers
    np.testing.assert_array_equal(seen["conv"], model["conv"](x))
    np.testing.assert_array_equal(seen["relu"], np.maximum(seen["bn"], 0))
    for path in ("conv", "bn", "relu", "last"):
        found: dict[str, Any] = {}
        touched.run(model, x, {}, touched.Look((path,), found.__setitem__))
        np.testing.assert_allclose(found[path], seen[path] if path in seen else model(x), rtol=0, atol=1e-12)
