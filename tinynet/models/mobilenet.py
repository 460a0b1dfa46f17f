"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov & Chen 2018): depthwise convolutions between 1×1 ones, sums at the narrow places.

Names are torchvision's: features.2.conv.0.0 widens, features.2.conv.1.0 filters each map by itself, features.2.conv.2 narrows,
without a rectifier.
"""

from __future__ import annotations

import numpy as np

from ..functional._check import generator
from ..nn import AdaptiveAvgPool2d, BatchNorm2d, Dropout, Flatten, Layer, ReLU6, Residual, Sequential
from .parts import conv, gaussian, he_fan_out, linear
from .registry import IMAGENET, Paper, register

_PAPER = Paper("Sandler, Howard, Zhu, Zhmoginov & Chen", 2018, "MobileNetV2: Inverted residuals and linear bottlenecks")

# The paper's table 2: expansion t, maps c, repetitions n, stride s of the first.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@register(preprocessing=IMAGENET, paper=_PAPER)
def mobilenet_v2(classes: int = 1000, dropout: float = 0.2, rng: np.random.Generator | None = None) -> Sequential:
    """Input (N, 3, H, W), logits (N, classes)."""
    rng = generator(rng)
    layers: list[Layer] = [conv_bn_relu6(rng, 3, 32, 3, 2)]
    channels = 32
    for expansion, maps, repetitions, stride in _STAGES:
        for i in range(repetitions):
            layers.append(inverted_residual(rng, channels, maps, 1 if i else stride, expansion))
            channels = maps
    layers.append(conv_bn_relu6(rng, channels, 1280, 1))
    return Sequential(
        features=Sequential(*layers), avgpool=AdaptiveAvgPool2d(1), flatten=Flatten(),
        classifier=Sequential(Dropout(dropout), linear(gaussian(0.01), rng, 1280, classes)),
    )


def inverted_residual(rng: np.random.Generator, into: int, maps: int, stride: int, expansion: int) -> Layer:
    """1×1 to `expansion` times the maps, 3×3 in each of them, 1×1 to `maps`; added to the input where sizes agree."""
    wide = expansion * into
    path = Sequential(
        *([conv_bn_relu6(rng, into, wide, 1)] if expansion > 1 else []),
        conv_bn_relu6(rng, wide, wide, 3, stride, groups=wide),
        conv(he_fan_out, rng, wide, maps, 1, bias=False), BatchNorm2d(maps),
    )  # fmt: skip
    return Residual(conv=path) if stride == 1 and into == maps else Sequential(conv=path)


def conv_bn_relu6(rng: np.random.Generator, into: int, maps: int, kernel: int, stride: int = 1, groups: int = 1) -> Sequential:
    """Convolution, BatchNorm, ReLU6."""
    layer = conv(he_fan_out, rng, into, maps, kernel, stride, kernel // 2, groups=groups, bias=False)
    return Sequential(layer, BatchNorm2d(maps), ReLU6())
