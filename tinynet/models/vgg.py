"""VGG (Simonyan & Zisserman 2015): nothing but 3×3 convolutions and 2×2 pools, 11 to 19 layers with weights.

The names are torchvision's, numbers of one long row: features.0, features.2, …, classifier.0, classifier.3, classifier.6.
"""

from __future__ import annotations

import numpy as np

from ..functional._check import generator
from ..nn import AdaptiveAvgPool2d, BatchNorm2d, Dropout, Flatten, Layer, MaxPool2d, ReLU, Sequential
from .parts import conv, gaussian, he_fan_out, linear
from .registry import IMAGENET, Paper, register

_PAPER = Paper("Simonyan & Zisserman", 2015, "Very deep convolutional networks for large-scale image recognition")
_known = register(preprocessing=IMAGENET, paper=_PAPER)


def vgg(
    depths: tuple[int, ...], norm: bool, classes: int, dropout: float, rng: np.random.Generator | None
) -> Sequential:
    """The VGG with that many convolutions in its five stages, of 64, 128, 256, 512 and 512 maps, each stage followed by a pool.

    norm: a BatchNorm behind every convolution.
    """
    rng = generator(rng)
    layers: list[Layer] = []
    channels = 3
    for maps, depth in zip((64, 128, 256, 512, 512), depths, strict=True):
        for _ in range(depth):
            layers += [conv(he_fan_out, rng, channels, maps, 3, padding=1), *([BatchNorm2d(maps)] if norm else []), ReLU()]
            channels = maps
        layers.append(MaxPool2d(2))
    draw = gaussian(0.01)
    classifier = Sequential(
        linear(draw, rng, 512 * 7 * 7, 4096), ReLU(), Dropout(dropout),
        linear(draw, rng, 4096, 4096), ReLU(), Dropout(dropout),
        linear(draw, rng, 4096, classes),
    )  # fmt: skip
    return Sequential(features=Sequential(*layers), avgpool=AdaptiveAvgPool2d(7), flatten=Flatten(), classifier=classifier)


@_known
def vgg11(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """Configuration A. Input (N, 3, H, W) of at least 32×32, made for 224×224; logits (N, classes)."""
    return vgg((1, 1, 2, 2, 2), False, classes, dropout, rng)


@_known
def vgg11_bn(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """vgg11 with BatchNorm."""
    return vgg((1, 1, 2, 2, 2), True, classes, dropout, rng)


@_known
def vgg13(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """Configuration B. Otherwise as vgg11."""
    return vgg((2, 2, 2, 2, 2), False, classes, dropout, rng)


@_known
def vgg13_bn(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """vgg13 with BatchNorm."""
    return vgg((2, 2, 2, 2, 2), True, classes, dropout, rng)


@_known
def vgg16(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """Configuration D. Otherwise as vgg11."""
    return vgg((2, 2, 3, 3, 3), False, classes, dropout, rng)


@_known
def vgg16_bn(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """vgg16 with BatchNorm."""
    return vgg((2, 2, 3, 3, 3), True, classes, dropout, rng)


@_known
def vgg19(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """Configuration E. Otherwise as vgg11."""
    return vgg((2, 2, 4, 4, 4), False, classes, dropout, rng)


@_known
def vgg19_bn(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """vgg19 with BatchNorm."""
    return vgg((2, 2, 4, 4, 4), True, classes, dropout, rng)
