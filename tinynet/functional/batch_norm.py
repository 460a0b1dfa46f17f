"""Batch normalisation and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..errors import ArgumentError, ShapeError
from ..kernels import batch_norm as cpu
from ..kernels import cuda
from ..kernels.cuda import batch_norm as gpu
from ..kernels.masking import rectify
from ..kernels.sums import channel_sums
from ._check import check_floats, same_shape


class Statistics(NamedTuple):
    """Mean and biased variance of each channel, (C,), over `values` numbers a channel."""

    mean: Array
    variance: Array
    values: int


Total = Callable[[Array], Array]
"""Adds an array up over the shards of a batch that is computed in parts; see nn.group."""


def batch_norm(
    input: Array, running_mean: Array | None, running_var: Array | None, weight: Array | None = None,
    bias: Array | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Array:
    """y = γ (x − μ)/s + β with s = √(σ² + ε), channel by channel (Ioffe & Szegedy 2015, algorithm 1).

    input: (N, C, ...). All others: (C,) or None. training: μ and σ² are those of this batch, and the running ones move towards
    them in place, running ← (1 − momentum)·running + momentum·batch (with the unbiased variance, as PyTorch has it).
    Otherwise μ and σ² are the running ones. Returns input's shape.
    """
    op = "batch_norm"
    check_floats(op, input=input, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    _check_channels(op, input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    _check_running(op, running_mean, running_var, training)
    check_eps(op, eps, training)
    if input.size == 0:
        return input.copy()                                     # nothing seen, nothing learned, as in PyTorch
    if not training and running_mean is not None and running_var is not None:
        mean, variance = running_mean, running_var
    else:
        mean, variance, count = batch_statistics(input)
        if running_mean is not None and running_var is not None:
            move_running(running_mean, running_var, Statistics(mean, variance, count), momentum)
    return _normalised(input, mean, variance, weight, bias, eps)


def batch_norm_relu(
    input: Array, running_mean: Array, running_var: Array, weight: Array | None = None, bias: Array | None = None,
    eps: float = 1e-5, relu: bool = True, inplace: bool = False,
) -> Array:
    """relu(batch_norm(input, …)) with the running statistics, in one pass. inplace: write into input, where that can be."""
    op = "batch_norm"
    check_floats(op, input=input, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    _check_channels(op, input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    check_eps(op, eps, False)
    return _normalised(input, running_mean, running_var, weight, bias, eps, relu, inplace)


def batch_norm_scale_and_shift(
    running_mean: Array, running_var: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> tuple[Array, Array]:
    """What batch_norm with the running statistics is: x · scale + shift, channel by channel, (C,) each."""
    scale = _scale(running_var, weight, eps)
    return scale, -running_mean * scale if bias is None else bias - running_mean * scale


def _scale(variance: Array, weight: Array | None, eps: float) -> Array:
    scale = 1 / (variance + eps) ** 0.5                         # (C,)
    return scale if weight is None else scale * weight


def _normalised(
    x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None, eps: float, relu: bool = False,
    inplace: bool = False,
) -> Array:
    scale = _scale(variance, weight, eps)
    if cuda.here(x):
        return gpu.normalise(x, mean, scale, bias, relu)
    if cpu.fits(x):
        return cpu.normalise(x, mean, scale, bias, cpu.near(mean, variance), relu, x if inplace else None)
    y = x - _along_channels(mean, x)
    y *= _along_channels(scale, x)
    if bias is not None:
        y += _along_channels(bias, x)
    return rectify(y, out=y) if relu else y


def batch_statistics(input: Array, total: Total | None = None) -> Statistics:
    """Mean and biased variance of every channel of (N, C, ...), without cancellation: Σ (x − μ)², not Σ x² − n μ².

    total: for a batch in shards. Raises ShapeError for a single value a channel, which has no variance.
    """
    xp = check_floats("batch_statistics", input=input)
    count, mean, deviation = _moments(input)
    if total is not None:
        # The shards' own, put together as in kernels/batch_norm.py; in float64, which counts exactly.
        sums = total(xp.concatenate([xp.full(1, count, dtype=np.float64), count * mean.astype(np.float64)]))
        whole = sums[1:] / sums[0]
        deviation = total(deviation + count * (mean - whole) ** 2)
        count, mean = int(sums[0]), whole
    if count <= 1:
        raise ShapeError(f"batch_norm: expected more than one value a channel in training, got {tuple(input.shape)}")
    return Statistics(mean.astype(input.dtype), (deviation / count).astype(input.dtype), count)


def _moments(x: Array) -> cpu.Moments:
    if cpu.fits(x):
        return cpu.moments(x)
    count = x.size // max(x.shape[1], 1)
    if cuda.here(x):
        mean = gpu.channel_sums(x) / max(count, 1)
        return cpu.Moments(count, mean, gpu.channel_sums(x, mean))
    mean = x.sum(axis=_all_but_channels(x)) / max(count, 1)
    centred = x - _along_channels(mean, x)
    centred *= centred
    return cpu.Moments(count, mean, centred.sum(axis=_all_but_channels(x)))


def move_running(running_mean: Array, running_var: Array, batch: Statistics, momentum: float) -> None:
    """Move the running statistics towards a batch's, in place; the variance as its unbiased estimate, count/(count − 1)·σ²."""
    running_mean *= 1 - momentum
    running_mean += momentum * batch.mean
    running_var *= 1 - momentum
    running_var += momentum * batch.values / (batch.values - 1) * batch.variance


