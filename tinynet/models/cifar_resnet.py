"""The ResNets for CIFAR-10 (He, Zhang, Ren & Sun 2016, section 4.2): 6n + 2 layers, a quarter of a million parameters at n = 3.

Shortcuts have no parameters (option A): where a stage halves the size of the maps and doubles their number, every second row
and column goes on, and maps of zeros stand on both sides. Names are those of the common PyTorch version (Y. Idelbayev's):
layer2.0.conv1, layer2.0.shortcut, linear.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..functional._check import generator
from ..nn import AdaptiveAvgPool2d, AvgPool2d, BatchNorm2d, Conv2d, Flatten, Layer, Linear, Pad, ReLU, Residual, Sequential
from .parts import conv, he_normal
from .registry import IMAGENET, Paper, register

_PAPER = Paper("He, Zhang, Ren & Sun", 2016, "Deep residual learning for image recognition")
_known = register(input_size=(3, 32, 32), preprocessing=replace(IMAGENET, resize=32, crop=32), paper=_PAPER)


def shortcut_a(into: int, maps: int) -> Sequential:
    """(N, into, H, W) → (N, maps, ⌈H/2⌉, ⌈W/2⌉), without parameters: a mean over windows of one cell takes every second, and
    zeros are put before and behind the channels.
    """
    low = (maps - into) // 2
    return Sequential(subsample=AvgPool2d(1, 2), pad=Pad((0, 0, 0, 0, low, maps - into - low)))


def block(into: int, maps: int, stride: int, rng: np.random.Generator) -> Sequential:
    """Two 3×3 convolutions beside the identity, or beside option A where the stride is 2."""
    body = Sequential(
        conv1=_conv(rng, into, maps, stride), bn1=BatchNorm2d(maps), relu1=ReLU(),
        conv2=_conv(rng, maps, maps), bn2=BatchNorm2d(maps),
    )  # fmt: skip
    beside = {} if stride == 1 else {"shortcut": shortcut_a(into, maps)}
    return Sequential(_sum=Residual({"_body": body, **beside}), relu2=ReLU())


def cifar_resnet(n: int, classes: int, rng: np.random.Generator | None) -> Sequential:
    """n blocks in each of three stages, of 16, 32 and 64 maps."""
    rng = generator(rng)
    layers: dict[str, Layer] = {"conv1": _conv(rng, 3, 16), "bn1": BatchNorm2d(16), "relu": ReLU()}
    channels = 16
    for stage in range(3):
        maps, blocks = 16 << stage, []
        for i in range(n):
            blocks.append(block(channels, maps, 2 if stage and not i else 1, rng))
            channels = maps
        layers[f"layer{stage + 1}"] = Sequential(*blocks)
    last = Linear(64, classes, rng=rng)
    last.weight = he_normal(rng, last.weight.shape)
    return Sequential({**layers, "avgpool": AdaptiveAvgPool2d(1), "flatten": Flatten(), "linear": last})


@_known
def cifar_resnet20(classes: int = 10, rng: np.random.Generator | None = None) -> Sequential:
    """n = 3. Input (N, 3, 32, 32), logits (N, classes)."""
    return cifar_resnet(3, classes, rng)


@_known
def cifar_resnet32(classes: int = 10, rng: np.random.Generator | None = None) -> Sequential:
    """n = 5. Input (N, 3, 32, 32), logits (N, classes)."""
    return cifar_resnet(5, classes, rng)


@_known
def cifar_resnet56(classes: int = 10, rng: np.random.Generator | None = None) -> Sequential:
    """n = 9. Input (N, 3, 32, 32), logits (N, classes)."""
    return cifar_resnet(9, classes, rng)


def _conv(rng: np.random.Generator, into: int, maps: int, stride: int = 1) -> Conv2d:
    return conv(he_normal, rng, into, maps, 3, stride, 1, bias=False)
