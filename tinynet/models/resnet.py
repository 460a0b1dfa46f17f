"""ResNet (He, Zhang, Ren & Sun 2016): every block adds to what it was given, so that depth does no harm.

Names are torchvision's: layer2.0.conv1, layer2.0.downsample.0, fc. torchvision calls one ReLU several times in a block; here each
has its place and name, layer2.0.relu1 behind the first normalisation, and the last behind the sum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..functional._check import generator
from ..nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Layer, Linear, MaxPool2d, ReLU, Residual, Sequential
from .parts import conv, he_fan_out
from .registry import IMAGENET, Paper, register

_PAPER = Paper("He, Zhang, Ren & Sun", 2016, "Deep residual learning for image recognition")
_known = register(preprocessing=IMAGENET, paper=_PAPER)

Block = Callable[[int, int, int, np.random.Generator], Layer]
"""block(into, maps, stride, rng)."""


def basic_block(into: int, maps: int, stride: int, rng: np.random.Generator) -> Sequential:
    """Two 3×3 convolutions. `into` maps in, `maps` maps out."""
    body = Sequential(
        conv1=_conv(rng, into, maps, 3, stride), bn1=BatchNorm2d(maps), relu1=ReLU(),
        conv2=_conv(rng, maps, maps, 3), bn2=BatchNorm2d(maps),
    )  # fmt: skip
    return Sequential(_sum=_residual(body, into, maps, stride, rng), relu2=ReLU())


def bottleneck(into: int, maps: int, stride: int, rng: np.random.Generator) -> Sequential:
    """1×1 down to `maps`, 3×3 with the stride, 1×1 up to 4 · maps (the stride in the middle is torchvision's, "v1.5")."""
    body = Sequential(
        conv1=_conv(rng, into, maps, 1), bn1=BatchNorm2d(maps), relu1=ReLU(),
        conv2=_conv(rng, maps, maps, 3, stride), bn2=BatchNorm2d(maps), relu2=ReLU(),
        conv3=_conv(rng, maps, 4 * maps, 1), bn3=BatchNorm2d(4 * maps),
    )  # fmt: skip
    return Sequential(_sum=_residual(body, into, 4 * maps, stride, rng), relu3=ReLU())


def resnet(
    block: Block, expansion: int, depths: tuple[int, int, int, int], classes: int, rng: np.random.Generator | None
) -> Sequential:
    """depths: blocks in the four stages, of 64, 128, 256 and 512 maps (times `expansion` behind a block)."""
    rng = generator(rng)
    layers: dict[str, Layer] = {
        "conv1": conv(he_fan_out, rng, 3, 64, 7, 2, 3, bias=False), "bn1": BatchNorm2d(64), "relu": ReLU(),
        "maxpool": MaxPool2d(3, 2, 1),
    }
    channels = 64
    for stage, depth in enumerate(depths):
        maps, blocks = 64 << stage, []
        for i in range(depth):
            blocks.append(block(channels, maps, 2 if stage and not i else 1, rng))
            channels = expansion * maps
        layers[f"layer{stage + 1}"] = Sequential(*blocks)
    return Sequential({**layers, "avgpool": AdaptiveAvgPool2d(1), "flatten": Flatten(), "fc": Linear(channels, classes, rng=rng)})


@_known
def resnet18(classes: int = 1000, rng: np.random.Generator | None = None) -> Sequential:
    """Input (N, 3, H, W), logits (N, classes)."""
    return resnet(basic_block, 1, (2, 2, 2, 2), classes, rng)


@_known
def resnet34(classes: int = 1000, rng: np.random.Generator | None = None) -> Sequential:
    """Input (N, 3, H, W), logits (N, classes)."""
    return resnet(basic_block, 1, (3, 4, 6, 3), classes, rng)


@_known
def resnet50(classes: int = 1000, rng: np.random.Generator | None = None) -> Sequential:
    """Input (N, 3, H, W), logits (N, classes)."""
    return resnet(bottleneck, 4, (3, 4, 6, 3), classes, rng)


def _conv(rng: np.random.Generator, into: int, maps: int, kernel: int, stride: int = 1) -> Conv2d:
    return conv(he_fan_out, rng, into, maps, kernel, stride, kernel // 2, bias=False)


def _residual(body: Sequential, into: int, maps: int, stride: int, rng: np.random.Generator) -> Residual:
    """The shortcut is the identity where sizes agree, and otherwise a 1×1 convolution (option B)."""
    if stride == 1 and into == maps:
        return Residual(_body=body)
    return Residual(_body=body, downsample=Sequential(_conv(rng, into, maps, 1, stride), BatchNorm2d(maps)))
