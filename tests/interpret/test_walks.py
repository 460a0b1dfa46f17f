"""The reverse walks: against PyTorch's autograd with a rule of its own at every ReLU, and the properties that follow
from the rules.

g is the signal from above, x what the ReLU saw: gradient g·[x > 0], deconvnet max(g, 0), guided max(g, 0)·[x > 0].
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
import torch

from tests.checking import Backend, close, values
from tests.interpret.nets import NETS, DeconvReLU, GuidedReLU, pair, walk_in_torch
from tests.nn.helpers import attributes, place, randomise, snapshot
from tinynet import interpret, nn
from tinynet.errors import ArgumentError, DeviceError, DtypeError, ShapeError, TinynetError
from tinynet.interpret import (
    deconv,
    deconvnet,
    guided_backprop,
    input_x_gradient,
    integrated_gradients,
    mirror,
    saliency,
    smoothgrad,
)
from tinynet.interpret.attribution import Attribution
from tinynet.interpret.deconvnet import MEANING
from tinynet.interpret.units import record
from tinynet.nn.receptive_field import receptive_field

NUMPY = Backend("numpy", np)
LAYERS = [(name, layer) for name, net in NETS.items() for layer in net[3]]
RULES: list[tuple[type[Attribution], type[torch.nn.Module]]] = [
    (deconvnet, DeconvReLU), (guided_backprop, GuidedReLU), (saliency, torch.nn.ReLU),
]  # fmt: skip


def chosen(y: torch.Tensor, unit: Any, with_value: bool) -> torch.Tensor:
    """The seed of a unit, written once more: loops over images."""
    mask = torch.zeros_like(y)
    channel, *position = unit
    for n in range(len(y)):
        if position in (["all"], []) and (position or y.ndim == 2):
            mask[n, channel] = 1
        elif position in ([], ["max"]):
            mask[n, channel].view(-1)[y[n, channel].argmax()] = 1
        else:
            mask[(n, channel, *position)] = 1
    return mask * y if with_value else mask


@pytest.mark.parametrize(("rule", "relu"), RULES)
@pytest.mark.parametrize("unit", [(1, "max"), (0, "all"), (2, 0, 0), 1])
@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_a_unit_inside_is_autograds(name: str, layer: str, unit: Any, rule: type[Attribution], relu: Any) -> None:
    model, module, x = pair(name, relu)
    if layer.startswith("fc"):
        unit = unit if isinstance(unit, int) else unit[:1]
    got = rule(model).attribute(x, layer=layer, unit=unit)
    spelled = (unit,) if isinstance(unit, int) else unit
    expected = walk_in_torch(module, x, layer, lambda y: chosen(y, spelled, rule is deconvnet))
    close(got, expected, "float64", f"{name} {layer} {unit}")
    assert np.abs(expected).max() > 1e-6 or unit == (2, 0, 0), "nothing arrives: nothing is tested"


@pytest.mark.parametrize(("rule", "relu"), RULES)
@pytest.mark.parametrize("target", [None, 1, "each"])
@pytest.mark.parametrize("name", NETS)
def test_a_class_is_autograds(name: str, target: Any, rule: type[Attribution], relu: Any) -> None:
    model, module, x = pair(name, relu)
    classes = {"each": np.arange(len(x)) % 3, 1: np.ones(len(x), int), None: model(x).argmax(1)}[target]
    got = rule(model).attribute(x, target=classes if target == "each" else target)

    def seed(y: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros_like(y)
        mask[range(len(y)), classes] = 1
        return mask * y if rule is deconvnet else mask

    close(got, walk_in_torch(module, x, None, seed), "float64", name)


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES])
@pytest.mark.parametrize("name", NETS)
def test_every_image_of_a_batch_is_its_own(name: str, rule: type[Attribution]) -> None:
    model, _, x = pair(name)
    layer = NETS[name][3][-1]
    unit = 1 if layer.startswith("fc") else (1, "max")
    together = rule(model).attribute(x, layer=layer, unit=unit)
    for i in range(len(x)):
        np.testing.assert_allclose(together[i : i + 1], rule(model).attribute(x[i : i + 1], layer=layer, unit=unit), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETS)
def test_backends(backend: Backend, name: str, dtype: str) -> None:
    """Every walk stays where the arrays are and in their dtype; nothing is changed, nothing put on a layer."""
    model, _, x = pair(name)
    layer = NETS[name][3][-2]
    methods: list[tuple[Any, dict[str, Any]]] = [
        (deconvnet, {}), (mirror, {}), (guided_backprop, {}), (saliency, {}), (input_x_gradient, {}),
        (lambda m: deconvnet(m, "max"), {}), (lambda m: integrated_gradients(m, 3, 2), {}), (lambda m: smoothgrad(m, 3), {}),
    ]  # fmt: skip
    expected = [method(model).attribute(x, layer=layer, unit=(1, "max")) for method, _ in methods]
    by_class = [method(model).attribute(x, target=np.zeros(len(x), int)) for method, _ in methods]
    model = place(model.to(dtype=dtype), backend)
    before, held = snapshot(model, backend), attributes(model)
    array = backend.array(x.astype(dtype))
    for (method, how), want, of_class in zip(methods, expected, by_class, strict=True):
        got = method(model).attribute(array, layer=layer, unit=(1, "max"), **how)
        assert got.shape == array.shape
        close(backend.host(got), want, dtype, layer)
        got = method(model).attribute(array, target=backend.array(np.zeros(len(x), int)))
        close(backend.host(got), of_class, dtype, "class")
        assert not backend.overlap(got, array)
    np.testing.assert_array_equal(backend.host(array), x.astype(dtype))
    for key, value in snapshot(model, backend).items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)
    assert attributes(model) == held


# The property list.


def signals(model: nn.Layer, x: np.ndarray, layer: str) -> Iterator[np.ndarray]:
    """The same signal, random, at the output of that layer, walked back by the three rules: gradient, deconvnet, guided."""
    taken = record(model, x, layer)
    signal = values(5, taken.output.shape)
    return (rule(model).back(taken, signal) for rule in (saliency, deconvnet, guided_backprop))


def same(*pictures: np.ndarray) -> None:
    scale = max(1.0, np.abs(pictures[0]).max())
    assert scale > 0 and pictures[0].any()
    for picture in pictures[1:]:
        np.testing.assert_allclose(picture, pictures[0], rtol=0, atol=1e-10 * scale)


def differ(a: np.ndarray, b: np.ndarray) -> None:
    assert np.abs(a - b).max() > 1e-3 * max(np.abs(a).max(), np.abs(b).max())


def positive(model: nn.Layer, bias: float | None = None) -> nn.Layer:
    """All weights at least 0; every bias (and shift of a normalisation) that number, if one is given."""
    for name, x in model.state_dict().items():
        if name.endswith("weight"):
            np.abs(x, out=x)
        elif bias is not None and name.endswith("bias"):
            x[...] = bias
        elif bias is not None and name.endswith("running_mean"):
            x[...] = 0
    return model


@pytest.mark.parametrize(("name", "layer"), [
    ("overlapping", "conv1"), ("overlapping", "pool1"), ("overlapping", "bn1"), ("mixed", "conv1"), ("squeeze", "features.0"),
    ("residual", "conv1"),
])  # fmt: skip
def test_no_relu_below_the_seed_all_three_equal(name: str, layer: str) -> None:
    model, _, x = pair(name)
    same(*signals(model, x, layer))


@pytest.mark.parametrize("name", NETS)
def test_otherwise_all_three_differ(name: str) -> None:
    model, _, x = pair(name)
    gradient, deconvolved, guided = signals(model, x, NETS[name][3][-1])
    differ(gradient, deconvolved)
    differ(gradient, guided)
    differ(deconvolved, guided)


@pytest.mark.parametrize("name", NETS)
def test_weights_and_seed_at_least_zero_guided_is_the_gradient(name: str) -> None:
    model, _, x = pair(name)
    taken = record(positive(model), x, NETS[name][3][-1])
    signal = np.abs(values(5, taken.output.shape))
    same(saliency(model).back(taken, signal), guided_backprop(model).back(taken, signal))


@pytest.mark.parametrize("name", NETS)
def test_every_x_above_zero_guided_is_the_deconvnet(name: str) -> None:
    """Random filters, made small before a large bias, so that what every ReLU sees is above zero."""
    model, _, x = pair(name)
    for key, array in model.state_dict().items():
        if "bn" in key or "downsample.1" in key:
            array[...] = {"weight": 1, "bias": 5, "running_mean": 0, "running_var": 1}.get(key.rpartition(".")[2], 1)
        else:
            array *= 0.02 if key.endswith("weight") else 0
            array += 1 if key.endswith("bias") else 0
    if name == "residual":                                      # its first convolution has no bias
        model.conv1.weight[...] = np.abs(model.conv1.weight)
        x = np.abs(x)
    seen: list[float] = []
    model.forward(x, watch=lambda path, layer, y: seen.append(float(y.min())) if isinstance(layer, nn.ReLU) else None)
    assert min(seen) > 0
    _, deconvolved, guided = signals(model, x, NETS[name][3][-1])
    same(deconvolved, guided)


@pytest.mark.parametrize("name", NETS)
def test_both_all_equal(name: str) -> None:
    model, _, x = pair(name)
    taken = record(positive(model, 1), np.abs(x), NETS[name][3][-1])
    signal = np.abs(values(5, taken.output.shape))
    same(*(rule(model).back(taken, signal) for rule in (saliency, deconvnet, guided_backprop)))


@pytest.mark.parametrize("overlap", ["sum", "max"])
@pytest.mark.parametrize("name", NETS)
def test_scaling_the_seed_scales_the_picture(name: str, overlap: str) -> None:
    model, _, x = pair(name)
    taken = record(model, x, NETS[name][3][-1])
    signal = values(5, taken.output.shape)
    way = deconvnet(model, overlap)
    same(way.back(taken, 3.5 * signal), 3.5 * way.back(taken, signal))
    differ(way.back(taken, -signal), -way.back(taken, signal))


def test_without_max_pooling_the_picture_of_a_unit_is_the_same_for_every_image() -> None:
    model, _, _ = pair("residual")
    layers = {name: layer for name, layer in model.children() if name != "pool"}
    model = nn.Sequential(layers)                               # type: ignore[arg-type]
    pictures = []
    for seed in (1, 2):
        taken = record(model, values(seed, (1, 3, 9, 8)), "relu2")
        pictures.append(deconvnet(model).back(taken, values(5, taken.output.shape)))
    same(*pictures)
    gradients = [saliency(model).attribute(values(seed, (1, 3, 9, 8)), layer="relu2", unit=(0, "all")) for seed in (1, 2)]
    differ(*gradients)


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES])
@pytest.mark.parametrize(("name", "layer"), [p for p in LAYERS if p[1] not in ("fc1", "pool")])
def test_the_support_lies_inside_the_receptive_field(name: str, layer: str, rule: type[Attribution]) -> None:
    model, _, x = pair(name)
    taken = record(model, x, layer)
    field = receptive_field(model, layer)
    assert field is not None
    h, w = taken.output.shape[2:]
    for i, j in {(0, 0), (h // 2, w // 2), (h - 1, w - 1)}:
        signal = np.zeros_like(taken.output)
        signal[:, :, i, j] = 1
        picture = rule(model).back(taken, signal)
        inside = np.zeros(x.shape[2:], bool)
        rows, columns = (
            slice(max(0, floor(b + k * step)), max(0, ceil(b + k * step + s)))
            for k, b, step, s in zip((i, j), field.start, field.jump, field.size, strict=True)
        )
        inside[rows, columns] = True
        assert not picture[:, :, ~inside].any()


def test_rows_that_no_window_covers_are_zero() -> None:
    model = randomise(nn.Sequential(pool=nn.MaxPool2d(2), conv=nn.Conv2d(3, 4, 3, 4)))
    x = values(0, (1, 3, 17, 16))                               # pool: 8×8; the filters use 0 to 2 and 4 to 6 of it
    picture = deconvnet(model).attribute(x, layer="conv", unit=(1, "all"))
    assert picture.shape == x.shape
    used = np.add.outer(np.zeros(17), np.zeros(16)).astype(bool)
    rows, columns = ([c // 2 % 4 < 3 and c < 16 for c in range(n)] for n in (17, 16))
    used[np.ix_(rows, columns)] = True
    assert not picture[:, :, ~used].any()
    assert picture[:, :, used].any()


def test_dead_windows_let_the_deconvnets_signal_through() -> None:
    """ReLU, then pooling: where a window is all zero the switch is its first cell; the gradient's rule masks it."""
    model = nn.Sequential(relu=nn.ReLU(), pool=nn.MaxPool2d(2), again=nn.MaxPool2d(1))
    x = -np.ones((1, 1, 4, 4))
    x[0, 0, 3, 3] = 2
    taken = record(model, x, "again")
    signal = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    expected = np.zeros((1, 1, 4, 4))
    expected[0, 0, [0, 0, 2, 3], [0, 2, 0, 3]] = [1, 2, 3, 4]
    np.testing.assert_array_equal(deconvnet(model).back(taken, signal), expected)
    expected[0, 0, [0, 0, 2], [0, 2, 0]] = 0
    np.testing.assert_array_equal(guided_backprop(model).back(taken, signal), expected)
    np.testing.assert_array_equal(saliency(model).back(taken, signal), expected)


