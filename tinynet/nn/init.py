"""Initial weights, drawn from a generator that is passed in. Arrays are returned; nothing is changed in place.

fan_in is the number of inputs that one output sums over, fan_out the number of outputs that one input reaches.

With `no_draws` in place of a generator nothing is drawn and every weight is zero: for a network whose weights are loaded anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod, sqrt
from typing import Any

import numpy as np

from ..backend import Array
from ..errors import ArgumentError, ShapeError
from ..functional._check import generator


class _NoDraws(np.random.Generator):
    """A generator that this module does not ask."""


_PIECE = 1 << 18

no_draws = _NoDraws(np.random.PCG64(0))
"""create("vgg16", rng=init.no_draws): weights of zero, which cost neither time nor memory until they are written."""


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, *kernel), as PyTorch counts them (also for transposed convolutions)."""
    if len(shape) < 2:
        raise ShapeError(f"fans: expected a weight of at least two axes, got {tuple(shape)}")
    cells = prod(shape[2:])
    return shape[1] * cells, shape[0] * cells


def gain(nonlinearity: str, slope: float = 0.01) -> float:
    """The factor that keeps the variance through a nonlinearity: √2 for relu, 5/3 for tanh, √(2/(1 + slope²)) for leaky_relu."""
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": sqrt(2), "leaky_relu": sqrt(2 / (1 + slope**2))}
    if nonlinearity not in gains:
        raise ArgumentError(f"gain: expected one of {', '.join(gains)}, got {nonlinearity!r}")
    return gains[nonlinearity]


def kaiming_uniform(
    rng: np.random.Generator, shape: Sequence[int], nonlinearity: str = "relu", slope: float = 0.0, mode: str = "fan_in",
    dtype: Any = np.float32,
) -> Array:
    """U(−a, a) with a = gain · √(3 / fan) (He et al. 2015, equation 10)."""
    bound = gain(nonlinearity, slope) * sqrt(3 / max(_fan(shape, mode), 1))
    return _uniform(rng, shape, bound, dtype)


def kaiming_normal(
    rng: np.random.Generator, shape: Sequence[int], nonlinearity: str = "relu", slope: float = 0.0, mode: str = "fan_in",
    dtype: Any = np.float32,
) -> Array:
    """N(0, σ²) with σ = gain / √fan (He et al. 2015, equation 10)."""
    return normal(rng, shape, gain(nonlinearity, slope) / sqrt(max(_fan(shape, mode), 1)), dtype)


def xavier_uniform(rng: np.random.Generator, shape: Sequence[int], scale: float = 1.0, dtype: Any = np.float32) -> Array:
    """U(−a, a) with a = scale · √(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, equation 16)."""
    bound = scale * sqrt(6 / max(sum(fans(shape)), 1))
    return _uniform(rng, shape, bound, dtype)


def xavier_normal(rng: np.random.Generator, shape: Sequence[int], scale: float = 1.0, dtype: Any = np.float32) -> Array:
    """N(0, σ²) with σ = scale · √(2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    return normal(rng, shape, scale * sqrt(2 / max(sum(fans(shape)), 1)), dtype)


def normal(rng: np.random.Generator, shape: Sequence[int], std: float, dtype: Any = np.float32) -> Array:
    """N(0, std²)."""
    return _drawn(rng, shape, lambda rng, count: rng.standard_normal(count) * std, dtype)


def default_weight_and_bias(
    rng: np.random.Generator, shape: Sequence[int], bias: int | None, dtype: Any = np.float32
) -> tuple[Array, Array | None]:
    """PyTorch's default for convolutions and linear layers: both U(−a, a) with a = 1/√fan_in. bias: its length, or None."""
    weight = kaiming_uniform(rng, shape, "leaky_relu", slope=sqrt(5), dtype=dtype)
    if bias is None:
        return weight, None
    bound = 1 / sqrt(max(fans(shape)[0], 1))
    return weight, _uniform(rng, (bias,), bound, dtype)


def _uniform(rng: np.random.Generator, shape: Sequence[int], bound: float, dtype: Any) -> Array:
    """U(−bound, bound)."""
    return _drawn(rng, shape, lambda rng, count: rng.uniform(-bound, bound, count), dtype)


def _drawn(
    rng: np.random.Generator, shape: Sequence[int], draw: Callable[[np.random.Generator, int], Array], dtype: Any
) -> Array:
    """draw(rng, count) in pieces: a whole matrix of 64-bit numbers at once would take twice the memory that it has in the end."""
    if rng is no_draws:
        return np.zeros(tuple(shape), dtype)
    rng, drawn = generator(rng), np.empty(prod(shape), dtype)
    for start in range(0, drawn.size, _PIECE):
        piece = drawn[start : start + _PIECE]
        piece[...] = draw(rng, piece.size)
    return drawn.reshape(tuple(shape))


def _fan(shape: Sequence[int], mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f'expected mode "fan_in" or "fan_out", got {mode!r}')
    return fans(shape)[mode == "fan_out"]
