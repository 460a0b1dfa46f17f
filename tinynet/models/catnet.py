"""The cat nets: small convolutional networks that learn from a few thousand photos on a laptop.

Convolution, pooling, batch normalisation, ReLU, four or five times, until each of the last maps has seen the whole
photo. The pooling stands before the normalisation: max and ReLU may change places, and a map that is pooled first costs a
quarter to normalise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..functional._check import generator
from ..nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GroupLogSumExp,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    init,
)
from .registry import register


@register(input_size=(3, 32, 32))
def catnet(
    classes: int = 2, size: int = 32, groups: Sequence[Sequence[int]] | None = None, dropout: float = 0.3, width: int = 32,
    rng: np.random.Generator | None = None,
) -> Sequential:
    """For small photos: five 3×3 convolutions. Input (N, 3, size, size), logits (N, classes).

    width: maps of the first convolution; the others have 2, 4, 4, 8 times as many.
    groups: a last layer unites classes; then logits are (N, len(groups)).
    """
    rng = generator(rng)
    layers: dict[str, Layer] = {}
    channels = 3
    for number, (times, pooled) in enumerate([(1, True), (2, True), (4, False), (4, True), (8, False)], 1):
        maps = times * width
        layers.update(_stage(number, channels, maps, 3, 1, MaxPool2d(2) if pooled else None, rng))
        channels = maps
    return _with_head(layers, MaxPool2d(size // 8), channels, classes, groups, dropout, rng)


@register()
def photonet(
    classes: int = 2, stem: tuple[int, int] = (7, 4), groups: Sequence[Sequence[int]] | None = None, dropout: float = 0.3,
    rng: np.random.Generator | None = None,
) -> Sequential:
    """For photos of 64×64 and more: a coarse first convolution, then four of 3×3, with 32, 64, 128, 128, 256 maps.

    stem: kernel size and stride of the first convolution; (7, 4) suits 224×224 pixels, (5, 2) half of that. Input (N, 3, H, W),
    logits (N, classes).
    """
    rng = generator(rng)
    layers = _stage(1, 3, 32, *stem, MaxPool2d(2), rng)
    channels = 32
    for number, (maps, pooled) in enumerate([(64, True), (128, False), (128, True), (256, False)], 2):
        layers.update(_stage(number, channels, maps, 3, 1, MaxPool2d(2) if pooled else None, rng))
        channels = maps
    return _with_head(layers, AdaptiveAvgPool2d(1), channels, classes, groups, dropout, rng)


def _stage(
    number: int, channels: int, maps: int, kernel: int, stride: int, pool: Layer | None, rng: np.random.Generator
) -> dict[str, Layer]:
    """conv, pool (if any), norm, ReLU, named conv1, pool1, …; the convolution has no bias, since the normalisation has one."""
    conv = Conv2d(channels, maps, kernel, stride, padding=kernel // 2, bias=False, rng=rng)
    conv.weight = init.kaiming_normal(rng, conv.weight.shape)
    named: dict[str, Any] = {"conv": conv, "pool": pool, "bn": BatchNorm2d(maps), "relu": ReLU()}
    return {f"{kind}{number}": layer for kind, layer in named.items() if layer is not None}


def _with_head(
    layers: dict[str, Layer], pool: Layer, channels: int, classes: int, groups: Sequence[Sequence[int]] | None, dropout: float,
    rng: np.random.Generator,
) -> Sequential:
    """The strongest (or mean) answer of each last map, dropout, one linear layer, and unions of its classes if asked for."""
    head: dict[str, Layer] = {
        "pool": pool, "flatten": Flatten(), "dropout": Dropout(dropout), "fc": Linear(channels, classes, rng=rng),
    }
    if groups is not None:
        head["groups"] = GroupLogSumExp(groups)
    return Sequential({**layers, **head})