def test_no_bias_comes_in() -> None:
    """The picture does not depend on a bias behind the last switch, and the gain of a normalisation has no shift."""
    model, _, x = pair("overlapping")
    taken = record(model, x, "conv3")
    signal = values(5, taken.output.shape)
    before = deconvnet(model).back(taken, signal)
    for name, array in model.state_dict().items():
        if name.endswith("bias"):
            array += 100
    np.testing.assert_array_equal(deconvnet(model).back(taken, signal), before)
    np.testing.assert_array_equal(deconvnet(model).back(taken, 0 * signal), 0 * x)


# Rules one by one.


def test_overlap_max_keeps_the_strongest() -> None:
    """Values of windows that share a switch: written out as a loop."""
    model = nn.Sequential(pool=nn.MaxPool2d(3, 2))
    x = values(1, (2, 3, 9, 11))
    taken = record(model, x, "pool")
    signal = values(2, taken.output.shape)
    summed, strongest = np.zeros_like(x), np.full_like(x, -np.inf)
    for n, c, i, j in np.ndindex(*signal.shape):
        window = x[n, c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        y, z = np.unravel_index(window.argmax(), window.shape)
        at = n, c, 2 * i + y, 2 * j + z
        summed[at] += signal[n, c, i, j]
        strongest[at] = max(strongest[at], signal[n, c, i, j])
    strongest[np.isinf(strongest)] = 0
    np.testing.assert_allclose(deconvnet(model).back(taken, signal), summed, atol=1e-14)
    np.testing.assert_array_equal(deconvnet(model, overlap="max").back(taken, signal), strongest)
    differ(summed, strongest)
    with pytest.raises(ArgumentError, match="'mean'"):
        deconvnet(model, overlap="mean")


def test_normalisation_across_channels_is_passed_through_by_the_deconvnet_alone() -> None:
    norm = nn.LocalResponseNorm(5, 0.5)
    model = randomise(nn.Sequential(conv=nn.Conv2d(3, 6, 3), relu=nn.ReLU(), norm=norm, top=nn.Conv2d(6, 2, 1)))
    without = nn.Sequential(conv=model.conv, relu=model.relu, top=model.top)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.LocalResponseNorm(5, 0.5), torch.nn.Conv2d(6, 2, 1)
    ).double()
    for theirs, name in ((module[0], "conv"), (module[3], "top")):
        theirs.weight.data = torch.tensor(model.layer(name).weight)     # type: ignore[attr-defined,operator]
        theirs.bias.data = torch.tensor(model.layer(name).bias)         # type: ignore[attr-defined,operator]
    x = values(0, (2, 3, 8, 7))
    a, b = record(model, x, "top"), record(without, x, "top")
    signal = values(1, a.output.shape)
    np.testing.assert_array_equal(deconvnet(model).back(a, signal), deconvnet(without).back(b, signal))
    close(saliency(model).back(a, signal), walk_in_torch(module, x, None, lambda y: torch.tensor(signal)), "float64")