def batch_norm_input_gradient(
    dy: Array, input: Array, running_mean: Array | None, running_var: Array | None, weight: Array | None = None,
    training: bool = False, eps: float = 1e-5, *, statistics: Statistics | None = None, total: Total | None = None,
) -> Array:
    """∂ℓ/∂x for batch_norm: γ/s · dy with the running statistics; in training minus what flows through the batch's own:

    dx = γ/s · (dy − mean(dy) − x̂ · mean(dy · x̂)),  x̂ = (x − μ)/s,  s = √(σ² + ε),  means over the batch and all positions.

    statistics: the batch's, where the forward pass has kept them. total: for a batch in shards.
    """
    op = "batch_norm_input_gradient"
    check_floats(op, dy=dy, input=input, running_mean=running_mean, running_var=running_var, weight=weight)
    _check_channels(op, input, running_mean=running_mean, running_var=running_var, weight=weight)
    same_shape(op, input=input, dy=dy)
    if input.size == 0:
        return dy.copy()
    mean, variance, count = _statistics(op, input, running_mean, running_var, training, statistics)
    scale = 1 / (variance + eps) ** 0.5
    gain = scale if weight is None else scale * weight
    means = _means(_gradient_sums(dy, input, mean, variance), total, count) if training else None
    return _input_gradient(dy, input, mean, variance, scale, gain, means)


def batch_norm_gradients(
    dy: Array, input: Array, statistics: Statistics, weight: Array | None = None, training: bool = True, eps: float = 1e-5,
    *, total: Total | None = None, input_gradient: bool = True,
) -> tuple[Array | None, Array, Array]:
    """∂ℓ/∂x, ∂ℓ/∂γ and ∂ℓ/∂β for batch_norm, with the sums that they share taken once.

    statistics: what the forward pass normalised by. total: for a batch in shards; adds up what ∂ℓ/∂x needs, while ∂ℓ/∂γ and ∂ℓ/∂β
    stay the shard's own shares. input_gradient False: ∂ℓ/∂x is None.
    """
    op = "batch_norm_gradients"
    check_floats(op, dy=dy, input=input, weight=weight)
    _check_channels(op, input, weight=weight)
    same_shape(op, input=input, dy=dy)
    mean, variance, count = statistics
    scale = 1 / (variance + eps) ** 0.5
    sums, dx = _gradient_sums(dy, input, mean, variance), None
    if input_gradient:
        gain = scale if weight is None else scale * weight
        dx = _input_gradient(dy, input, mean, variance, scale, gain, _means(sums, total, count) if training else None)
    return dx, (sums[1] * scale).astype(dy.dtype), sums[0].astype(dy.dtype)


def _means(sums: Array, total: Total | None, count: int) -> Array:
    """Of dy and of dy (x − μ), over the whole batch, (2, C)."""
    return (sums if total is None else total(sums)) / count


def _gradient_sums(dy: Array, x: Array, mean: Array, variance: Array) -> Array:
    """Σ dy and Σ dy (x − μ) of every channel, (2, C)."""
    if cuda.here(x):
        return gpu.gradient_sums(dy, x, mean)
    if cpu.fits(dy, x):
        return cpu.gradient_sums(dy, x, mean, cpu.near(mean, variance))
    centred = x - _along_channels(mean, x)
    centred *= dy
    axes = _all_but_channels(x)
    return array_module(dy, x).stack([dy.sum(axis=axes), centred.sum(axis=axes)]).astype(np.float64)


