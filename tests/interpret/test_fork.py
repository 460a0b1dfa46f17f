"""Networks that share their lower layers: what is computed once is what each of them gives alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.checking import Backend, values
from tests.interpret.nets import pair
from tests.nn.helpers import place, randomise
from tinynet import nn
from tinynet.interpret import integrated_gradients, occlusion, randomised, saliency, smoothgrad
from tinynet.interpret.fork import Fork
from tinynet.interpret.occlusion import covered


def redrawn(model: nn.Layer, *down_to: str) -> list[nn.Layer]:
    return [randomised(model, np.random.default_rng(i), path, share=True) for i, path in enumerate(down_to)]


CASES = {
    "overlapping": {"fc": "flatten", "conv3": "pool2", "conv1": ""},
    "squeeze": {"classifier.1": "classifier.0", "features.5.expand1x1": "features.5.squeeze_activation",
                "features.5.squeeze": "features.4", "features.3": "features.2", "features.0": ""},
}


@pytest.mark.parametrize("name", CASES)
def test_each_goes_its_own_way_behind_the_last_layer_in_common(name: str) -> None:
    model = pair(name)[0]
    assert Fork(model, redrawn(model, *CASES[name])).places == list(CASES[name].values())


def test_nothing_is_in_common_with_a_copy_or_with_a_layer_that_comes_again() -> None:
    model = pair("overlapping")[0]
    assert Fork(model, [randomised(model, np.random.default_rng(0), "fc")]).places == [""]
    again = nn.Conv2d(3, 3, 1)
    first = nn.Sequential(a=again, b=nn.ReLU(), c=nn.Conv2d(3, 3, 1), d=again)
    second = nn.Sequential(a=again, b=first["b"], c=nn.Conv2d(3, 3, 1), d=again)
    assert Fork(first, [second]).places == [""]
    other = nn.Sequential(a=again, other=first["b"], c=nn.ReLU())
    assert Fork(first, [other]).places == ["a"]                 # of the same layers, the names are the same, too
    assert Fork(again, [nn.ReLU()]).places == [""]


@pytest.mark.parametrize("name", [*CASES, "residual", "mixed"])
def test_gradients_of_each_are_those_of_it_alone(name: str, backend: Backend) -> None:
    model, _, x = pair(name)
    weighted = [path for path, layer in model.layers() if getattr(getattr(layer, "weight", None), "ndim", 0) >= 2]
    model, x = place(model, backend), backend.array(x)
    others = redrawn(model, weighted[-1], weighted[len(weighted) // 2], weighted[0])
    target = backend.array(np.arange(len(x)) % 3)
    ways: list[Any] = [lambda m: integrated_gradients(m, 3, batch_size=2), lambda m: smoothgrad(m, 3, workers=2)]
    for way in ways:
        found = way(model).of_each(others, x, target)
        assert len(found) == 4
        for other, map in zip([model, *others], found, strict=True):
            expected = backend.host(way(other).attribute(x, target))
            np.testing.assert_allclose(backend.host(map), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
        assert not np.allclose(backend.host(found[0]), backend.host(found[1]))
    said = integrated_gradients(model, 2).of_each(others[:1], x)                  # the class that the model says, for all
    expected = integrated_gradients(others[0], 2).attribute(x, model(x).argmax(axis=1))
    np.testing.assert_allclose(backend.host(said[1]), backend.host(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", [*CASES, "residual"])
def test_covering_is_that_of_each_alone(name: str) -> None:
    model, _, x = pair(name)
    weighted = [path for path, layer in model.layers() if getattr(getattr(layer, "weight", None), "ndim", 0) >= 2]
    others = redrawn(model, weighted[-1], weighted[len(weighted) // 2], weighted[0])
    found = covered([model, *others], x[0], patch=(4, 3), stride=(3, 2), batch_size=7, workers=2)
    target = int(model(x[:1]).argmax())
    for other, one in zip([model, *others], found, strict=True):
        alone = occlusion(other, x[0], target, patch=(4, 3), stride=(3, 2))
        assert (one.patch, one.stride, one.size, one.target) == (alone.patch, alone.stride, alone.size, alone.target)
        np.testing.assert_allclose(one.logits, alone.logits, rtol=0, atol=1e-10)
        np.testing.assert_allclose(one.whole_logits, alone.whole_logits, rtol=0, atol=1e-10)
        for of in ("probability", "logit"):
            np.testing.assert_allclose(one.attribution(of), alone.attribution(of), rtol=0, atol=1e-10)
    assert not np.allclose(found[0].logits, found[1].logits)


def test_what_is_in_common_is_computed_once() -> None:
    calls: list[int] = []
    model = randomise(nn.Sequential(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU(), flatten=nn.Flatten(), fc=nn.Linear(144, 3)))
    conv = model["conv"]                                        # type: ignore[index]
    walk = conv.walk
    conv.walk = lambda *how: calls.append(len(how[0])) or walk(*how)
    others = redrawn(model, "fc", "fc", "fc")
    fork = Fork(model, others)
    x, mask = values(0, (2, 3, 8, 8)), values(1, (2, 3))
    found = fork.back(saliency(model), x, mask)
    assert calls == [2] and fork.places == ["flatten"] * 3
    for other, map in zip([model, *others], found, strict=True):
        _, saved = other.forward(x)
        np.testing.assert_allclose(map, other.input_gradient(saved, mask), rtol=0, atol=1e-12)
