"""The interpretation on every family of the zoo: each walk is PyTorch's autograd with another rule at the rectifiers, receptive
fields are what a gradient reaches, and the strongest activations and the occlusion are what a loop finds.

Through Fire modules, residual blocks, Inception branches, depthwise convolutions, ReLU6, and BatchNorm at inference.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.checking import Backend, values
from tests.interpret.nets import DeconvReLU, GuidedReLU, walk_in_torch
from tests.models.compare import SIZES, alive, maps_of, slim, twin_of
from tests.nn.helpers import place
from tinynet import nn
from tinynet.data import ArrayDataset
from tinynet.data.preprocessing import Preprocessing
from tinynet.interpret import deconvnet, guided_backprop, mirror, saliency
from tinynet.interpret.atlas import layer_atlas
from tinynet.interpret.attribution import Attribution
from tinynet.interpret.control import untrained
from tinynet.interpret.observe import last_stage, stages
from tinynet.interpret.occlusion import occlusion
from tinynet.interpret.report import make_atlas
from tinynet.interpret.top import top_activations
from tinynet.interpret.units import record
from tinynet.models import TrainedModel, create, mobilenet
from tinynet.nn import init

T = torch.nn


class _Deconv6(torch.autograd.Function):
    """y = min(max(x, 0), 6), and back: max(g, 0)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=0, max=6)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0].clamp(min=0)


class _Guided6(torch.autograd.Function):
    """y = min(max(x, 0), 6), and back: max(g, 0)·[0 < x < 6]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0, max=6)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        return gradients[0].clamp(min=0) * ((x > 0) & (x < 6))


class _PassedThrough(torch.autograd.Function):
    """A normalisation across maps, and back: g, the deconvnet's rule."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *how: Any) -> torch.Tensor:
        return T.functional.local_response_norm(x, *how)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None, None, None, None


def _module(function: type[torch.autograd.Function]) -> type[T.Module]:
    class Rule(T.Module):
        def __init__(self, *how: Any) -> None:
            super().__init__()
            self.how = how

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function.apply(x, *self.how)                 # type: ignore[no-any-return]

    return Rule


RULES: dict[type[Attribution], dict[str, Any]] = {
    deconvnet: {"relu": DeconvReLU, "relu6": _module(_Deconv6), "norm": _module(_PassedThrough)},
    guided_backprop: {"relu": GuidedReLU, "relu6": _module(_Guided6)},
    saliency: {},
}

# Layers to begin at: before and behind a rectifier, inside a branch, at a sum, and the class scores (None).
LAYERS: dict[str, tuple[str | None, ...]] = {
    "lenet5": ("conv2", "pool2", "relu4", None),
    "alexnet": ("features.4", "features.10", "classifier.5", None),
    "zfnet": ("norm1", "conv5", "pool5", None),
    "vgg11": ("features.9", "features.18", None),
    "vgg11_bn": ("features.5", "features.28", None),
    "squeezenet1_0": ("features.5.expand3x3", "features.12.expand1x1_activation", None),
    "squeezenet1_1": ("features.3.squeeze", "features.9", "features.12.expand3x3_activation", None),
    "resnet18": ("layer1.1.bn2", "layer2.0.downsample.0", "layer3.0", "layer4.1.conv2", None),
    "resnet50": ("layer1.0.relu2", "layer3.0.downsample.1", "layer4.2", None),
    "cifar_resnet20": ("layer1.2.relu2", "layer2.0.shortcut", "layer3.0", "layer3.2.conv2", None),
    "googlenet": ("inception3a.branch3.1.conv", "inception4c.branch4.1.relu", "inception5b", None),
    "mobilenet_v2": ("features.1.conv.0.0", "features.3", "features.6.conv.1.2", "features.18.2", None),
    "tinyvgg": ("relu_1_2", "conv_2_2", "max_pool_2", None),
}


SLIM = {"zfnet": (1, 3, 81, 76), "vgg11": SIZES["vgg11"], "vgg11_bn": SIZES["vgg11_bn"]}
"""Without their dense layers, which AlexNet has as well; then ZFNet takes any size."""


def _build(name: str, dtype: Any = np.float64, slimmed: bool = False, **how: Any) -> nn.Layer:
    model = create(name, rng=init.no_draws, **how)
    return alive(slim(model) if slimmed or name in SLIM else model, dtype)


@lru_cache(maxsize=1)
def network(name: str) -> nn.Layer:
    return _build(name)


def test_every_family_is_here() -> None:
    assert set(LAYERS) == set(SIZES)


