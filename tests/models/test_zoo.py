"""The networks of the zoo: published sizes and counts; names, shapes, order, maps and gradients of twins in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch

from tests.checking import Backend, values
from tests.models import twins
from tests.models.compare import SIZES, alive, compare_maps, slim, tensors, twin_of
from tests.models.twins import TWINS, auxiliary, basic_conv
from tests.nn.helpers import compare
from tinynet import nn
from tinynet.errors import ArgumentError, ShapeError
from tinynet.models import cifar_resnet, create, entry, googlenet, mobilenet, names, resnet, squeezenet
from tinynet.nn import init

# As published by torchvision and by the papers' authors; LeNet-5 with every map of C3 connected, TinyVGG by hand.
PARAMETERS = {
    "lenet5": 61_706, "alexnet": 61_100_840, "zfnet": 62_357_608, "vgg11": 132_863_336, "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848, "vgg13_bn": 133_053_736, "vgg16": 138_357_544, "vgg16_bn": 138_365_992, "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248, "googlenet": 6_624_904, "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032,
    "cifar_resnet20": 269_722, "cifar_resnet32": 464_154, "cifar_resnet56": 853_018, "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496, "mobilenet_v2": 3_504_872, "tinyvgg": 19_920,
}  # fmt: skip


def test_every_model_has_a_twin_and_a_published_count() -> None:
    published = {name for name in names() if entry(name).paper}
    assert published == set(TWINS) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_names_shapes_and_order(name: str) -> None:
    model = create(name, rng=init.no_draws)
    assert sum(x.size for x in model.named_parameters().values()) == PARAMETERS[name]
    with torch.device("meta"):
        theirs = TWINS[name]()
    assert [(k, tuple(x.shape)) for k, x in model.state_dict().items()] == [
        (k, tuple(x.shape)) for k, x in theirs.state_dict().items()
    ]
    assert list(model.named_parameters()) == [key for key, _ in theirs.named_parameters()]
    twin_of(name, model)                                        # loads strictly
    assert model.infer(np.zeros((0, *entry(name).input_size), np.float32)).shape[1] in (10, 1000)
    few = create(name, rng=init.no_draws, classes=7)
    assert few.infer(np.zeros((0, *entry(name).input_size), np.float32)).shape == (0, 7)


@pytest.mark.parametrize("name", SIZES)
def test_every_map_is_pytorchs(name: str) -> None:
    """float64: 1e-10 of each map's largest value."""
    model = alive(create(name, rng=init.no_draws))
    module = twin_of(name, model)
    compare_maps(model, module, values(3, SIZES[name]), 1e-10)


@pytest.mark.parametrize("name", sorted(set(TWINS) - set(SIZES)))
def test_every_map_of_the_other_depths_is_pytorchs(name: str) -> None:
    """Without VGG's dense layers, which are those of vgg11."""
    model = create(name, rng=init.no_draws)
    thick = name.startswith("vgg")
    model = alive(slim(model) if thick else model)
    compare_maps(model, twin_of(name, model, thick), values(3, (1, 3, 33, 36)), 1e-10)


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "cifar_resnet56", "googlenet", "mobilenet_v2"])
def test_pytorchs_weights_load(name: str) -> None:
    """The other way: fresh weights of the twin, in float32. Rounding, 2⁻²⁴ a sum, grows with the root of the depth and of the
    number of products, here 60 layers and 4,608 products at most: 2⁻²⁴ · √60 · √4608 = 3e-5.
    """
    torch.manual_seed(0)
    module = TWINS[name]().eval()
    model = create(name, rng=init.no_draws)
    model.load_state_dict({key: x.numpy() for key, x in module.state_dict().items()})
    size = SIZES.get(name, (1, 3, 32, 32))
    compare_maps(model, module, values(3, size).astype(np.float32), 3e-5)


# A module of each structural kind: all gradients and statistics in training, on every backend.

