"""A layer or a container of one's own, derived from one of tinynet's, is what it says, whoever walks through it or looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinynet
from tinynet import nn
from tinynet.errors import ArgumentError
from tinynet.interpret.occlusion import covered
from tinynet.nn.layer import Layer


class Doubled(nn.Conv2d):
    def forward(self, x: Any, train: bool = False, rng: Any = None) -> Any:
        y, saved = super().forward(x, train, rng)
        return 2 * y, saved

    def input_gradient(self, saved: Any, dy: Any) -> Any:
        return super().input_gradient(saved, 2 * dy)

    def parameter_gradients(self, saved: Any, dy: Any) -> Any:
        return super().parameter_gradients(saved, 2 * dy)


class Lifted(nn.ReLU):
    def forward(self, x: Any, train: bool = False, rng: Any = None) -> Any:
        y, saved = super().forward(x, train, rng)
        return y + 1, saved


class Widest(nn.MaxPool2d):
    def forward(self, x: Any, train: bool = False, rng: Any = None) -> Any:
        y, saved = super().forward(x, train, rng)
        return 3 * y, saved


class Scaled(nn.BatchNorm2d):
    def forward(self, x: Any, train: bool = False, rng: Any = None) -> Any:
        y, saved = super().forward(x, train, rng)
        return 5 * y, saved


class Twice(nn.Sequential):
    """y = 2 · what its layers give."""

    def infer(self, x: Any, watch: Any = None, path: str = "") -> Any:
        return 2 * super().infer(x, watch, path)

    def walk(self, *given: Any) -> Any:
        y, saved = super().walk(*given)
        return 2 * y, saved


def conv(kind: type[nn.Conv2d] = nn.Conv2d, maps: int = 3) -> nn.Conv2d:
    return kind(maps, maps, 3, rng=np.random.default_rng(0))


def photos(count: int = 2, side: int = 12) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, side, side)).astype(np.float32)


@pytest.mark.parametrize("layers", [
    (conv(Doubled), nn.ReLU()), (conv(), Lifted()), (conv(), nn.BatchNorm2d(3), Lifted()), (conv(Doubled), nn.BatchNorm2d(3)),
    (conv(), Scaled(3), nn.ReLU()), (Widest(2), nn.BatchNorm2d(3), nn.ReLU()), (nn.MaxPool2d(2), Scaled(3)),
    (nn.ReLU(), Widest(2)),
], ids=lambda layers: " ".join(type(layer).__name__ for layer in layers))  # fmt: skip
def test_every_walk_computes_what_the_layers_do_one_by_one(layers: tuple[Layer, ...]) -> None:
    x = expected = photos()
    for layer in layers:
        expected = layer.forward(expected)[0]
    model = nn.Sequential(*layers)
    before = x.copy()
    ways = [
        model(x), model.forward(x)[0], model.forward(x, watch=lambda *seen: None)[0], model.infer(x), model(x, lambda *seen: None)
    ]
    for y in ways:
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(x, before)


def test_gradients_of_its_own_are_those_that_are_used() -> None:
    plain, own = conv(), conv(Doubled)
    x = photos()
    dy = np.ones((2, 3, 10, 10), np.float32)
    found = []
    for layer in (plain, own):
        model = nn.Sequential(a=nn.Identity(), b=layer)
        found.append(nn.backward(model, model.forward(x)[1], dy))
    (dx, gradients), (own_dx, own_gradients) = found
    np.testing.assert_allclose(own_dx, 2 * dx, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(own_gradients["b.weight"], 2 * gradients["b.weight"], rtol=1e-5, atol=1e-5)


def test_a_linear_layer_with_gradients_of_its_own_leaves_no_factors() -> None:
    class Frozen(nn.Linear):
        def parameter_gradients(self, saved: Any, dy: Any) -> Any:
            return {name: 0 * value for name, value in super().parameter_gradients(saved, dy).items()}

    model = nn.Sequential(Frozen(600, 600, rng=np.random.default_rng(0)))
    y, saved = model.forward(np.ones((2, 600), np.float32))
    for factored in (False, True):
        gradients = nn.backward(model, saved, y, factored=factored)[1]
        assert isinstance(gradients["0.weight"], np.ndarray) and not gradients["0.weight"].any()


@pytest.mark.parametrize("part", [conv(Doubled), nn.Sequential(Widest(1), nn.ReLU()), Twice(conv(), nn.ReLU())],
                         ids=["a convolution", "a pooling", "a container"])
def test_occlusion_goes_through_it(part: Layer) -> None:
    rng = np.random.default_rng(2)
    model = nn.Sequential(body=part, last=nn.Conv2d(3, 4, 3, rng=rng), flat=nn.Flatten())
    side = model(photos(1)).shape[1]
    model = nn.Sequential(body=part, last=model.layer("last"), flat=nn.Flatten(), fc=nn.Linear(side, 3, rng=rng))
    x = photos(1)
    found = covered([model], x, 1, patch=3, stride=3, fill=0.7)[0]
    hidden = x.copy()
    hidden[:, :, found.tops[1] : found.tops[1] + 3, found.lefts[2] : found.lefts[2] + 3] = 0.7
    np.testing.assert_allclose(found.logits[1, 2], model(hidden)[0], rtol=1e-4, atol=1e-5)


def test_what_no_file_could_say_is_not_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    for part in (conv(Doubled), Twice(conv())):
        with pytest.raises(ArgumentError, match=rf"not supported: part: {type(part).__name__}"):
            tinynet.to_onnx(nn.Sequential(part=part), tmp_path / "a.onnx", (3, 8, 8))


def test_it_is_not_cut_in_two() -> None:
    model = Twice(a=conv(), b=conv())
    with pytest.raises(ArgumentError, match="split"):
        nn.split(model, "a")


def test_what_it_sees_is_not_known_unless_it_says_so() -> None:
    class Stretched(Layer):
        """Every cell is the mean of three columns."""

        def forward(self, x: Any, train: bool = False, rng: Any = None) -> Any:
            return (np.roll(x, 1, -1) + x + np.roll(x, -1, -1)) / 3, ()

    class Cubed(Layer):
        each_cell = True

        def forward(self, x: Any, train: bool = False, rng: Any = None) -> Any:
            return x**3, x

    def seen(*layers: Layer) -> Any:
        field = nn.receptive_field(nn.Sequential(conv(), *layers), str(len(layers)))
        return None if field is None else field.size

    assert seen(Cubed()) == seen(nn.ReLU()) == seen(nn.BatchNorm2d(3)) == (3, 3) and seen(conv()) == (5, 5)
    for part in (Stretched(), conv(Doubled), Widest(2), Lifted(), Twice(conv()), nn.Flatten()):
        assert seen(part) is None