@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name in LAYERS for rule in RULES])
def test_every_walk_is_autograds(name: str, rule: type[Attribution]) -> None:
    """float64, to 1e-10 of each picture's largest value."""
    model, x = network(name), values(11, SLIM.get(name, SIZES[name]))
    module = twin_of(name, model, name in SLIM, **RULES[rule])
    for layer in LAYERS[name]:
        y = record(model, x, layer).output
        peak = y.max(axis=(0, *range(2, y.ndim)))
        if layer and isinstance(model.layer(layer), nn.ReLU6):
            peak[peak >= 6] = -1                                # at the ceiling no gradient comes through
        channel = int(peak.argmax())                            # one that answers

        def seed(out: torch.Tensor, channel: int = channel) -> torch.Tensor:
            mask = torch.zeros_like(out)
            for n in range(len(out)):
                mask[n, channel].view(-1)[out[n, channel].argmax()] = 1
            return mask * out if rule is deconvnet else mask

        asked: dict[str, Any] = {"target": channel} if layer is None else {"layer": layer, "unit": (channel, "max")}
        got = rule(model).attribute(x, **asked)
        expected = walk_in_torch(module, x, layer, seed)
        assert expected.any(), f"{layer}: nothing arrives: nothing is tested"
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10 * np.abs(expected).max(), err_msg=str(layer))
        if rule is deconvnet and layer is not None:             # the inverse network, layer by layer, is the same
            np.testing.assert_allclose(mirror(model).attribute(x, **asked), got, rtol=0, atol=1e-10 * np.abs(got).max())


def test_relu6_on_both_sides_of_its_kinks(backend: Backend) -> None:
    """Gradient g·[0 < x < 6], deconvnet max(g, 0), guided both; at 0 and at 6 the gradient is 0."""
    x = np.array([[-1.0, 0.0, 3.0, 6.0, 7.0, 5.0]])
    model = place(nn.Sequential(relu=nn.ReLU6(), top=nn.Identity()), backend)
    signal = np.array([[1.0, 2.0, -3.0, 4.0, 5.0, 6.0]])
    taken = record(model, backend.array(x), "top")
    expected = {saliency: [0, 0, -3, 0, 0, 6], deconvnet: [1, 2, 0, 4, 5, 6], guided_backprop: [0, 0, 0, 0, 0, 6]}
    for rule, want in expected.items():
        np.testing.assert_array_equal(backend.host(rule(model).back(taken, backend.array(signal))), [want], err_msg=rule.name)
    np.testing.assert_array_equal(backend.host(taken.output), [[0, 0, 3, 6, 6, 5]])


@pytest.mark.parametrize("rule", RULES)
def test_a_depthwise_block_on_every_backend(backend: Backend, rule: type[Attribution]) -> None:
    model = mobilenet.inverted_residual(np.random.default_rng(0), 4, 4, 1, 3).to(dtype=np.float64)
    x = values(0, (2, 4, 6, 5))
    want = rule(model).attribute(x, layer="conv.1", unit=(1, "all"))
    assert want.any()
    model = place(model, backend)
    got = rule(model).attribute(backend.array(x), layer="conv.1", unit=(1, "all"))
    np.testing.assert_allclose(backend.host(got), want, rtol=0, atol=1e-12)


# Receptive fields.


class _Reached(Exception):
    pass