def _input_gradient(
    dy: Array, x: Array, mean: Array, variance: Array, scale: Array, gain: Array, means: Array | None
) -> Array:
    """means: as _means gives them; None: the statistics are constants."""
    if means is None:
        return dy * _along_channels(gain, dy)
    level, along = means[0].astype(dy.dtype, copy=False), (means[1] * scale).astype(dy.dtype, copy=False)
    if cuda.here(x):
        return gpu.input_gradient(dy, x, mean, scale, gain, level, along)
    slope = along * scale
    if cpu.fits(dy, x):
        return cpu.input_gradient(dy, x, mean, gain, level, slope, cpu.near(mean, variance))
    dx = x - _along_channels(mean, x)
    dx *= _along_channels(-slope, dx)                           # −x̂ · mean(dy · x̂)
    dx += dy
    dx -= _along_channels(level, dx)
    dx *= _along_channels(gain, dx)
    return dx


def batch_norm_weight_gradient(
    dy: Array, input: Array, running_mean: Array | None, running_var: Array | None, training: bool = False, eps: float = 1e-5,
    *, statistics: Statistics | None = None,
) -> Array:
    """∂ℓ/∂γ for batch_norm: Σ dy · x̂ over the batch and all positions, (C,); x̂ and statistics as for the input gradient."""
    op = "batch_norm_weight_gradient"
    check_floats(op, dy=dy, input=input, running_mean=running_mean, running_var=running_var)
    _check_channels(op, input, running_mean=running_mean, running_var=running_var)
    same_shape(op, input=input, dy=dy)
    if input.size == 0:
        return dy.sum(axis=_all_but_channels(dy))
    mean, variance, _ = _statistics(op, input, running_mean, running_var, training, statistics)
    return (_gradient_sums(dy, input, mean, variance)[1] * (1 / (variance + eps) ** 0.5)).astype(dy.dtype)


def batch_norm_bias_gradient(dy: Array) -> Array:
    """∂ℓ/∂β for batch_norm: Σ dy over the batch and all positions. dy: (N, C, ...). Returns (C,)."""
    check_floats("batch_norm_bias_gradient", dy=dy)
    return channel_sums(dy)


def _check_channels(op: str, input: Array, **vectors: Array | None) -> None:
    if input.ndim < 2 and tuple(input.shape) != (0,):           # PyTorch takes (0,) as no samples of no channels
        raise ShapeError(f"{op}: expected input (N, C, ...), got {tuple(input.shape)}")
    channels = input.shape[1] if input.ndim > 1 else 0
    for name, vector in vectors.items():
        if vector is not None and tuple(vector.shape) != (channels,):
            raise ShapeError(f"{op}: expected {name} ({channels},), one number a channel, got {tuple(vector.shape)}")


def check_eps(op: str, eps: float, training: bool) -> None:
    """eps must not be negative, nor 0 in training, where a channel of one value has no variance."""
    if eps < 0 or (training and eps == 0):
        raise ArgumentError(f"{op}: expected eps {'above 0 in training' if training else 'of at least 0'}, got {eps}")


def _check_running(op: str, running_mean: Array | None, running_var: Array | None, training: bool) -> None:
    if (running_mean is None) != (running_var is None):
        raise ArgumentError(f"{op}: expected running_mean and running_var together, or neither")
    if not training and running_mean is None:
        raise ArgumentError(f"{op}: expected running_mean and running_var, which training=False uses")


def _all_but_channels(x: Array) -> tuple[int, ...]:
    return tuple(a for a in range(x.ndim) if a != 1)


def _along_channels(vector: Array, x: Array) -> Array:
    """(C,) as (C, 1, …, 1), to go with x (N, C, …)."""
    return vector.reshape(-1, *[1] * (x.ndim - 2))


def _statistics(
    op: str, x: Array, running_mean: Array | None, running_var: Array | None, training: bool, kept: Statistics | None
) -> Statistics:
    """What the forward pass normalised by: the running statistics, or the batch's own as kept or computed again."""
    if training:
        return kept or batch_statistics(x)
    _check_running(op, running_mean, running_var, training)
    return Statistics(running_mean, running_var, 0)