def test_statistics_of_a_batch_are_refused() -> None:
    model = nn.Sequential(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ArgumentError, match="bn: BatchNorm2d: the deconvnet needs fixed statistics"):
        deconvnet(model).attribute(values(0, (2, 3, 8, 8)).astype("float32"), layer="bn", unit=0)


class Half(nn.Layer):
    """A layer that nobody has a rule for."""

    def forward(self, x: Any, train: bool = False, rng: Any = None) -> tuple[Any, Any]:
        return 0.5 * x, None

    def input_gradient(self, saved: Any, dy: Any) -> Any:
        return 0.5 * dy


class Known(Half):
    """One that a user has given a rule."""


@interpret.deconv.register
def _(layer: Known, saved: Any, signal: Any) -> Any:
    return 10 * signal


def with_half(half: nn.Layer) -> nn.Sequential:
    conv = nn.Conv2d(3, 2, 3, rng=np.random.default_rng(0), dtype=np.float64)
    return nn.Sequential(block=nn.Sequential(conv=conv, half=half), top=nn.ReLU())


def test_a_layer_without_a_rule_is_an_error_that_says_how_to_add_one() -> None:
    model, x = with_half(Half()), values(0, (1, 3, 6, 6))
    for way in (deconvnet(model), mirror(model)):
        with pytest.raises(ArgumentError) as caught:
            way.attribute(x, layer="top", unit=0)
        line = str(caught.value)
        assert line.startswith("block.half: Half: the deconvnet has no rule")
        assert "@tinynet.interpret.deconv.register" in line and "\n" not in line
    assert "block.half  Half   ↔ no rule" in str(mirror(model))
    assert deconvnet(model).attribute(x, layer="block.conv", unit=0).any(), "above the unit no rule is needed"
    assert saliency(model).attribute(x, layer="top", unit=0).any(), "the gradient needs no rule"


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)], ids=repr)
def test_the_deconvnet_begins_at_the_logits(end: nn.Layer) -> None:
    model, _, x = pair("overlapping")
    whole = nn.Sequential({**dict(model.named_children()), "prob": end})
    with pytest.raises(ArgumentError, match=rf"^prob: {type(end).__name__}: .* give it tinynet.nn.without_softmax\(model\)$"):
        deconvnet(whole).attribute(x, target=0)
    np.testing.assert_array_equal(
        deconvnet(nn.without_softmax(whole)).attribute(x, target=0), deconvnet(model).attribute(x, target=0)
    )


