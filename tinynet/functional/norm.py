"""Batch normalisation and local response normalisation, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..backend import Array
from ..errors import ArgumentError, ShapeError
from ..kernels import cuda
from ..kernels.cuda import batch_norm as gpu
from ._check import check_floats, integer, same_shape


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
    """y = γ (x − μ) / √(σ² + ε) + β, channel by channel (Ioffe & Szegedy 2015, algorithm 1).

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
    scale = 1 / (variance + eps) ** 0.5                         # (C,)
    if weight is not None:
        scale = scale * weight
    if cuda.here(input):
        return gpu.normalise(input, mean, scale, bias)
    y = input - _along_channels(mean, input)
    y *= _along_channels(scale, input)
    if bias is not None:
        y += _along_channels(bias, input)
    return y


def batch_statistics(input: Array, total: Total | None = None) -> Statistics:
    """Mean and biased variance of every channel of (N, C, ...). In two passes: Σ (x − μ)² has no cancellation.

    total: for a batch in shards. Raises ShapeError for a single value a channel, which has no variance.
    """
    xp = check_floats("batch_statistics", input=input)
    axes = _all_but_channels(input)
    count = input.size // max(input.shape[1], 1)
    if total is not None:                                       # else a GPU would be waited for, for a number known here
        count = int(total(xp.full((), count, dtype=xp.int64)))
    total = total or (lambda x: x)
    if count <= 1:
        raise ShapeError(f"batch_norm: expected more than one value a channel in training, got {tuple(input.shape)}")
    if cuda.here(input):
        mean = total(gpu.channel_sums(input)) / count
        return Statistics(mean, total(gpu.channel_sums(input, mean)) / count, count)
    mean = total(input.sum(axis=axes)) / count
    centred = input - _along_channels(mean, input)
    centred *= centred
    return Statistics(mean, total(centred.sum(axis=axes)) / count, count)


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
    """∂ℓ/∂x for batch_norm: γ/σ · dy with the running statistics; in training minus what flows through the batch's own:

    dx = γ/σ · (dy − mean(dy) − x̂ · mean(dy · x̂)),  x̂ = (x − μ)/σ,  means over the batch and all positions.

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
    if not training:
        return dy * _along_channels(gain, dy)
    if cuda.here(input):
        return gpu.input_gradient(dy, input, mean, scale, gain, count, total)
    total, axes = total or (lambda x: x), _all_but_channels(input)
    dx = input - _along_channels(mean, input)
    dx *= _along_channels(scale, input)                         # x̂
    along = total((dy * dx).sum(axis=axes)) / count             # mean(dy · x̂), (C,)
    dx *= _along_channels(-along, dx)
    dx += dy
    dx -= _along_channels(total(dy.sum(axis=axes)) / count, dx)
    dx *= _along_channels(gain, dx)
    return dx


def batch_norm_weight_gradient(
    dy: Array, input: Array, running_mean: Array | None, running_var: Array | None, training: bool = False, eps: float = 1e-5,
    *, statistics: Statistics | None = None,
) -> Array:
    """∂ℓ/∂γ for batch_norm: Σ dy · x̂ over the batch and all positions. Returns (C,). statistics: as for the input gradient."""
    op = "batch_norm_weight_gradient"
    check_floats(op, dy=dy, input=input, running_mean=running_mean, running_var=running_var)
    _check_channels(op, input, running_mean=running_mean, running_var=running_var)
    same_shape(op, input=input, dy=dy)
    if input.size == 0:
        return dy.sum(axis=_all_but_channels(dy))
    mean, variance, _ = _statistics(op, input, running_mean, running_var, training, statistics)
    if cuda.here(input):
        return gpu.gradient_sums(dy, input, mean)[1] / (variance + eps) ** 0.5
    normed = input - _along_channels(mean, input)
    normed *= dy
    return normed.sum(axis=_all_but_channels(dy)) / (variance + eps) ** 0.5


def batch_norm_bias_gradient(dy: Array) -> Array:
    """∂ℓ/∂β for batch_norm: Σ dy over the batch and all positions. dy: (N, C, ...). Returns (C,)."""
    check_floats("batch_norm_bias_gradient", dy=dy)
    return dy.sum(axis=_all_but_channels(dy))


def local_response_norm(input: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Array:
    """y_c = x_c / D_c^β with D_c = k + α/size · Σ x_j² over the `size` channels around c (Krizhevsky et al. 2012, section 3.3).

    input: (N, C, ...), at least three axes. The window holds ⌊size/2⌋ channels before c and ⌊(size − 1)/2⌋ after it;
    channels outside count as zero. Note that α is divided by size, as in PyTorch. Returns input's shape.
    """
    _check_local("local_response_norm", input, size)
    return input * _divisor(input, size, alpha, k) ** -beta


def local_response_norm_input_gradient(
    dy: Array, input: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """∂ℓ/∂x for local_response_norm: dx_i = dy_i D_i^−β − 2αβ/size · x_i Σ_{c : i in the window of c} dy_c x_c D_c^(−β−1)."""
    op = "local_response_norm_input_gradient"
    check_floats(op, dy=dy, input=input)
    same_shape(op, input=input, dy=dy)
    _check_local(op, input, size)
    divisor = _divisor(input, size, alpha, k)
    through = dy * input * divisor ** (-beta - 1)
    # c sees i = c − ⌊size/2⌋ … c + ⌊(size−1)/2⌋, so i is seen from the mirrored window.
    spread = _window_sum(through, (size - 1) // 2, size // 2)
    return dy * divisor**-beta - (2 * alpha * beta / size) * input * spread


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


def _check_local(op: str, input: Array, size: int) -> None:
    check_floats(op, input=input)
    integer(op, "size", size, 1)
    if input.ndim < 3:
        raise ShapeError(f"{op}: expected input (N, C, ...) of at least three axes, got {tuple(input.shape)}")


def _divisor(x: Array, size: int, alpha: float, k: float) -> Array:
    return k + (alpha / size) * _window_sum(x * x, size // 2, (size - 1) // 2)


def _window_sum(x: Array, before: int, after: int) -> Array:
    """Σ of x over channels c − before … c + after, for every c; channels outside count as zero."""
    total, channels = x.copy(), x.shape[1]
    for shift in range(1, min(before, channels - 1) + 1):
        total[:, shift:] += x[:, :-shift]
    for shift in range(1, min(after, channels - 1) + 1):
        total[:, :-shift] += x[:, shift:]
    return total
