"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import functional as F
from ..backend import Array, array_module
from ..errors import ShapeError
from ..functional._check import check_array, integer
from ..functional.batch_norm import (
    Statistics,
    batch_norm_gradients,
    batch_norm_relu,
    batch_norm_scale_and_shift,
    batch_statistics,
    check_eps,
    move_running,
)
from .activation import ReLU
from .group import Member, current_member
from .layer import Fused, Layer


class _BatchNorm(Layer):
    parameter_names = ("weight", "bias")
    buffer_names = ("running_mean", "running_var", "num_batches_tracked")
    dispensable_names = ("num_batches_tracked",)
    config_names = ("num_features", "eps", "momentum", "affine", "track_running_stats")
    each_cell = True                                            # where its statistics are fixed
    dims: ClassVar[tuple[int, ...]]
    """Numbers of axes that an input may have."""

    class Saved(NamedTuple):
        input: Array
        statistics: Statistics
        """What this forward pass normalised by."""
        batch: bool
        """Whether these were the batch's own."""
        member: Member | None
        """This thread's place among those that share the batch, if any do."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, *, bias: bool = True, dtype: Any = np.float32,
    ) -> None:
        self.num_features = c = integer(type(self).__name__, "num_features", num_features, 1)
        self.eps, self.momentum, self.affine, self.track_running_stats = eps, momentum, affine, track_running_stats
        self.weight = np.ones(c, dtype) if affine else None
        self.bias = np.zeros(c, dtype) if affine and bias else None
        self.running_mean: Any = np.zeros(c, dtype) if track_running_stats else None
        self.running_var: Any = np.ones(c, dtype) if track_running_stats else None
        self.num_batches_tracked: Any = np.zeros((), np.int64) if track_running_stats else None

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        """y and the record. train: the batch's own statistics, and the running ones move in place."""
        self._check(x, train)
        batch = (train or not self.track_running_stats) and x.size > 0
        member = current_member() if batch else None
        moves = train and self.track_running_stats and (member is None or member.rank == 0)
        if batch:
            statistics = batch_statistics(x, None if member is None else member.sum)
        elif self.running_mean is None or self.running_var is None:     # an empty batch, and none before it
            xp, c = array_module(x), (self.num_features,)
            statistics = Statistics(xp.zeros(c, dtype=x.dtype), xp.ones(c, dtype=x.dtype), 0)
        else:                                                   # copies: a training step may move them before the way back
            statistics = Statistics(self.running_mean.copy(), self.running_var.copy(), 0)
        y = F.batch_norm(x, statistics.mean, statistics.variance, self.weight, self.bias, eps=self.eps)
        if moves:                                               # last: what has been refused has taught nothing
            self.num_batches_tracked += 1                       # an empty batch counts too, as in PyTorch
        if moves and batch:
            # momentum None: the plain mean over all batches so far, which a GPU counts itself
            momentum = (1 / self.num_batches_tracked).astype(x.dtype) if self.momentum is None else self.momentum
            move_running(self.running_mean, self.running_var, statistics, momentum)
        return y, self.Saved(x, statistics, batch, member)

    def _check(self, x: Array, train: bool) -> None:
        check_array(type(self).__name__, "input", x)
        if x.ndim not in self.dims:
            raise ShapeError(f"{type(self).__name__}: expected input of {' or '.join(map(str, self.dims))} axes, got {x.shape}")
        if self.weight is not None and x.dtype == self.weight.dtype and x.shape[1] != self.num_features:
            raise ShapeError(f"{type(self).__name__}: expected {self.num_features} channels, got {tuple(x.shape)}")
        check_eps("batch_norm", self.eps, train or not self.track_running_stats)

    @property
    def fixed(self) -> bool:
        """Whether at inference this is a scale and a shift that no input changes."""
        return self.running_mean is not None and type(self) in (BatchNorm1d, BatchNorm2d, BatchNorm3d)

    def scale_and_shift(self) -> tuple[Array, Array]:
        """What it is then, (C,) each."""
        return batch_norm_scale_and_shift(self.running_mean, self.running_var, self.weight, self.bias, self.eps)

    def rectified(self, x: Array, relu: bool, inplace: bool = False) -> Array:
        """At inference, with a ReLU behind it if relu. inplace: nobody needs x any more."""
        self._check(x, False)
        return batch_norm_relu(x, self.running_mean, self.running_var, self.weight, self.bias, self.eps, relu, inplace)

    def fused(self, following: Sequence[Layer]) -> Fused | None:
        if not self.fixed or not following or type(following[0]) is not ReLU:
            return None
        return Fused(1, lambda x: self.rectified(x, True))

    @property
    def gives_away(self) -> bool:
        return True

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        total = None if saved.member is None else saved.member.sum
        return F.batch_norm_input_gradient(
            dy, saved.input, *saved.statistics[:2], self.weight, saved.batch, self.eps, statistics=saved.statistics, total=total
        )

    def parameter_gradients(self, saved: Saved, dy: Array) -> dict[str, Array]:
        return self._gradients(saved, dy, False)[1] if self.affine else {}

    def gradients(self, saved: Saved, dy: Array) -> tuple[Array, dict[str, Array]]:
        return self._gradients(saved, dy, True) if self.affine else super().gradients(saved, dy)

    def _gradients(self, saved: Saved, dy: Array, input_gradient: bool) -> tuple[Any, dict[str, Array]]:
        total = None if saved.member is None else saved.member.sum
        dx, weight, bias = batch_norm_gradients(
            dy, saved.input, saved.statistics, self.weight, saved.batch, self.eps, total=total, input_gradient=input_gradient
        )
        return dx, {"weight": weight} if self.bias is None else {"weight": weight, "bias": bias}


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
    each_cell = True

    class Saved(NamedTuple):
        input: Array

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k), self.Saved(x)

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        return F.local_response_norm_input_gradient(dy, saved.input, self.size, self.alpha, self.beta, self.k)