def test_a_rule_can_be_registered() -> None:
    model, x = with_half(Known()), values(0, (1, 3, 6, 6))
    plain = nn.Sequential(conv=model.block.conv, top=nn.ReLU())
    output = record(model, x, "top").output
    expected = 10 * deconvnet(plain).back(record(plain, x, "top"), output)
    same(expected, deconvnet(model).back(record(model, x, "top"), output))
    same(expected, mirror(model).back(record(model, x, "top"), output))
    assert "block.half  Known  ↔ its adjoint" in str(mirror(model))


def test_other_nonlinearities_have_no_rule() -> None:
    model = nn.Sequential(conv=nn.Conv2d(3, 2, 3, dtype=np.float64), act=nn.Tanh())
    with pytest.raises(ArgumentError, match="Tanh: the deconvnet has no rule"):
        deconvnet(model).attribute(values(0, (1, 3, 6, 6)), layer="act", unit=0)


# The mirror.


@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_the_mirror_is_the_deconvnet(name: str, layer: str) -> None:
    model, _, x = pair(name)
    unit = 1 if layer.startswith("fc") else (1, "max")
    same(*(way.attribute(x, layer=layer, unit=unit) for way in (deconvnet(model), mirror(model))))
    same(*(way.attribute(x, target=1) for way in (deconvnet(model), mirror(model))))


def test_the_mirror_holds_the_very_arrays_and_runs_layers_of_its_own() -> None:
    model, _, _ = pair("mixed")
    pairs = {p.path: p for p in mirror(model).pairs}
    assert list(pairs) == [path for path, _ in model.children()][::-1]
    image = pairs["conv2"].mirror
    assert isinstance(image, nn.ConvTranspose2d)
    assert image.weight is model.conv2.weight
    assert (image.in_channels, image.out_channels, image.bias, image.stride, image.groups) == (6, 6, None, (2, 2), 3)
    assert isinstance(pairs["pool"].mirror, nn.MaxUnpool2d)
    assert pairs["relu1"].mirror is model.relu1
    assert model.conv2.bias is not None, "the model itself stays"