@pytest.mark.parametrize("name", ["resnet34", *(name for name in SIZES if name != "vgg11_bn")])
def test_receptive_fields_are_what_a_gradient_reaches(name: str) -> None:
    """Filters of ones, means for maxima and no rectifiers: nothing cancels, and every cell of the field has its share.

    Asked of the last convolution, with an input high enough to hold its field and as narrow as can be.
    """
    thick = name in SLIM or name == "alexnet"
    model = create(name, rng=init.no_draws)
    model = (slim(model) if thick else model).to(dtype=np.float64)
    for x in model.named_parameters().values():
        if x.ndim == 4:
            x += 1 / init.fans(x.shape)[0]
    path = [path for path, layer in model.layers() if isinstance(layer, nn.Conv2d)][-1]
    field = nn.receptive_field(model, path)
    assert field is not None
    height, width = int(field.size[0] + 4 * field.jump[0]), 63 if name == "alexnet" else 35
    module = twin_of(name, model, thick, relu=T.Identity, relu6=T.Identity, pool=T.AvgPool2d, norm=T.Identity)
    reached: list[torch.Tensor] = []

    def stop(_m: Any, _i: Any, y: torch.Tensor) -> None:
        reached.append(y)
        raise _Reached

    module.get_submodule(path).register_forward_hook(stop)
    channels = 1 if name == "lenet5" else 3
    tensor = torch.ones(1, channels, height, width, dtype=torch.float64, requires_grad=True)
    with pytest.raises(_Reached):
        module(tensor)
    i, j = (n // 2 for n in reached[0].shape[2:])
    (gradient,) = torch.autograd.grad(reached[0][0, :, i, j].sum(), tensor)
    cells = gradient[0].abs().sum(0).numpy() > 0
    first, last = int(field.start[0] + field.jump[0] * i), int(field.start[0] + field.jump[0] * i + field.size[0] - 1)
    assert first >= 0 and last < height, "the field is not inside: nothing is tested"
    rows, columns = np.flatnonzero(cells.any(1)), np.flatnonzero(cells.any(0))
    assert (rows[0], rows[-1]) == (first, last)
    left, right = int(field.start[1] + field.jump[1] * j), int(field.start[1] + field.jump[1] * j + field.size[1] - 1)
    assert columns[0] == max(left, 0) and columns[-1] <= min(right, width - 1)


# The strongest activations and the occlusion.

SMALL = {"alexnet": 63, "zfnet": 63, "tinyvgg": 64, "lenet5": 32}


def _trained(name: str) -> TrainedModel:
    """In float32, made for photos as small as its structure allows."""
    model = _build(name, np.float32, name == "alexnet", **({"channels": 3} if name == "lenet5" else {}))
    side = SMALL.get(name, 40)
    classes = [str(i) for i in range(model.infer(np.zeros((0, 3, side, side), np.float32)).shape[1])]
    return TrainedModel(model, name, {}, classes, Preprocessing(side, side, (0.5,) * 3, (0.2,) * 3), {})


def _photos(count: int, side: int) -> ArrayDataset:
    pixels = np.random.default_rng(5).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return ArrayDataset(pixels, np.arange(count) % 2, ["cat", "notcat"])


@pytest.mark.parametrize("name", SIZES)
def test_atlas_and_occlusion(name: str) -> None:
    trained = _trained(name)
    model, preprocessing = trained.model, trained.preprocessing
    dataset = _photos(10, preprocessing.crop)
    transform = preprocessing.transform()
    x = np.stack([transform(photo, np.random.default_rng(0)) for photo in dataset.images])

    layer = stages(model)[len(stages(model)) // 2]
    top = top_activations(model, dataset, [layer], transform=transform, workers=1, progress=False)
    maps = maps_of(model, x)[layer]
    strongest = -np.sort(-maps.max(axis=(2, 3)), axis=0)[:9].T  # (C, k)
    np.testing.assert_allclose(top[layer].values, strongest, rtol=1e-4, atol=1e-4 * np.abs(strongest).max())
    made = layer_atlas(model, dataset, top, layer, preprocessing, units=2, workers=1, progress=False)
    assert made.field == nn.receptive_field(model, layer) and len(made.units) == 2
    for unit in made.units:
        assert len(unit.photos) == min(9, len(dataset)) and unit.scale > 0 and np.isfinite(unit.projections).all()

    side = preprocessing.crop
    result = occlusion(model, x[:1], patch=side // 2, stride=side // 2, batch_size=2, workers=1)
    assert result.layer == last_stage(model) and result.projection.any()
    covered = x[:1].copy()
    covered[:, :, result.tops[1] : result.tops[1] + side // 2, : side // 2] = 0
    scale = np.abs(result.logits).max()
    np.testing.assert_allclose(result.logits[1, 0], model(covered)[0], rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(result.whole_logits, model(x[:1])[0], rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize(("name", "layers"), [
    ("googlenet", ["inception3a.branch2.1.relu"]), ("mobilenet_v2", ["features.3.conv.2", "features.3"]),
])  # fmt: skip
def test_the_report_of_a_network_with_branches(name: str, layers: list[str], tmp_path: Path) -> None:
    made = make_atlas(_trained(name), _photos(4, 40), tmp_path, layers=layers, units=2, workers=1, progress=False)
    text = made.report.read_text(encoding="utf-8")
    assert all(layer in text for layer in layers) and len(made.sheets) == len(layers)
    assert not made.warning


def test_stages_of_blocks() -> None:
    """The rectified maps of each convolution; without a rectifier of its own, behind its normalisation."""
    assert stages(create("squeezenet1_1", rng=init.no_draws))[1:3] == [
        "features.3.squeeze_activation", "features.3.expand1x1_activation"]
    assert stages(create("resnet18", rng=init.no_draws))[3:8] == [
        "layer1.1.relu1", "layer1.1.relu2", "layer2.0.relu1", "layer2.0.bn2", "layer2.0.relu2"]
    assert stages(create("mobilenet_v2", rng=init.no_draws))[:4] == [
        "features.0.2", "features.1.conv.0.2", "features.1.conv.2", "features.2.conv.0.2"]
    assert len(stages(create("googlenet", rng=init.no_draws))) == 57


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "cifar_resnet20", "mobilenet_v2", "tinyvgg"])
def test_a_fresh_network_is_known_as_one(name: str) -> None:
    assert untrained(create(name, rng=np.random.default_rng(0)))
    assert untrained(create(name, rng=init.no_draws)) == "its weights are all zero"
