"""ZFNet (Zeiler & Fergus 2014): AlexNet with smaller first filters and strides, found by looking into it with a deconvnet."""

from __future__ import annotations

import numpy as np

from ..functional._check import generator
from ..nn import Dropout, Flatten, LocalResponseNorm, MaxPool2d, ReLU, Sequential
from .parts import conv, gaussian, linear
from .registry import IMAGENET, Paper, register

_PAPER = Paper("Zeiler & Fergus", 2014, "Visualizing and understanding convolutional networks")


@register(preprocessing=IMAGENET, paper=_PAPER)
def zfnet(classes: int = 1000, dropout: float = 0.5, rng: np.random.Generator | None = None) -> Sequential:
    """The network of figure 3. Input (N, 3, 224, 224), logits (N, classes).

    The paper's map sizes, 110, 55, 26, 13, 13, 13, 6, come about with a border of 1 at the first convolution and pools that round
    up. The contrast normalisation across maps, whose constants it does not give, is Krizhevsky's (2012, section 3.3).
    """
    rng, draw = generator(rng), gaussian(0.01)                                             # section 3.1

    def norm() -> LocalResponseNorm:
        return LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2)

    return Sequential(
        conv1=conv(draw, rng, 3, 96, 7, 2, 1), relu1=ReLU(),                                   # (96, 110, 110)
        pool1=MaxPool2d(3, 2, ceil_mode=True), norm1=norm(),                                   # (96, 55, 55)
        conv2=conv(draw, rng, 96, 256, 5, 2), relu2=ReLU(),                                    # (256, 26, 26)
        pool2=MaxPool2d(3, 2, ceil_mode=True), norm2=norm(),                                   # (256, 13, 13)
        conv3=conv(draw, rng, 256, 384, 3, padding=1), relu3=ReLU(),
        conv4=conv(draw, rng, 384, 384, 3, padding=1), relu4=ReLU(),
        conv5=conv(draw, rng, 384, 256, 3, padding=1), relu5=ReLU(), pool5=MaxPool2d(3, 2),    # (256, 6, 6)
        flatten=Flatten(),
        fc6=linear(draw, rng, 256 * 6 * 6, 4096), relu6=ReLU(), dropout6=Dropout(dropout),
        fc7=linear(draw, rng, 4096, 4096), relu7=ReLU(), dropout7=Dropout(dropout),
        fc8=linear(draw, rng, 4096, classes),
    )  # fmt: skip
