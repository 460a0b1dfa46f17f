"""SqueezeNet (Iandola et al. 2016): AlexNet's accuracy with a fiftieth of its parameters.

A Fire module squeezes the maps with 1×1 filters and expands the few that are left with 1×1 and 3×3 filters side by side; the
class scores are maps, averaged over the photo. Names are torchvision's: features.3.squeeze, features.3.expand3x3, classifier.1.
"""

from __future__ import annotations

import numpy as np

from ..functional._check import generator
from ..nn import AdaptiveAvgPool2d, Concat, Dropout, Flatten, Layer, MaxPool2d, ReLU, Sequential
from .parts import conv, gaussian, he_fan_in
from .registry import IMAGENET, Paper, register

_PAPER = Paper(
    "Iandola, Han, Moskewicz, Ashraf, Dally & Keutzer", 2016,
    "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
)


@register(preprocessing=IMAGENET, paper=_PAPER)
def squeezenet1_0(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """The network of the paper: 7×7 first filters. Input (N, 3, H, W), logits (N, classes)."""
    rng = generator(rng)
    features = Sequential(
        conv(he_fan_in, rng, 3, 96, 7, 2), ReLU(), _pool(),
        fire(96, 16, 64, rng), fire(128, 16, 64, rng), fire(128, 32, 128, rng), _pool(),
        fire(256, 32, 128, rng), fire(256, 48, 192, rng), fire(384, 48, 192, rng), fire(384, 64, 256, rng), _pool(),
        fire(512, 64, 256, rng),
    )  # fmt: skip
    return _with_classifier(features, classes, dropout, rng)


@register(preprocessing=IMAGENET, paper=_PAPER)
def squeezenet1_1(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """The authors' second version: 3×3 first filters and earlier pools, the same accuracy for 2.4 times less arithmetic.
    Input (N, 3, H, W), logits (N, classes).
    """
    rng = generator(rng)
    features = Sequential(
        conv(he_fan_in, rng, 3, 64, 3, 2), ReLU(), _pool(),
        fire(64, 16, 64, rng), fire(128, 16, 64, rng), _pool(),
        fire(128, 32, 128, rng), fire(256, 32, 128, rng), _pool(),
        fire(256, 48, 192, rng), fire(384, 48, 192, rng), fire(384, 64, 256, rng), fire(512, 64, 256, rng),
    )  # fmt: skip
    return _with_classifier(features, classes, dropout, rng)


def fire(into: int, squeeze: int, expand: int, rng: np.random.Generator) -> Sequential:
    """`into` maps squeezed to `squeeze`, then expanded to twice `expand`: first those of the 1×1 filters, then of the 3×3."""
    return Sequential(
        squeeze=conv(he_fan_in, rng, into, squeeze, 1), squeeze_activation=ReLU(),
        _expand=Concat(
            _1=Sequential(expand1x1=conv(he_fan_in, rng, squeeze, expand, 1), expand1x1_activation=ReLU()),
            _3=Sequential(expand3x3=conv(he_fan_in, rng, squeeze, expand, 3, padding=1), expand3x3_activation=ReLU()),
        ),
    )


def _pool() -> Layer:
    return MaxPool2d(3, 2, ceil_mode=True)


def _with_classifier(features: Sequential, classes: int, dropout: float, rng: np.random.Generator) -> Sequential:
    classifier = Sequential(Dropout(dropout), conv(gaussian(0.01), rng, 512, classes, 1), ReLU(), AdaptiveAvgPool2d(1))
    return Sequential(features=features, classifier=classifier, flatten=Flatten())
