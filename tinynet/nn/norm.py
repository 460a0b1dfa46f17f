"""Normalisation layers."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import functional as F
from ..backend import Array
from ..errors import ShapeError
from ..functional._check import integer
from .layer import Layer


class _BatchNorm(Layer):
    parameter_names = ("weight", "bias")
    buffer_names = ("running_mean", "running_var", "num_batches_tracked")
    config_names = ("num_features", "eps", "momentum", "affine", "track_running_stats")
    dims: ClassVar[tuple[int, ...]]
    """Numbers of axes that an input may have."""

    class Saved(NamedTuple):
        input: Array
        batch: bool
        """Whether the statistics were this batch's own."""
        mean: Array | None
        """The running statistics as they were at this forward pass; None for the batch's own."""
        variance: Array | None

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, *, dtype: Any = np.float32,
    ) -> None:
        self.num_features = c = integer(type(self).__name__, "num_features", num_features, 1)
        self.eps, self.momentum, self.affine, self.track_running_stats = eps, momentum, affine, track_running_stats
        self.weight = np.ones(c, dtype) if affine else None
        self.bias = np.zeros(c, dtype) if affine else None
        self.running_mean = np.zeros(c, dtype) if track_running_stats else None
        self.running_var = np.ones(c, dtype) if track_running_stats else None
        self.num_batches_tracked = np.zeros((), np.int64) if track_running_stats else None

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        """y and the record. train: the batch's own statistics, and the running ones move in place."""
        if x.ndim not in self.dims:
            raise ShapeError(f"{type(self).__name__}: expected input of {' or '.join(map(str, self.dims))} axes, got {x.shape}")
        batch = train or not self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        if train and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            if self.momentum is None:                           # the plain mean over all batches so far
                momentum = 1 / int(self.num_batches_tracked)
        # Without training, what the way back needs is the statistics of now: a later training step would move them.
        mean, variance = (None, None) if batch else (self.running_mean.copy(), self.running_var.copy())
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, batch, momentum, self.eps)
        return y, self.Saved(x, batch, mean, variance)

    def __call__(self, x: Array) -> Array:
        return self.forward(x)[0]

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        return F.batch_norm_input_gradient(dy, saved.input, saved.mean, saved.variance, self.weight, saved.batch, self.eps)

    def parameter_gradients(self, saved: Saved, dy: Array) -> dict[str, Array]:
        if not self.affine:
            return {}
        weight = F.batch_norm_weight_gradient(dy, saved.input, saved.mean, saved.variance, saved.batch, self.eps)
        return {"weight": weight, "bias": F.batch_norm_bias_gradient(dy)}


class BatchNorm1d(_BatchNorm):
    """torch.nn.BatchNorm1d. input (N, C) or (N, C, L)."""

    dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """torch.nn.BatchNorm2d. input (N, C, H, W)."""

    dims = (4,)


class BatchNorm3d(_BatchNorm):
    """torch.nn.BatchNorm3d. input (N, C, D, H, W)."""

    dims = (5,)


class LocalResponseNorm(Layer):
    """torch.nn.LocalResponseNorm: every number over a power of the mean square around it, across channels. input (N, C, ...)."""

    config_names = ("size", "alpha", "beta", "k")

    class Saved(NamedTuple):
        input: Array

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k), self.Saved(x)

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        return F.local_response_norm_input_gradient(dy, saved.input, self.size, self.alpha, self.beta, self.k)
