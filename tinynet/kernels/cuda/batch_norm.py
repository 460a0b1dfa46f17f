"""Batch normalisation on a GPU: sums over a channel in two deterministic passes, all else in one; as functional/batch_norm.py."""

from __future__ import annotations

from math import prod

import numpy as np

from ...backend import Array, array_module
from .launch import THREADS, block_for, dense, index_type, launch
from .memory import allocating


def _splits(numbers: int, channels: int) -> int:
    """Blocks that share a channel: enough to fill a large GPU, each with at least a few numbers a thread. By the sizes alone."""
    return max(1, min(1024 // max(channels, 1), numbers // (8 * THREADS)))


def channel_sums(x: Array, mean: Array | None = None) -> Array:
    """Σ x of every channel, or with mean Σ (x − mean)². x: (N, C, …). Returns (C,)."""
    x, xp, channels, P = dense(x), array_module(x), x.shape[1], prod(x.shape[2:])
    numbers = x.size // max(channels, 1)
    if not x.size:
        return xp.zeros((channels,), dtype=x.dtype)
    splits = _splits(numbers, channels)
    kind = index_type(x.size + splits * THREADS)                # a thread's last step goes that far beyond
    sums = xp.empty((channels, splits), dtype=x.dtype)
    launch("batch_norm", "channel_sums", (x.dtype, kind), (
        x, None if mean is None else dense(mean), sums, kind(channels), kind(P), kind(numbers)),
        threads=x.size, block=block_for(numbers), grid=(channels, splits))
    return sums.sum(axis=1)


def gradient_sums(dy: Array, x: Array, mean: Array) -> Array:
    """Σ dy and Σ dy (x − mean) of every channel, in one pass. dy, x: (N, C, …), not empty. Returns (2, C)."""
    dy, x, xp, channels, P = dense(dy), dense(x), array_module(dy, x), x.shape[1], prod(x.shape[2:])
    numbers = x.size // channels
    splits = _splits(numbers, channels)
    kind = index_type(x.size + splits * THREADS)
    sums = xp.empty((2, channels, splits), dtype=x.dtype)
    launch("batch_norm", "gradient_sums", (x.dtype, kind), (
        dy, x, dense(mean), sums, kind(channels), kind(P), kind(numbers)),
        threads=x.size, block=block_for(numbers), grid=(channels, splits))
    return sums.sum(axis=2)


def normalise(x: Array, mean: Array, scale: Array, bias: Array | None, relu: bool = False) -> Array:
    """(x − mean) · scale + bias, channel by channel, and max(…, 0) for relu. x: (N, C, …), all others (C,)."""
    x = dense(x)
    with allocating("the output of a normalisation", x.shape, x.dtype):
        y = array_module(x).empty(x.shape, dtype=x.dtype)
    kind = index_type(x.size)
    launch("batch_norm", "normalise", (x.dtype, kind), (
        x, dense(mean), dense(scale), None if bias is None else dense(bias), y, kind(x.shape[1]), kind(prod(x.shape[2:])),
        np.int32(relu), kind(x.size)), threads=x.size)
    return y


def input_gradient(dy: Array, x: Array, mean: Array, scale: Array, gain: Array, level: Array, along: Array) -> Array:
    """gain · (dy − level − x̂ · along) with x̂ = (x − mean) · scale. dy, x: (N, C, …), all others (C,)."""
    dy, x = dense(dy), dense(x)
    with allocating("the input gradient of a normalisation", x.shape, x.dtype):
        dx = array_module(x).empty(x.shape, dtype=x.dtype)
    kind = index_type(x.size)
    launch("batch_norm", "normalise_gradient", (x.dtype, kind), (
        dy, x, dense(mean), dense(scale), dense(gain), dense(level), dense(along), dx, kind(x.shape[1]),
        kind(prod(x.shape[2:])), kind(x.size)), threads=x.size)
    return dx
