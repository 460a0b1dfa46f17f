"""Activations as layers. Each keeps what its gradient needs: the output where that is enough, since the next layer
has it anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .. import functional as F
from ..backend import Array
from .layer import Layer


class _FromOutput(Layer):
    class Saved(NamedTuple):
        output: Array


class _Rectifier(_FromOutput):
    """Nothing below zero. Here gradient, deconvnet and guided backprop differ (and the deconvnet at LocalResponseNorm, too)."""


class ReLU(_Rectifier):
    """max(x, 0)."""

    each_cell = True

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromOutput.Saved]:
        y = F.relu(x)
        return y, self.Saved(y)

    overwrites = True

    def overwrite(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromOutput.Saved]:
        y = F.relu(x, inplace=True)
        return y, self.Saved(y)

    def input_gradient(self, saved: _FromOutput.Saved, dy: Array) -> Array:
        return F.relu_input_gradient(dy, saved.output)


class ReLU6(_Rectifier):
    """min(max(x, 0), 6)."""

    each_cell = True

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromOutput.Saved]:
        y = F.relu6(x)
        return y, self.Saved(y)

    overwrites = True

    def overwrite(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromOutput.Saved]:
        y = F.relu6(x, inplace=True)
        return y, self.Saved(y)

    def input_gradient(self, saved: _FromOutput.Saved, dy: Array) -> Array:
        return F.relu6_input_gradient(dy, saved.output)


class Sigmoid(_FromOutput):
    """1 / (1 + e⁻ˣ)."""

    each_cell = True

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromOutput.Saved]:
        y = F.sigmoid(x)
        return y, self.Saved(y)

    def input_gradient(self, saved: _FromOutput.Saved, dy: Array) -> Array:
        return F.sigmoid_input_gradient(dy, saved.output)


class Tanh(_FromOutput):
    """The hyperbolic tangent."""

    each_cell = True

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromOutput.Saved]:
        y = F.tanh(x)
        return y, self.Saved(y)

    def input_gradient(self, saved: _FromOutput.Saved, dy: Array) -> Array:
        return F.tanh_input_gradient(dy, saved.output)


class LeakyReLU(Layer):
    """x where x > 0, otherwise negative_slope · x."""

    config_names = ("negative_slope",)
    each_cell = True

    class Saved(NamedTuple):
        input: Array

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        return F.leaky_relu(x, self.negative_slope), self.Saved(x)

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        return F.leaky_relu_input_gradient(dy, saved.input, self.negative_slope)


class Softmax(_FromOutput):
    """Probabilities along axis dim. For training take CrossEntropyLoss on logits instead: it is fused and stable."""

    config_names = ("dim",)

    def __init__(self, dim: int = 1) -> None:
        self.dim = dim

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromOutput.Saved]:
        y = F.softmax(x, self.dim)
        return y, self.Saved(y)

    def input_gradient(self, saved: _FromOutput.Saved, dy: Array) -> Array:
        return F.softmax_input_gradient(dy, saved.output, self.dim)


class GroupLogSumExp(Layer):
    """The logits of unions of classes: (N, K) → (N, groups). A last layer for a network that was taught finer
    classes than are asked for.
    """

    config_names = ("groups",)

    class Saved(NamedTuple):
        input: Array
        output: Array

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        self.groups = [list(group) for group in groups]

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        y = F.group_logsumexp(x, self.groups)
        return y, self.Saved(x, y)

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        return F.group_logsumexp_input_gradient(dy, saved.input, saved.output, self.groups)


class LogSoftmax(_FromOutput):
    """Logarithms of probabilities along axis dim."""

    config_names = ("dim",)

    def __init__(self, dim: int = 1) -> None:
        self.dim = dim

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromOutput.Saved]:
        y = F.log_softmax(x, self.dim)
        return y, self.Saved(y)

    def input_gradient(self, saved: _FromOutput.Saved, dy: Array) -> Array:
        return F.log_softmax_input_gradient(dy, saved.output, self.dim)