KINDS: dict[str, tuple[Callable[[], nn.Layer], Callable[[], Any], tuple[int, ...]]] = {
    "fire": (lambda: squeezenet.fire(6, 3, 4, _rng()), lambda: twins.Fire(6, 3, 4), (2, 6, 7, 5)),
    "basic block": (lambda: resnet.basic_block(4, 4, 1, _rng()), lambda: twins.BasicBlock(4, 4), (2, 4, 6, 5)),
    "basic block, stride 2": (lambda: resnet.basic_block(4, 6, 2, _rng()), lambda: twins.BasicBlock(4, 6, 2), (2, 4, 7, 6)),
    "bottleneck": (lambda: resnet.bottleneck(8, 2, 1, _rng()), lambda: twins.Bottleneck(8, 2), (2, 8, 5, 6)),
    "bottleneck, wider": (lambda: resnet.bottleneck(4, 2, 1, _rng()), lambda: twins.Bottleneck(4, 2), (2, 4, 5, 6)),
    "bottleneck, stride 2": (lambda: resnet.bottleneck(4, 3, 2, _rng()), lambda: twins.Bottleneck(4, 3, 2), (2, 4, 7, 6)),
    "option A": (lambda: cifar_resnet.block(4, 8, 2, _rng()), lambda: twins.CifarBlock(4, 8, 2), (2, 4, 7, 6)),
    "cifar block": (lambda: cifar_resnet.block(4, 4, 1, _rng()), lambda: twins.CifarBlock(4, 4), (2, 4, 5, 6)),
    "inception": (
        lambda: googlenet.inception(5, 2, 3, 4, 2, 3, 1, _rng()), lambda: twins.Inception(5, 2, 3, 4, 2, 3, 1), (2, 5, 6, 5)),
    "basic conv": (lambda: googlenet.basic_conv(_rng(), 3, 4, 3), lambda: basic_conv(3, 4, kernel_size=3), (2, 3, 5, 4)),
    "depthwise": (
        lambda: mobilenet.inverted_residual(_rng(), 3, 3, 1, 2), lambda: twins.InvertedResidual(3, 3, 1, 2), (2, 3, 6, 5)),
    "depthwise, stride 2": (
        lambda: mobilenet.inverted_residual(_rng(), 3, 4, 2, 6), lambda: twins.InvertedResidual(3, 4, 2, 6), (2, 3, 7, 6)),
    "depthwise, not wider": (
        lambda: mobilenet.inverted_residual(_rng(), 4, 3, 1, 1), lambda: twins.InvertedResidual(4, 3, 1, 1), (2, 4, 5, 6)),
}  # fmt: skip


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_each_kind(backend: Backend, kind: str, train: bool) -> None:
    make, twin, shape = KINDS[kind]
    compare(backend, make, twin(), shape, train=train)


def test_a_whole_network_in_training() -> None:
    """ResNet-20: the loss's gradient by every parameter, with BatchNorm on the batch's own statistics."""
    model, module = alive(create("cifar_resnet20", rng=init.no_draws)), TWINS["cifar_resnet20"]().double().train()
    module.load_state_dict({key: x.clone() for key, x in tensors(model.state_dict()).items()}, strict=True)
    x, labels = values(0, (4, 3, 16, 16)), np.array([1, 5, 0, 9])
    loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(labels))
    loss.backward()
    logits, saved = model.forward(x, train=True)                # type: ignore[call-arg]
    value, dlogits = nn.CrossEntropyLoss()(logits, labels)
    _, gradients = nn.backward(model, saved, dlogits)
    assert float(value) == pytest.approx(loss.item(), abs=1e-10)
    for key, p in module.named_parameters():
        assert p.grad is not None
        want = p.grad.numpy()
        np.testing.assert_allclose(gradients[key], want, rtol=0, atol=1e-10 * max(1, np.abs(want).max()), err_msg=key)
    for key, tensor in module.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[key], tensor.numpy(), rtol=1e-10, atol=1e-10, err_msg=key)


# What a paper or torchvision says of one of them.


def test_zfnet_has_the_papers_sizes() -> None:
    model = create("zfnet", rng=init.no_draws)
    rows = {row.path: row for row in nn.summary(model, (3, 224, 224)).rows}
    layers = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    assert [rows[path].output[1:] for path in layers] == [(n, n) for n in (110, 55, 26, 13, 13, 13, 13, 6)]
    assert [rows[path].output[0] for path in layers] == [96, 96, 256, 256, 384, 384, 256, 256]
    fields = [nn.receptive_field(model, path) for path in layers]
    assert [field and field.size for field in fields] == [(n, n) for n in (7, 11, 27, 43, 75, 107, 139, 171)]
    assert [rows[path].output for path in ("fc6", "fc7", "fc8")] == [(4096,), (4096,), (1000,)]


def test_googlenets_checkpoint_with_auxiliary_classifiers_loads() -> None:
    """13,004,888 parameters in torchvision's, with them; what is not theirs is still an error."""
    state = {key: torch.full(x.shape, 0.5) for key, x in TWINS["googlenet"]().state_dict().items()}
    for name, into in (("aux1", 512), ("aux2", 528)):
        state |= {f"{name}.{key}": x for key, x in auxiliary(into).state_dict().items()}
    arrays = {key: x.numpy() for key, x in state.items()}
    trained = sum(x.size for key, x in arrays.items() if "running" not in key and "tracked" not in key)
    assert trained == 13_004_888
    model = create("googlenet", rng=init.no_draws)
    model.load_state_dict(arrays)
    assert (model.layer("inception4a.branch2.1.conv").weight == 0.5).all()             # type: ignore[attr-defined]
    with pytest.raises(ShapeError, match="unexpected aux3"):
        model.load_state_dict({**arrays, "aux3.conv": arrays["fc.bias"]})
    with pytest.raises(ShapeError, match=r"missing fc\.bias"):
        model.load_state_dict({key: x for key, x in arrays.items() if key != "fc.bias"})