def test_a_mirror_image_is_named_as_a_layer_where_there_is_one() -> None:
    for name in NETS:
        for made in mirror(pair(name)[0]).pairs:
            has = isinstance(made.layer, (nn.Conv2d, nn.MaxPool2d, nn.ReLU)) and not isinstance(made.layer, nn.ConvTranspose2d)
            assert (made.mirror is not None) == has, made
            words = made.words.partition(",")[0].partition("(")[0].split(" ")[0]
            assert (words == type(made.mirror).__name__) == has, made


def test_what_the_mirror_shows_is_what_it_runs() -> None:
    """Other filters put into an image layer, or another unpooling, and the picture changes: no rule runs behind its back."""
    model = randomise(nn.Sequential(conv=nn.Conv2d(3, 4, 3), pool=nn.MaxPool2d(2)))
    taken = record(model, values(0, (2, 3, 10, 10)), "pool")
    signal = values(5, taken.output.shape)
    inverse = mirror(model)
    before = inverse.back(taken, signal)
    images = {pair.path: pair.mirror for pair in inverse.pairs}
    images["conv"].weight = 2 * images["conv"].weight           # type: ignore[union-attr]
    same(2 * before, inverse.back(taken, signal))
    images["pool"].kernel_size = images["pool"].stride = 3      # type: ignore[union-attr]
    with pytest.raises(TinynetError, match="pool: "):
        inverse.back(taken, signal)


def test_what_the_mirror_prints() -> None:
    text = str(mirror(pair("overlapping")[0])).splitlines()
    assert " ".join(text[text.index("") + 1 :]) == MEANING and "not evidence for a class" in MEANING
    text = text[: text.index("")]
    assert text[0] == "fc       Linear            ↔ the same matrix transposed (4 → 6), no bias"
    assert text[-1] == "conv1    Conv2d            ↔ ConvTranspose2d(6 → 3, 5×5, stride 2), the same filters, no bias"
    assert text[-2].endswith("MaxUnpool2d(3, stride 2) with its switches; windows overlap: values that meet are added")
    assert any(line.endswith("↔ a gain for each channel, γ/√(σ² + ε); no shift") for line in text)
    assert any(line.endswith("↔ back to maps") for line in text)
    assert any(line.endswith("↔ its adjoint") for line in text)
    text = str(mirror(pair("mixed")[0]))
    assert "MaxUnpool2d(2, stride 3) with its switches\n" in text
    assert "↔ the 2-D convolution with the same filters, no bias" in text
    assert "relu4" in text and repr(mirror(pair("mixed")[0])) == text
    norm = nn.Sequential(norm=nn.LocalResponseNorm(5))
    assert str(mirror(norm)).splitlines()[0] == "norm  LocalResponseNorm ↔ passed through"
    for how in ({"kernel_size": 2, "dilation": 2}, {"kernel_size": 3, "stride": 2}):
        pool = nn.Sequential(pool=nn.MaxPool2d(**how))
        assert "windows overlap" in str(mirror(pool)), how
        x = values(0, (2, 3, 9, 10))
        same(*(way.attribute(x, layer="pool", unit=(1, "all")) for way in (deconvnet(pool), mirror(pool))))


@pytest.mark.parametrize("size", [(9, 9), (10, 11), (12, 8)])
@pytest.mark.parametrize("how", [
    {"stride": 3}, {"stride": 2, "padding": 1}, {"dilation": 2, "stride": 2}, {"stride": (1, 4)}, {"stride": 3, "padding": 1},
    {"stride": 3, "padding": 2, "dilation": (2, 1)}, {"stride": 5, "padding": 2, "dilation": 2},
])
def test_the_mirrors_sizes_where_strides_do_not_divide(how: dict[str, Any], size: tuple[int, int]) -> None:
    model = randomise(nn.Sequential(conv=nn.Conv2d(2, 3, 3, **how), norm=nn.LocalResponseNorm(3)))
    x = values(0, (1, 2, *size))
    same(*(way.attribute(x, layer="norm", unit=(1, "all")) for way in (deconvnet(model), mirror(model))))


@pytest.mark.parametrize("size", [7, 8, 9, 10])
def test_the_mirror_of_a_net_along_one_axis(size: int) -> None:
    """And its images are layers that run by themselves: their sizes are those where the stride divides."""
    model = randomise(nn.Sequential(conv=nn.Conv1d(2, 4, 3, 3, 1), relu=nn.ReLU(), pool=nn.MaxPool1d(2)))
    x = values(0, (2, 2, size))
    same(*(way.attribute(x, layer="pool", unit=(1, "all")) for way in (deconvnet(model), mirror(model))))
    image = next(pair.mirror for pair in mirror(model).pairs if pair.path == "conv")
    assert image is not None
    signal = values(1, (2, 4, 3))
    taken = model["conv"].forward(values(0, (2, 2, 7)))[1]
    same(image(signal), deconv(model["conv"], taken, signal))


# Methods made of the gradient.


