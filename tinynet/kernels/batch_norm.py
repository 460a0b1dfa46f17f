"""Batch normalisation on a CPU, block by block: memory is read once for the statistics and once for what is made of them.

Where a channel's mean is of the order of its deviation, or smaller, Σ (x − mean)² is Σ x² − n mean², and (x − mean) · scale is
x · scale − mean · scale, for a digit at most. Otherwise the difference is taken first; for the variance of each row with its own
mean while it is in the cache, and the rows are put together afterwards (Chan, Golub & LeVeque, "Algorithms for computing the
sample variance", 1983, equation 2.1):

    Σ (x − mean)² = Σ_rows [ Σ (x − row mean)² + n_row (row mean − mean)² ]

Sums of at most _RUN numbers are in x's precision, and those of rows in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import numpy as np

from ..backend import Array, array_module
from .masking import rectify
from .scratch import scratch
from .sums import line_sums

NUMBERS = 1 << 19
"""Numbers in a block. Shorter operations would have the threads wait for the interpreter's lock (see blocks.py)."""
_NEAR = 8
"""A mean is near zero if its square is at most this many times the variance."""
_RUN = 1 << 13
"""Numbers that are added up in x's own precision, at most."""
_SHORT = 16
"""Maps of fewer numbers than this are better added up across the batch."""


class Moments(NamedTuple):
    """Of every channel of a batch, or of a part of it."""

    values: int
    mean: Array
    """(C,)"""
    deviation: Array
    """Σ (x − mean)², (C,)."""


def fits(*arrays: Array) -> bool:
    """Whether these arrays (N, C, …) of one shape are worth going through in blocks: on a CPU, in C order, of long rows."""
    x = arrays[0]
    if array_module(*arrays) is not np or x.size == 0 or prod(x.shape[2:]) < _SHORT:
        return False
    return all(array.flags.c_contiguous for array in arrays)


def near(mean: Array, variance: Array) -> bool:
    """Whether no channel's mean is so far from zero, seen from its deviation, that it would drown it."""
    return bool((mean * mean <= _NEAR * variance).all())


def moments(x: Array) -> Moments:
    """Mean and squared deviation of every channel, in float64."""
    rows = _rows(x)
    found = []
    for part in _blocks(rows.shape):
        block = rows[part]
        n = block.shape[2]
        mean = (line_sums(block) / n).astype(np.float64)                    # (n, c)
        square = np.vecdot(block, block)
        deviation = square - n * mean**2
        if ((_NEAR + 1) * deviation < square).any():
            pivot = mean.astype(x.dtype)
            centred = np.subtract(block, pivot[..., None], out=_room("centred", block))
            rest = (line_sums(centred) / n).astype(np.float64)              # what the rounded mean has left
            mean, deviation = pivot + rest, np.vecdot(centred, centred) - n * rest**2
        found.append((part[1], n, mean, deviation))
    sums, total, count = np.zeros(x.shape[1]), np.zeros(x.shape[1]), x.size // x.shape[1]
    for channels, n, mean, _ in found:
        sums[channels] += n * mean.sum(axis=0)
    whole = sums / count
    for channels, n, mean, deviation in found:
        total[channels] += (deviation + n * (mean - whole[channels]) ** 2).sum(axis=0)
    return Moments(count, whole, total)


def gradient_sums(dy: Array, x: Array, mean: Array, near: bool) -> Array:
    """Σ dy and Σ dy (x − mean) of every channel (2, C), in float64. near: see the function of that name."""
    signal, rows, sums = _rows(dy), _rows(x), np.zeros((2, x.shape[1]))
    for part in _blocks(rows.shape):
        block, c = rows[part], part[1]
        if not near:
            block = np.subtract(block, mean[c, None], out=_room("centred", block))
        sums[0, c] += line_sums(signal[part]).sum(axis=0, dtype=np.float64)
        sums[1, c] += np.vecdot(signal[part], block).sum(axis=0, dtype=np.float64)
    if near:
        sums[1] -= mean * sums[0]
    return sums


def normalise(
    x: Array, mean: Array, scale: Array, bias: Array | None, near: bool, relu: bool = False, into: Array | None = None
) -> Array:
    """(x − mean) · scale + bias, channel by channel, and max(…, 0) if relu. into: where to, x itself for one."""
    y = np.empty(x.shape, x.dtype) if into is None else into
    rows, target = _rows(x), _rows(y)
    shift = -mean * scale if bias is None else bias - mean * scale
    for part in _blocks(rows.shape):
        out, c = target[part], part[1]
        if near:
            np.multiply(rows[part], scale[c, None], out=out)
            out += shift[c, None]
        else:
            np.subtract(rows[part], mean[c, None], out=out)
            out *= scale[c, None]
            if bias is not None:
                out += bias[c, None]
        if relu:
            rectify(out, out=out)
    return y


def input_gradient(dy: Array, x: Array, mean: Array, gain: Array, level: Array, slope: Array, near: bool) -> Array:
    """gain · (dy − level − slope · (x − mean)), channel by channel."""
    dx = np.empty(x.shape, x.dtype)
    signal, rows, target, steep = _rows(dy), _rows(x), _rows(dx), -gain * slope
    shift = -gain * level - (steep * mean if near else 0)
    for part in _blocks(rows.shape):
        out, c = target[part], part[1]
        if near:
            np.multiply(rows[part], steep[c, None], out=out)
        else:
            np.subtract(rows[part], mean[c, None], out=out)
            out *= steep[c, None]
        out += np.multiply(signal[part], gain[c, None], out=_room("centred", out))
        out += shift[c, None]
    return dx


def _rows(x: Array) -> Array:
    """(N, C, numbers of a map)."""
    return x.reshape(*x.shape[:2], -1)


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice]]:
    """Parts of (N, C, L) of about NUMBERS numbers: whole samples, or some channels of one, in runs."""
    n, c, length = shape
    run = min(length, _RUN)
    channels = max(1, min(c, NUMBERS // run))
    samples = max(1, NUMBERS // (c * length)) if channels == c and run == length else 1
    for sample in range(0, n, samples):
        for channel in range(0, c, channels):
            for first in range(0, length, run):
                yield slice(sample, sample + samples), slice(channel, channel + channels), slice(first, first + run)


def _room(place: str, like: Array) -> Array:
    return scratch(np, place, like.shape, like.dtype)
