"""The small VGG that CNN Explainer (Wang et al. 2021) shows in the browser: every number of it can be looked at."""

from __future__ import annotations

import numpy as np

from ..data.preprocessing import Preprocessing
from ..functional._check import generator
from ..nn import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential
from .registry import Paper, register

_PAPER = Paper(
    "Wang, Turko, Shaikh, Park, Das, Hohman, Kahng & Chau", 2021,
    "CNN Explainer: Learning convolutional neural networks with interactive visualization",
)
_SEEN = Preprocessing(64, 64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))                                # pixels from 0 to 1


@register(input_size=(3, 64, 64), preprocessing=_SEEN, paper=_PAPER)
def tinyvgg(classes: int = 10, rng: np.random.Generator | None = None) -> Sequential:
    """Four 3×3 convolutions without a border, of ten maps each. Input (N, 3, 64, 64), logits (N, classes).

    The names are those that the page shows: conv_1_1, relu_1_1, max_pool_1, …, output.
    """
    rng = generator(rng)
    return Sequential(
        conv_1_1=Conv2d(3, 10, 3, rng=rng), relu_1_1=ReLU(),                                   # (10, 62, 62)
        conv_1_2=Conv2d(10, 10, 3, rng=rng), relu_1_2=ReLU(), max_pool_1=MaxPool2d(2),         # (10, 30, 30)
        conv_2_1=Conv2d(10, 10, 3, rng=rng), relu_2_1=ReLU(),                                  # (10, 28, 28)
        conv_2_2=Conv2d(10, 10, 3, rng=rng), relu_2_2=ReLU(), max_pool_2=MaxPool2d(2),         # (10, 13, 13)
        flatten=Flatten(), output=Linear(10 * 13 * 13, classes, rng=rng),
    )  # fmt: skip
