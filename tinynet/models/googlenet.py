"""GoogLeNet (Szegedy et al. 2015), with BatchNorm, as torchvision has it.

An Inception module looks at the same maps with 1×1 and 3×3 filters and through a pool, side by side, each behind 1×1 filters that
keep it cheap. Names are torchvision's: inception3a.branch2.1.conv, fc.

The paper's two auxiliary classifiers, which helped the training of that time and have no part in an answer, are left out: this is
the network that torchvision gives with pretrained weights. A checkpoint that still has them (aux1.…, aux2.…) loads; they are
passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..functional._check import generator
from ..nn import AdaptiveAvgPool2d, BatchNorm2d, Concat, Dropout, Flatten, Linear, MaxPool2d, ReLU, Sequential
from .parts import conv, gaussian
from .registry import IMAGENET, Paper, register

_PAPER = Paper(
    "Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke & Rabinovich", 2015, "Going deeper with convolutions"
)
# The published weights came from TensorFlow, for pixels between −1 and 1; torchvision's transform_input leads back to these.
_SEEN = replace(IMAGENET, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class GoogLeNet(Sequential):
    """A Sequential whose state may come with auxiliary classifiers."""

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """As Layer.load_state_dict; what begins with aux1. or aux2. is passed over."""
        super().load_state_dict({k: v for k, v in state.items() if not k.startswith(("aux1.", "aux2."))}, strict)


def basic_conv(rng: np.random.Generator, *arguments: int, **options: int) -> Sequential:
    """Convolution, BatchNorm, ReLU."""
    layer = conv(gaussian(0.01), rng, *arguments, **options, bias=False)
    return Sequential(conv=layer, bn=BatchNorm2d(layer.out_channels, eps=0.001), relu=ReLU())


def inception(
    into: int, ones: int, reduce3: int, threes: int, reduce5: int, fives: int, pooled: int, rng: np.random.Generator
) -> Concat:
    """The columns of the paper's table 1: maps of the 1×1 filters, of the 3×3 and the "5×5" with the 1×1 before each, and of the
    1×1 behind the pool. The "5×5" filters are 3×3, as in the published weights.
    """
    return Concat(
        branch1=basic_conv(rng, into, ones, 1),
        branch2=Sequential(basic_conv(rng, into, reduce3, 1), basic_conv(rng, reduce3, threes, 3, padding=1)),
        branch3=Sequential(basic_conv(rng, into, reduce5, 1), basic_conv(rng, reduce5, fives, 3, padding=1)),
        branch4=Sequential(MaxPool2d(3, 1, 1, ceil_mode=True), basic_conv(rng, into, pooled, 1)),
    )


@register(preprocessing=_SEEN, paper=_PAPER)
def googlenet(classes: int = 1000, dropout: float = 0.2, rng: np.random.Generator | None = None) -> GoogLeNet:
    """Nine Inception modules. Input (N, 3, H, W), logits (N, classes)."""
    rng = generator(rng)
    fc = Linear(1024, classes, rng=rng)
    fc.weight = gaussian(0.01)(rng, fc.weight.shape)
    return GoogLeNet(
        conv1=basic_conv(rng, 3, 64, 7, 2, 3), maxpool1=MaxPool2d(3, 2, ceil_mode=True),       # (64, 56, 56)
        conv2=basic_conv(rng, 64, 64, 1), conv3=basic_conv(rng, 64, 192, 3, padding=1),
        maxpool2=MaxPool2d(3, 2, ceil_mode=True),                                              # (192, 28, 28)
        inception3a=inception(192, 64, 96, 128, 16, 32, 32, rng),
        inception3b=inception(256, 128, 128, 192, 32, 96, 64, rng),
        maxpool3=MaxPool2d(3, 2, ceil_mode=True),                                              # (480, 14, 14)
        inception4a=inception(480, 192, 96, 208, 16, 48, 64, rng),
        inception4b=inception(512, 160, 112, 224, 24, 64, 64, rng),
        inception4c=inception(512, 128, 128, 256, 24, 64, 64, rng),
        inception4d=inception(512, 112, 144, 288, 32, 64, 64, rng),
        inception4e=inception(528, 256, 160, 320, 32, 128, 128, rng),
        maxpool4=MaxPool2d(2, 2, ceil_mode=True),                                              # (832, 7, 7)
        inception5a=inception(832, 256, 160, 320, 32, 128, 128, rng),
        inception5b=inception(832, 384, 192, 384, 48, 128, 128, rng),                          # (1024, 7, 7)
        avgpool=AdaptiveAvgPool2d(1), flatten=Flatten(), dropout=Dropout(dropout), fc=fc,
    )  # fmt: skip