@pytest.mark.parametrize("name", NETS)
def test_integrated_gradients_are_complete(name: str) -> None:
    """The sum over the pixels is the unit's value at x minus that at the baseline, up to the rule's error at the kinks."""
    model, _, x = pair(name)
    base = values(9, x.shape[1:])
    for baseline in (0.3, np.broadcast_to(base, x.shape).copy()):
        got = integrated_gradients(model, 100, 64).attribute(x, target=1, baseline=baseline).sum(axis=(1, 2, 3))
        expected = model(x)[:, 1] - model(np.zeros_like(x) + baseline)[:, 1]
        np.testing.assert_allclose(got, expected, atol=1e-2 * max(1, np.abs(model(x)).max()))


def test_integrated_gradients_follow_the_unit_that_was_strongest_at_x() -> None:
    model, _, x = pair("overlapping")
    got = integrated_gradients(model, 200).attribute(x, layer="conv2", unit=(1, "max")).sum(axis=(1, 2, 3))
    y, base = record(model, x, "conv2").output[:, 1], record(model, 0 * x, "conv2").output[:, 1]
    at = y.reshape(len(y), -1).argmax(1)
    expected = [y[i].ravel()[at[i]] - base[i].ravel()[at[i]] for i in range(len(y))]
    np.testing.assert_allclose(got, expected, atol=5e-3 * np.abs(expected).max())


def test_integrated_gradients_of_a_polynomial_are_exact() -> None:
    """Of a cube, ∂f = 3x²: two points of Gauss and Legendre integrate it exactly, one point takes the middle."""
    class Cube(nn.Layer):
        def forward(self, x: Any, train: bool = False, rng: Any = None) -> tuple[Any, Any]:
            return x**3, x

        def input_gradient(self, saved: Any, dy: Any) -> Any:
            return 3 * saved**2 * dy

    model, x, b = nn.Sequential(cube=Cube()), values(0, (5, 2)), values(1, (2,))
    for batch_size in (1, 2, 5, 32):
        got = integrated_gradients(model, 2, batch_size).attribute(x, target=1, baseline=b)
        np.testing.assert_allclose(got[:, 1], x[:, 1] ** 3 - b[1] ** 3, atol=1e-12)
        assert not got[:, 0].any()
    one = integrated_gradients(model, 1).attribute(x, target=1, baseline=b)
    np.testing.assert_allclose(one[:, 1], 3 * ((x[:, 1] + b[1]) / 2) ** 2 * (x[:, 1] - b[1]), atol=1e-12)


def test_smoothgrad_without_noise_is_the_gradient() -> None:
    model, _, x = pair("squeeze")
    same(saliency(model).attribute(x, target=2), smoothgrad(model, 3, noise=0).attribute(x, target=2))


def test_smoothgrad_is_a_mean_over_noisy_copies() -> None:
    """Of 1/2·x² the mean gradient is x plus the mean of the noise, whose deviation is that share of each image's range."""
    class Square(nn.Layer):
        def forward(self, x: Any, train: bool = False, rng: Any = None) -> tuple[Any, Any]:
            return 0.5 * x**2, x

        def input_gradient(self, saved: Any, dy: Any) -> Any:
            return saved * dy

    model, x = nn.Sequential(square=Square()), values(0, (2, 40_000))
    x[1] *= 10
    x[:, :2] = [[5, -5], [70, -50]]                             # the ranges: 10 and 120
    for samples, noise in ((1, 0.1), (4, 0.2)):
        method = smoothgrad(model, samples, noise)
        rest = smooth(method, x) - x
        for i, extent in enumerate((10, 120)):
            assert rest[i].std() == pytest.approx(noise * extent / np.sqrt(samples), rel=0.03)
            assert abs(rest[i].mean()) < 0.02 * noise * extent
    again = smooth(smoothgrad(model, 4, 0.2, seed=0), x)
    np.testing.assert_array_equal(again, smooth(smoothgrad(model, 4, 0.2), x))
    differ(again, smooth(smoothgrad(model, 4, 0.2, seed=1), x))


def test_smoothgrads_range_is_over_all_channels() -> None:
    """The channels lie in narrow ranges far from each other: the noise is a share of what lies between them."""
    class Square(nn.Layer):
        def forward(self, x: Any, train: bool = False, rng: Any = None) -> tuple[Any, Any]:
            return 0.5 * x**2, x

        def input_gradient(self, saved: Any, dy: Any) -> Any:
            return saved * dy

    x = np.zeros((1, 2, 100, 100)) + np.array([-10, 10])[None, :, None, None]
    for channel in (0, 1):
        got = smoothgrad(nn.Sequential(square=Square()), 1, 0.1).attribute(x, layer="square", unit=(channel, "all"))
        assert (got - x)[0, channel].std() == pytest.approx(2, rel=0.05)


def smooth(method: smoothgrad, x: np.ndarray) -> np.ndarray:
    """SmoothGrad of the sum over all outputs: as maps of one channel, whose unit is the whole map."""
    wide = x[:, None, None, :]
    return method.attribute(wide, layer="square", unit=(0, "all"))[:, 0, 0]


