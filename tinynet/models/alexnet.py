"""AlexNet (Krizhevsky, Sutskever & Hinton 2012), in the form of Krizhevsky 2014 for one processor, as torchvision has it."""

from __future__ import annotations

import numpy as np

from ..functional._check import generator
from ..nn import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Sequential
from .registry import IMAGENET, Paper, register

_PAPER = Paper("Krizhevsky", 2014, "One weird trick for parallelizing convolutional neural networks")


@register(preprocessing=IMAGENET, paper=_PAPER)
def alexnet(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """Five convolutions, three linear layers. Input (N, 3, H, W) of at least 63×63, made for 224×224; logits (N, classes)."""
    rng = generator(rng)
    features = Sequential(
        Conv2d(3, 64, 11, 4, 2, rng=rng), ReLU(), MaxPool2d(3, 2),                             # 0 to 2: (64, 27, 27)
        Conv2d(64, 192, 5, padding=2, rng=rng), ReLU(), MaxPool2d(3, 2),                       # 3 to 5: (192, 13, 13)
        Conv2d(192, 384, 3, padding=1, rng=rng), ReLU(),                                       # 6, 7
        Conv2d(384, 256, 3, padding=1, rng=rng), ReLU(),                                       # 8, 9
        Conv2d(256, 256, 3, padding=1, rng=rng), ReLU(), MaxPool2d(3, 2),                      # 10 to 12: (256, 6, 6)
    )  # fmt: skip
    classifier = Sequential(
        Dropout(dropout), Linear(256 * 6 * 6, 4096, rng=rng), ReLU(),
        Dropout(dropout), Linear(4096, 4096, rng=rng), ReLU(),
        Linear(4096, classes, rng=rng),
    )  # fmt: skip
    return Sequential(features=features, avgpool=AdaptiveAvgPool2d(6), flatten=Flatten(), classifier=classifier)