def test_googlenets_preprocessing_is_torchvisions_transform_input() -> None:
    """torchvision normalises by ImageNet's statistics and, within the network, leads back to pixels between −1 and 1."""
    photo = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    known = entry("googlenet").preprocessing
    usual = entry("resnet18").preprocessing
    assert known is not None and usual is not None
    x = torch.from_numpy(usual.to_input()(photo, _rng()))
    back = torch.stack([x[c] * (s / 0.5) + (m - 0.5) / 0.5 for c, (m, s) in enumerate(zip(usual.mean, usual.std, strict=True))])
    np.testing.assert_allclose(known.to_input()(photo, _rng()), back.numpy(), atol=1e-6)
    assert float(back.min()) < -0.9 and float(back.max()) > 0.9


@pytest.mark.parametrize(("name", "sigmas"), [
    # layer → the standard deviation of torchvision's initial weights
    ("squeezenet1_1", {"features.3.squeeze": sqrt(2 / 64), "features.12.expand3x3": sqrt(2 / 576), "classifier.1": 0.01}),
    ("resnet18", {"conv1": sqrt(2 / (64 * 49)), "layer4.0.conv1": sqrt(2 / (512 * 9)), "fc": sqrt(1 / (3 * 512))}),
    ("googlenet", {"conv1.conv": 0.01, "inception5b.branch3.1.conv": 0.01, "fc": 0.01}),
    ("mobilenet_v2", {"features.0.0": sqrt(2 / (32 * 9)), "features.3.conv.1.0": sqrt(2 / (144 * 9)),
                      "features.18.0": sqrt(2 / 1280), "classifier.1": 0.01}),
    ("cifar_resnet20", {"layer2.0.conv1": sqrt(2 / (16 * 9)), "linear": sqrt(2 / 64)}),
    ("tinyvgg", {"conv_1_2": sqrt(1 / (3 * 90)), "output": sqrt(1 / (3 * 1690))}),
])  # fmt: skip
def test_initial_weights_have_torchvisions_spread(name: str, sigmas: dict[str, float]) -> None:
    model = create(name, rng=np.random.default_rng(0))
    again = create(name, rng=np.random.default_rng(0))
    for path, sigma in sigmas.items():
        w = model.layer(path).weight                            # type: ignore[attr-defined]
        assert w.dtype == np.float32
        assert w.std() == pytest.approx(sigma, rel=5 / sqrt(2 * w.size)), path         # five standard errors
    for key, x in model.state_dict().items():
        np.testing.assert_array_equal(x, again.state_dict()[key])
    if name in ("squeezenet1_1", "mobilenet_v2"):
        assert not any(x.any() for key, x in model.named_parameters().items() if key.endswith("bias"))


def test_vggs_and_zfnets_initial_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of what would be drawn, since so many numbers take seconds."""
    drawn: list[tuple[tuple[int, ...], float]] = []

    def normal(rng: np.random.Generator, shape: tuple[int, ...], std: float, dtype: Any = np.float32) -> np.ndarray:
        drawn.append((tuple(shape), std))
        return np.zeros(shape, dtype)

    monkeypatch.setattr(init, "normal", normal)
    model = create("vgg11", rng=np.random.default_rng(0))
    assert [(shape, std) for shape, std in drawn if len(shape) == 4][1] == ((128, 64, 3, 3), pytest.approx(sqrt(2 / (128 * 9))))
    assert [std for shape, std in drawn if len(shape) == 2] == [0.01] * 3
    assert len(drawn) == 11 and not any(x.any() for x in model.named_parameters().values())
    drawn.clear()
    create("zfnet", rng=np.random.default_rng(0))
    assert [std for _, std in drawn] == [0.01] * 8              # section 3.1


def test_unknown_names_and_arguments() -> None:
    with pytest.raises(ArgumentError, match=r"no model 'resnet-18'; nearest: .*resnet18"):
        create("resnet-18")
    with pytest.raises(ArgumentError, match="no model 'ResNet50'; nearest: resnet50"):
        entry("ResNet50")
    with pytest.raises(ArgumentError, match="it takes classes, dropout"):
        create("alexnet", num_classes=3)