def test_input_x_gradient_without_biases_sums_to_the_output() -> None:
    model, _, x = pair("mixed")
    for name, array in model.state_dict().items():
        if name.endswith("bias"):
            array[...] = 0
    got = input_x_gradient(model).attribute(x, target=1)
    np.testing.assert_allclose(got.sum(axis=(1, 2, 3)), model(x)[:, 1], atol=1e-10)


def test_other_activations_break_the_sum_of_input_x_gradient() -> None:
    linear = nn.Linear(2, 1, bias=False)
    linear.weight[...] = [[3, 1]]
    model, x = nn.Sequential(fc=linear, act=nn.Sigmoid()), np.ones((1, 2), np.float32)
    assert abs(float(input_x_gradient(model).attribute(x, target=0).sum() - model(x)[0, 0])) > 0.5


def test_saliency_absolute() -> None:
    model, _, x = pair("mixed")
    gradient = saliency(model).attribute(x, target=0)
    assert (gradient < 0).any()
    np.testing.assert_array_equal(saliency(model, absolute=True).attribute(x, target=0), np.abs(gradient))


def test_grad_cam_is_the_formula() -> None:
    model, _, x = pair("overlapping")
    maps = record(model, x, "relu2").output
    gradients = np.zeros_like(maps)
    for i in range(len(x)):
        for eps_at in np.ndindex(maps.shape[1:]):               # the layers above alone, by differences
            moved = np.repeat(maps[i : i + 1], 2, axis=0)
            moved[(0, *eps_at)] += 1e-6
            moved[(1, *eps_at)] -= 1e-6
            top = moved
            for name in ("pool2", "conv3", "relu3", "pool", "flatten", "fc"):
                top = model.layer(name)(top)
            gradients[(i, *eps_at)] = (top[0, 1] - top[1, 1]) / 2e-6
    alpha = gradients.mean(axis=(2, 3), keepdims=True)
    expected = np.maximum((alpha * maps).sum(axis=1, keepdims=True), 0)
    cam = interpret.grad_cam(model, "relu2")
    np.testing.assert_allclose(cam.coarse(x, 1), expected, atol=1e-6)
    large = cam.attribute(x, 1)
    assert large.shape == (3, 1, 29, 26)
    reference = torch.nn.functional.interpolate(torch.tensor(cam.coarse(x, 1)), (29, 26), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(large, reference.numpy(), atol=1e-12)


def test_grad_cam_on_a_device(backend: Backend) -> None:
    model, _, x = pair("squeeze")
    expected = interpret.grad_cam(model, "features.3").attribute(x)
    placed = place(model, backend)
    close(backend.host(interpret.grad_cam(placed, "features.3").attribute(backend.array(x))), expected, "float64")


def test_what_grad_cam_refuses() -> None:
    model, _, x = pair("overlapping")
    with pytest.raises(ArgumentError, match=r"no layer 'relu9'; nearest: relu\d"):
        interpret.grad_cam(model, "relu9")
    with pytest.raises(ShapeError, match=r"maps \(N, C, h, w\), 'flatten' gives \(N, 6\)"):
        interpret.grad_cam(model, "flatten").attribute(x)
    for axes in (1, 3):
        conv = getattr(nn, f"Conv{axes}d")(2, 4, 3, padding=1)
        other = nn.Sequential(conv=conv, flatten=nn.Flatten(), fc=nn.Linear(4 * 5**axes, 2))
        with pytest.raises(ShapeError, match=rf"maps \(N, C, h, w\), 'conv' gives \(N, 4{', 5' * axes}\)"):
            interpret.grad_cam(other, "conv").coarse(np.zeros((1, 2, *(5,) * axes), np.float32), 0)
    with pytest.raises(ArgumentError, match="give the layer to grad_cam"):
        interpret.grad_cam(model, "relu2").attribute(x, layer="relu2", unit=1)
    with pytest.raises(ArgumentError, match="give the layer to grad_cam"):
        interpret.grad_cam(model, "relu2").attribute(x, unit=1)


def test_what_the_methods_refuse() -> None:
    model, _, x = pair("mixed")
    for steps, batch_size, what in ((0, 1, "steps"), (1, 0, "batch_size")):
        with pytest.raises(ArgumentError, match=f"integrated gradients: expected {what} of at least 1, got 0"):
            integrated_gradients(model, steps, batch_size)
    with pytest.raises(ArgumentError, match="SmoothGrad: expected batch_size"):
        smoothgrad(model, batch_size=0)
    for samples, noise in ((0, 0.1), (1, -0.1), (1, float("nan"))):
        with pytest.raises(ArgumentError, match="smoothgrad: expected"):
            smoothgrad(model, samples, noise)
    integrated_gradients(model, 1, 1), smoothgrad(model, 1, 0)
    for baseline in (np.zeros((3, 19)), np.zeros((3, 19)).tolist()):
        with pytest.raises(ShapeError, match=r"expected baseline \(2, 3, 19, 20\), got \(3, 19\)"):
            integrated_gradients(model).attribute(x, target=0, baseline=baseline)
    with pytest.raises(DtypeError, match=r"integrated gradients: expected steps to be an integer, got 2\.5"):
        integrated_gradients(model, 2.5)


# Units.


@pytest.mark.parametrize(("how", "words"), [
    ({"layer": "conv9", "unit": 0}, "no layer 'conv9'; nearest: conv"),
    ({"layer": "conv1", "unit": 6}, "layer 'conv1' has channels 0 to 5, got 6"),
    ({"layer": "conv1", "unit": -1}, "layer 'conv1' has channels 0 to 5, got -1"),
    ({"layer": "conv1", "unit": True}, "layer 'conv1' has channels 0 to 5, got True"),
    ({"layer": "conv1", "unit": "max"}, "layer 'conv1' has channels 0 to 5, got 'max'"),
    ({"layer": "conv1", "unit": (0, 20, 0)}, r"positions \(0, 0\) to \(19, 22\), got \(20, 0\)"),
    ({"layer": "conv1", "unit": (0, 0, 23)}, r"positions \(0, 0\) to \(19, 22\), got \(0, 23\)"),
    ({"layer": "conv1", "unit": (0, -1, 0)}, r"positions .* got \(-1, 0\)"),
    ({"layer": "conv1", "unit": (0, 1)}, r"positions .* got \(1,\)"),
    ({"layer": "conv1", "unit": (0, 1, 1, 1)}, r"positions .* got \(1, 1, 1\)"),
    ({"layer": "conv1", "unit": (0, True, 1)}, r"positions .* got \(True, 1\)"),
    ({"layer": "conv1", "unit": (0, "middle")}, r"positions .* got \('middle',\)"),
    ({"layer": "fc1", "unit": (0, 0)}, r"positions \(\) to|positions"),
    ({"layer": "conv1"}, r"layer 'conv1': give unit="),
    ({"layer": "conv1", "unit": 0, "target": 1}, "not both"),
    ({"unit": 0}, "a unit needs the layer"),
    ({"target": 4}, "the model has classes 0 to 3, got 4"),
    ({"target": -1}, "the model has classes 0 to 3, got -1"),
    ({"target": [0, 4]}, "classes 0 to 3"),
    ({"target": [0, -1]}, "classes 0 to 3"),
    ({"target": [0, 1, 2]}, "a class number or 2 of them"),
    ({"target": 1.0}, "a class number or 2 of them"),
])  # fmt: skip
def test_units_that_are_not_there(how: dict[str, Any], words: str) -> None:
    model, _, x = pair("mixed")
    with pytest.raises(TinynetError, match=words) as caught:
        saliency(model).attribute(x, **how)
    assert "\n" not in str(caught.value)


def test_the_last_unit_of_each_axis_is_there() -> None:
    model, _, x = pair("mixed")
    h, w = record(model, x, "conv1").output.shape[2:]
    assert saliency(model).attribute(x, layer="conv1", unit=(5, h - 1, w - 1)).any()
    assert saliency(model).attribute(x, layer="conv1", unit=[5, 0, 0]).any()
    numbers = np.array([5, h - 1, w - 1])                       # as argmax and unravel_index give them
    same(*(saliency(model).attribute(x, layer="conv1", unit=unit) for unit in (tuple(numbers), tuple(numbers.tolist()))))
    same(saliency(model).attribute(x, target=3), saliency(model).attribute(x, target=[3, 3]))
    for unit in (2, (2,), (2, "max"), (2, "all")):              # of a vector, a channel is one number
        same(saliency(model).attribute(x, layer="fc1", unit=2), saliency(model).attribute(x, layer="fc1", unit=unit))


def test_inputs_and_outputs_that_do_not_fit() -> None:
    model, _, x = pair("squeeze")
    with pytest.raises(ShapeError, match=r"a batch of inputs \(N, C, …\), got \(27,\)"):
        saliency(model).attribute(x[0, 0, 0], target=0)
    with pytest.raises(ShapeError, match=r"an output \(N, classes\)"):
        saliency(model.features).attribute(x, target=0)
    with pytest.raises(ArgumentError, match=r"layer 'features.3._expand'|no layer"):
        saliency(model).attribute(x, layer="features.3._expand", unit=0)
    with pytest.raises(ArgumentError, match="no output of its own"):
        saliency(model).attribute(x, layer="", unit=0)


def test_host_and_device_do_not_mix(backend: Backend) -> None:
    model, _, x = pair("mixed")
    if backend.name != "double":
        pytest.skip("a pair of two kinds")
    with pytest.raises((DeviceError, TypeError)):
        saliency(model).attribute(backend.array(x), target=0)


@pytest.mark.parametrize("ask", [
    lambda model, x: interpret.deconvnet(model).attribute(x, layer="relu1", unit=(1, "max")),
    lambda model, x: interpret.smoothgrad(model, samples=2).attribute(x, layer="relu1", unit=1),
    lambda model, x: interpret.maximise(model, "relu1", [0], x.shape[1:], steps=2),
], ids=["deconvnet", "smoothgrad", "maximise"])
def test_what_lies_above_a_unit_is_not_computed(ask: Any) -> None:
    class Unseen(nn.Layer):
        def forward(self, x: Any, train: bool = False, rng: Any = None) -> Any:
            raise AssertionError("nobody asked for it")

    model = nn.Sequential(conv1=nn.Conv2d(3, 4, 3, rng=np.random.default_rng(0)), relu1=nn.ReLU(), above=Unseen())
    ask(model, np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32))
