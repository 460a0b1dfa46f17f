"""Networks with everything a walk back can meet, the same in PyTorch, and the rules of the walks in PyTorch's autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.checking import values
from tests.nn.helpers import randomise
from tinynet import nn

T = torch.nn


def _overlapping() -> nn.Layer:
    """Overlapping pools, one rounding up; strides that do not divide; conv → pool → bn → relu as in the cat nets."""
    return nn.Sequential(
        conv1=nn.Conv2d(3, 6, 5, 2, 1), pool1=nn.MaxPool2d(3, 2, ceil_mode=True), bn1=nn.BatchNorm2d(6), relu1=nn.ReLU(),
        conv2=nn.Conv2d(6, 8, 3, 2), relu2=nn.ReLU(), pool2=nn.MaxPool2d(3, 1, 1), conv3=nn.Conv2d(8, 6, 3, padding=1),
        relu3=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(6, 4),
    )


def _overlapping_torch(relu: Callable[[], T.Module]) -> T.Module:
    return _named(
        conv1=T.Conv2d(3, 6, 5, 2, 1), pool1=T.MaxPool2d(3, 2, ceil_mode=True), bn1=T.BatchNorm2d(6), relu1=relu(),
        conv2=T.Conv2d(6, 8, 3, 2), relu2=relu(), pool2=T.MaxPool2d(3, 1, 1), conv3=T.Conv2d(8, 6, 3, padding=1), relu3=relu(),
        pool=T.AdaptiveAvgPool2d(1), flatten=T.Flatten(), fc=T.Linear(6, 4),
    )


def _fire(into: int, squeeze: int, expand: int) -> nn.Layer:
    return nn.Sequential(
        squeeze=nn.Conv2d(into, squeeze, 1), squeeze_activation=nn.ReLU(),
        _expand=nn.Concat(
            _1=nn.Sequential(expand1x1=nn.Conv2d(squeeze, expand, 1), expand1x1_activation=nn.ReLU()),
            _3=nn.Sequential(expand3x3=nn.Conv2d(squeeze, expand, 3, padding=1), expand3x3_activation=nn.ReLU()),
        ),
    )


class _Fire(T.Module):
    def __init__(self, into: int, squeeze: int, expand: int, relu: Callable[[], T.Module]) -> None:
        super().__init__()
        self.squeeze, self.squeeze_activation = T.Conv2d(into, squeeze, 1), relu()
        self.expand1x1, self.expand1x1_activation = T.Conv2d(squeeze, expand, 1), relu()
        self.expand3x3, self.expand3x3_activation = T.Conv2d(squeeze, expand, 3, padding=1), relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        return torch.cat([self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1)


def _squeeze() -> nn.Layer:
    """SqueezeNet's shape: Concat inside, units at features.3.expand3x3."""
    features = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), _fire(6, 4, 5), nn.MaxPool2d(3, 2, ceil_mode=True),
        _fire(10, 4, 6),
    )
    classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(12, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(features=features, classifier=classifier, flatten=nn.Flatten())


def _squeeze_torch(relu: Callable[[], T.Module]) -> T.Module:
    features = T.Sequential(
        T.Conv2d(3, 6, 3, 2), relu(), T.MaxPool2d(3, 2, ceil_mode=True), _Fire(6, 4, 5, relu), T.MaxPool2d(3, 2, ceil_mode=True),
        _Fire(10, 4, 6, relu),
    )
    classifier = T.Sequential(T.Dropout(0.5), T.Conv2d(12, 5, 1), relu(), T.AdaptiveAvgPool2d(1))
    return _named(features=features, classifier=classifier, flatten=T.Flatten())


def _residual() -> nn.Layer:
    """Residual blocks with and without a shortcut of their own, one ReLU instance for all, strides, groups, dilation."""
    relu = nn.ReLU()

    def body(into: int, out: int, stride: int, **how: Any) -> nn.Layer:
        return nn.Sequential(
            conv1=nn.Conv2d(into, out, 3, stride, bias=False, **how), bn1=nn.BatchNorm2d(out), relu=relu,
            conv2=nn.Conv2d(out, out, 3, padding=2, dilation=2, groups=2, bias=False), bn2=nn.BatchNorm2d(out),
        )

    shortcut = nn.Sequential(nn.Conv2d(6, 8, 1, 2, bias=False), nn.BatchNorm2d(8))
    return nn.Sequential(
        conv1=nn.Conv2d(3, 6, 3, padding=1, bias=False), relu=relu, pool=nn.MaxPool2d(2),
        block1=nn.Residual(_body=body(6, 6, 1, padding=1)), relu1=relu,
        block2=nn.Residual(_body=body(6, 8, 2, padding=1), downsample=shortcut), relu2=relu,
        gap=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(8, 3),
    )


class _Block(T.Module):
    def __init__(self, into: int, out: int, stride: int, relu: Callable[[], T.Module], downsample: T.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = T.Conv2d(into, out, 3, stride, 1, bias=False), T.BatchNorm2d(out), relu()
        self.conv2, self.bn2 = T.Conv2d(out, out, 3, padding=2, dilation=2, groups=2, bias=False), T.BatchNorm2d(out)
        if downsample is not None:
            self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        body = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return body + (self.downsample(x) if hasattr(self, "downsample") else x)


def _residual_torch(relu: Callable[[], T.Module]) -> T.Module:
    shortcut = T.Sequential(T.Conv2d(6, 8, 1, 2, bias=False), T.BatchNorm2d(8))
    return _named(                                              # one ReLU a place, since hooks cannot tell uses of one apart
        conv1=T.Conv2d(3, 6, 3, padding=1, bias=False), relu=relu(), pool=T.MaxPool2d(2),
        block1=_Block(6, 6, 1, relu, None), relu1=relu(), block2=_Block(6, 8, 2, relu, shortcut), relu2=relu(),
        gap=T.AdaptiveAvgPool2d(1), flatten=T.Flatten(), fc=T.Linear(8, 3),
    )


def _mixed() -> nn.Layer:
    """Groups, dilation, "same", mean pooling, padding, upsampling, a transposed convolution, dense layers behind it."""
    return nn.Sequential(
        pad=nn.Pad((1, 2, 0, 1)), conv1=nn.Conv2d(3, 6, 3, padding="same", dilation=2), relu1=nn.ReLU(), mean=nn.AvgPool2d(2),
        conv2=nn.Conv2d(6, 6, 3, 2, groups=3), relu2=nn.ReLU(), up=nn.Upsample(scale_factor=2, mode="nearest"),
        deconv=nn.ConvTranspose2d(6, 4, 3, 2, 1), relu3=nn.ReLU(), pool=nn.MaxPool2d(2, 3), flatten=nn.Flatten(),
        fc1=nn.Linear(120, 10), relu4=nn.ReLU(), fc2=nn.Linear(10, 4),
    )


def _mixed_torch(relu: Callable[[], T.Module]) -> T.Module:
    return _named(
        pad=T.ZeroPad2d((1, 2, 0, 1)), conv1=T.Conv2d(3, 6, 3, padding="same", dilation=2), relu1=relu(), mean=T.AvgPool2d(2),
        conv2=T.Conv2d(6, 6, 3, 2, groups=3), relu2=relu(), up=T.Upsample(scale_factor=2, mode="nearest"),
        deconv=T.ConvTranspose2d(6, 4, 3, 2, 1), relu3=relu(), pool=T.MaxPool2d(2, 3), flatten=T.Flatten(),
        fc1=T.Linear(120, 10), relu4=relu(), fc2=T.Linear(10, 4),
    )


def _named(**layers: T.Module) -> T.Sequential:
    model = T.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


SEEDS = {"overlapping": 3, "squeeze": 2, "residual": 0, "mixed": 0}
"""Weights with which the maps that the tests look at are alive."""

# name → (tinynet's, PyTorch's, an input's shape, layers to begin a walk at)
NETS: dict[str, tuple[Callable[[], nn.Layer], Callable[..., T.Module], tuple[int, ...], tuple[str, ...]]] = {
    "overlapping": (_overlapping, _overlapping_torch, (3, 3, 29, 26), (
        "conv1", "bn1", "relu1", "conv2", "relu2", "pool2", "conv3", "relu3")),
    "squeeze": (_squeeze, _squeeze_torch, (2, 3, 32, 27), (
        "features.0", "features.2", "features.3.squeeze", "features.3.expand3x3", "features.3", "features.5.expand1x1",
        "features.5.expand3x3_activation", "classifier.1")),
    "residual": (_residual, _residual_torch, (2, 3, 15, 18), (
        "pool", "block1.conv1", "block1.bn2", "block1", "relu1", "block2.conv2", "block2.downsample.0", "block2", "relu2")),
    "mixed": (_mixed, _mixed_torch, (2, 3, 19, 20), ("conv1", "relu1", "mean", "conv2", "up", "deconv", "relu3", "pool", "fc1")),
}  # fmt: skip


def pair(name: str, relu: Callable[[], T.Module] = T.ReLU) -> tuple[nn.Layer, T.Module, np.ndarray]:
    """The net of that name in tinynet and in PyTorch, with the same weights, at inference, and a batch for it, all in float64."""
    ours, theirs, shape, _ = NETS[name]
    seed = SEEDS[name]
    model = randomise(ours(), seed)
    for key, array in model.state_dict().items():
        if key.endswith("bias"):
            array += 0.5                                        # so that few ReLUs are dead
    module = theirs(relu).double().eval()
    state = {key: torch.from_numpy(np.array(x)) for key, x in model.state_dict().items()}
    module.load_state_dict(state, strict=True)
    return model, module, values(seed + 7, shape)


class _Deconv(torch.autograd.Function):
    """y = max(x, 0), and back: max(g, 0)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0].clamp(min=0)


class _Guided(torch.autograd.Function):
    """y = max(x, 0), and back: max(g, 0)·[x > 0]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        return gradients[0].clamp(min=0) * (x > 0)


class DeconvReLU(T.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Deconv.apply(x)                                 # type: ignore[no-any-return]


class GuidedReLU(T.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Guided.apply(x)                                 # type: ignore[no-any-return]


def walk_in_torch(module: T.Module, x: np.ndarray, layer: str | None, seed: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """Autograd from the output of `layer` (None: of the module), which begins with seed(output), to x."""
    found: list[torch.Tensor] = []
    target = module if layer is None else module.get_submodule(layer)
    handle = target.register_forward_hook(lambda _m, _i, y: found.append(y))
    tensor = torch.tensor(x, requires_grad=True)
    module(tensor)
    handle.remove()
    (gradient,) = torch.autograd.grad(found[0], tensor, seed(found[0].detach()))
    return gradient.numpy()
