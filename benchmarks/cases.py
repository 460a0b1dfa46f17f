"""What the benchmarks measure: single operations, and whole networks. Without PyTorch, which not every process may load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinynet import nn
from tinynet.models import create

# name: layer, input. Forward, and the gradients of the input and of the parameters.
OPS: dict[str, tuple[Callable[[np.random.Generator], nn.Layer], tuple[int, ...]]] = {
    "conv 3→64 3×3, 224²": (lambda rng: nn.Conv2d(3, 64, 3, padding=1, rng=rng), (4, 3, 224, 224)),
    "conv 64→64 3×3, 224²": (lambda rng: nn.Conv2d(64, 64, 3, padding=1, rng=rng), (2, 64, 224, 224)),
    "conv 64→128 3×3, 112²": (lambda rng: nn.Conv2d(64, 128, 3, padding=1, rng=rng), (4, 64, 112, 112)),
    "conv 256→256 3×3, 56²": (lambda rng: nn.Conv2d(256, 256, 3, padding=1, rng=rng), (4, 256, 56, 56)),
    "conv 512→512 3×3, 28²": (lambda rng: nn.Conv2d(512, 512, 3, padding=1, rng=rng), (4, 512, 28, 28)),
    "conv 512→512 3×3, 14²": (lambda rng: nn.Conv2d(512, 512, 3, padding=1, rng=rng), (8, 512, 14, 14)),
    "conv 32→64 3×3, 32²": (lambda rng: nn.Conv2d(32, 64, 3, padding=1, rng=rng), (64, 32, 32, 32)),
    "conv 128→128 3×3, 8²": (lambda rng: nn.Conv2d(128, 128, 3, padding=1, rng=rng), (64, 128, 8, 8)),
    "conv 64→128 3×3/2, 56²": (lambda rng: nn.Conv2d(64, 128, 3, 2, padding=1, rng=rng), (8, 64, 56, 56)),
    "conv 96→256 5×5/2, 55²": (lambda rng: nn.Conv2d(96, 256, 5, 2, rng=rng), (8, 96, 55, 55)),
    "conv 3→96 7×7/2, 224²": (lambda rng: nn.Conv2d(3, 96, 7, 2, padding=1, rng=rng), (8, 3, 224, 224)),
    "conv 3→64 11×11/4, 224²": (lambda rng: nn.Conv2d(3, 64, 11, 4, padding=2, rng=rng), (16, 3, 224, 224)),
    "conv 256→64 1×1, 56²": (lambda rng: nn.Conv2d(256, 64, 1, rng=rng), (8, 256, 56, 56)),
    "conv 64→256 1×1, 13²": (lambda rng: nn.Conv2d(64, 256, 1, rng=rng), (16, 64, 13, 13)),
    "conv 96 3×3 depthwise, 56²": (lambda rng: nn.Conv2d(96, 96, 3, padding=1, groups=96, rng=rng), (8, 96, 56, 56)),
    "conv 128→128 3×3, 8 groups, 28²": (lambda rng: nn.Conv2d(128, 128, 3, padding=1, groups=8, rng=rng), (8, 128, 28, 28)),
    "max-pool 2×2, 112²": (lambda rng: nn.MaxPool2d(2), (8, 64, 112, 112)),
    "max-pool 3×3/2, 55²": (lambda rng: nn.MaxPool2d(3, 2), (16, 96, 55, 55)),
    "average pool 2×2, 112²": (lambda rng: nn.AvgPool2d(2), (8, 64, 112, 112)),
    "ReLU, 112²": (lambda rng: nn.ReLU(), (8, 64, 112, 112)),
    "sigmoid, 56²": (lambda rng: nn.Sigmoid(), (8, 64, 56, 56)),
    "batch norm, 56²": (lambda rng: nn.BatchNorm2d(128), (8, 128, 56, 56)),
    "linear 4096→4096": (lambda rng: nn.Linear(4096, 4096, rng=rng), (32, 4096)),
    "linear 256→10": (lambda rng: nn.Linear(256, 10, rng=rng), (64, 256)),
}


def cifar_vgg(classes: int = 10, rng: np.random.Generator | None = None) -> nn.Sequential:
    """Six 3×3 convolutions on 32×32, in pairs before each pooling."""
    layers: list[nn.Layer] = []
    channels = 3
    for maps in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(channels, maps, 3, padding=1, rng=rng), nn.ReLU()]
            channels = maps
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 16, classes, rng=rng))


# name: (builder of the registry or function, input, its own arguments)
NETS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "LeNet, 32² (28² framed), batch 64": ("lenet5", (64, 1, 32, 32), {}),
    "cat net, 224², batch 16": ("photonet", (16, 3, 224, 224), {}),
    "CIFAR VGG, 32², batch 64": (cifar_vgg, (64, 3, 32, 32), {}),
    "AlexNet, 224², batch 16": ("alexnet", (16, 3, 224, 224), {}),
    "ZFNet, 224², batch 16": ("zfnet", (16, 3, 224, 224), {}),
    "VGG11, 224², batch 8": ("vgg11", (8, 3, 224, 224), {}),
    "SqueezeNet 1.1, 224², batch 8": ("squeezenet1_1", (8, 3, 224, 224), {}),
}


def network(name: str, rng: np.random.Generator) -> nn.Layer:
    """The network of a line of NETS, with drawn weights."""
    build, _, arguments = NETS[name]
    return build(rng=rng) if callable(build) else create(build, rng=rng, **arguments)
