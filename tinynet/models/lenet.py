"""LeNet-5 (LeCun, Bottou, Bengio & Haffner 1998), which read the digits on cheques."""

from __future__ import annotations

import numpy as np

from ..data.preprocessing import Preprocessing
from ..functional._check import generator
from ..nn import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential
from .registry import Paper, register

_PAPER = Paper("LeCun, Bottou, Bengio & Haffner", 1998, "Gradient-based learning applied to document recognition")


# As is usual for MNIST, whose digits are light on dark: 28 pixels with a border to 32, and the mean and deviation of its photos.
_DIGITS = Preprocessing(32, 32, (0.1307,), (0.3081,))


@register(input_size=(1, 32, 32), preprocessing=_DIGITS, paper=_PAPER)
def lenet5(classes: int = 10, channels: int = 1, rng: np.random.Generator | None = None) -> Sequential:
    """Two convolutions of 5×5 with pooling, then three linear layers. Input (N, channels, 32, 32), logits (N, classes).

    The sizes are the paper's. As usual since: max-pooling instead of trained subsampling, ReLU instead of a scaled tanh, every
    map of the second convolution sees all six before it, and logits instead of distances to drawn digits. Names as in
    PyTorch's tutorial: conv1, conv2, fc1, fc2, fc3.
    """
    rng = generator(rng)
    return Sequential(
        conv1=Conv2d(channels, 6, 5, rng=rng), relu1=ReLU(), pool1=MaxPool2d(2),               # (6, 14, 14)
        conv2=Conv2d(6, 16, 5, rng=rng), relu2=ReLU(), pool2=MaxPool2d(2),                     # (16, 5, 5)
        flatten=Flatten(),
        fc1=Linear(400, 120, rng=rng), relu3=ReLU(), fc2=Linear(120, 84, rng=rng), relu4=ReLU(), fc3=Linear(84, classes, rng=rng),
    )  # fmt: skip
