"""The same network in PyTorch, layer by layer, with the same weights: what the benchmarks compare with.

tinynet is not imported here: a process that measures PyTorch's memory loads twins, and nothing of ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn as T


class _Branches(T.Module):
    """Concat or Residual: branches that take the same input, joined or added up."""

    def __init__(self, branches: list[T.Module], add: bool) -> None:
        super().__init__()
        self.branches, self.add = T.ModuleList(branches), add

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = [branch(x) for branch in self.branches]
        if not self.add:
            return torch.cat(outputs, 1)
        return sum(outputs[1:], outputs[0]) if len(outputs) > 1 else outputs[0] + x


def twin(layer: Any) -> T.Module:
    """A torch.nn.Module that computes what the layer (of floats of 32 bits) computes."""
    module = _module(layer)
    state = [torch.from_numpy(np.array(value)) for value in layer.state_dict().values()]
    own = module.state_dict()
    module.load_state_dict(dict(zip(own, state, strict=True)))
    return module


def _module(layer: Any) -> T.Module:
    kind = type(layer).__name__
    if kind == "Sequential":
        return T.Sequential(*map(_module, layer))
    if kind in ("Concat", "Residual"):
        return _Branches([_module(branch) for branch in layer], kind == "Residual")
    if kind == "Conv2d":
        return T.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups,
            layer.bias is not None,
        )
    if kind == "Linear":
        return T.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    if kind == "MaxPool2d":
        return T.MaxPool2d(layer.kernel_size, layer.stride, layer.padding, layer.dilation, ceil_mode=layer.ceil_mode)
    if kind == "AvgPool2d":
        return T.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
    if kind == "AdaptiveAvgPool2d":
        return T.AdaptiveAvgPool2d(layer.output_size)
    if kind == "BatchNorm2d":
        return T.BatchNorm2d(layer.num_features, layer.eps, layer.momentum)
    if kind == "LocalResponseNorm":
        return T.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k)
    if kind == "Dropout":
        return T.Dropout(layer.p)
    plain = {"ReLU": T.ReLU, "Sigmoid": T.Sigmoid, "Tanh": T.Tanh, "Flatten": T.Flatten, "Identity": T.Identity}
    return plain[kind]()
