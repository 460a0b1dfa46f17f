"""Correlation over N spatial axes, its two adjoints, and the choice of the algorithm that computes them.

    y[n, o, p] = Σ_c Σ_k w[o, c, k] · x[n, c, p·stride + k·dilation − padding]

This one linear map is all of convolution: conv is its forward, its input gradient is the transposed convolution, and both share
the weight gradient. Every algorithm computes the same three; they differ in speed and in the last digits. With `groups`, the
channels fall into that many parts which do not see each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ..backend import Array
from ..errors import ArgumentError
from . import im2col, pointwise, rows, winograd
from .cuda import convolution, here
from .cuda.choice import can_direct, can_winograd
from .geometry import Geometry

ALGORITHMS = ("auto", "im2col", "direct", "pointwise", "rows", "winograd2x2", "winograd4x4")
"""auto: what is fastest for the shapes. The others are for those who want to compare; each says in its file what it can do.

On a GPU im2col, direct and winograd4x4 are kernels of cuda/; direct (implicit GEMM) is there alone. The others are array code.
"""

_WORTH = 0.85
"""What Winograd's algorithm must at most cost to be taken: it pays with digits, too."""
_BESIDE = 1.4
"""The same of a weight gradient where the input gradient takes it anyway: dy is cut and transformed once for both."""


class _Algorithm(NamedTuple):
    """The same three maps, computed one way."""

    forward: Callable[..., Array]
    """Of x, w, bias, geometry, groups, relu; and scale, if it scales outputs."""
    input_gradient: Callable[[Array, Array, Geometry, int], Array]
    weight_gradient: Callable[[Array, Array, Geometry, int], Array]
    gradients: Callable[[Array, Array, Array, Geometry, int], tuple[Array, Array]] | None = None
    """Both of x, w, dy in one walk; None: one after the other."""
    scales: bool = False
    """Whether forward takes a scale, since its filters are kept transformed and had better stay the same."""


def _winograd(m: int) -> _Algorithm:
    return _Algorithm(
        lambda x, w, bias, geometry, groups, relu, scale=None: winograd.forward(x, w, bias, geometry, m, relu, scale),
        lambda dy, w, geometry, groups: winograd.input_gradient(dy, w, geometry, m),
        lambda x, dy, geometry, groups: winograd.weight_gradient(x, dy, geometry, m),
        lambda x, w, dy, geometry, groups: winograd.gradients(x, w, dy, geometry, m),
        scales=True,
    )


def _gpu(name: str) -> _Algorithm:
    return _Algorithm(
        partial(convolution.correlate, algorithm=name), partial(convolution.correlate_input_gradient, algorithm=name),
        partial(convolution.correlate_weight_gradient, algorithm=name),
    )


_GPU = {name: _gpu(name) for name in ("auto", "im2col", "direct", "winograd4x4")}
_NAMED = {
    "im2col": _Algorithm(im2col.forward, im2col.input_gradient, im2col.weight_gradient),
    "pointwise": _Algorithm(pointwise.forward, pointwise.input_gradient, pointwise.weight_gradient),
    "rows": _Algorithm(rows.forward, rows.input_gradient, rows.weight_gradient),
    "winograd2x2": _winograd(2), "winograd4x4": _winograd(4),
}


def correlate(
    x: Array, w: Array, bias: Array | None, geometry: Geometry, groups: int, algorithm: str = "auto", relu: bool = False,
    scale: Array | None = None,
) -> Array:
    """Y = s · W X + b, and max(Y, 0) if relu. x: (N, C, *size), w: (O, C/G, *kernel), bias, scale: (O,) or None.

    Returns (N, O, *out).
    """
    way = _way(algorithm, x, x.shape[1], w.shape[0], geometry, groups)
    if scale is None:
        return way.forward(x, w, bias, geometry, groups, relu)
    if way.scales:
        return way.forward(x, w, bias, geometry, groups, relu, scale)
    return way.forward(x, w * scale.reshape(-1, *[1] * (w.ndim - 1)), bias, geometry, groups, relu)


def correlate_input_gradient(dy: Array, w: Array, geometry: Geometry, groups: int, algorithm: str = "auto") -> Array:
    """dX = Wᵀ dY. dy: (N, O, *out), w: (O, C/G, *kernel). Returns (N, C, *size)."""
    way = _way(algorithm, dy, w.shape[1] * groups, w.shape[0], geometry, groups, "input gradient")
    return way.input_gradient(dy, w, geometry, groups)


def correlate_weight_gradient(x: Array, dy: Array, geometry: Geometry, groups: int, algorithm: str = "auto") -> Array:
    """dW = dY Xᵀ, summed over all positions. x: (N, C, *size), dy: (N, O, *out). Returns (O, C/G, *kernel)."""
    way = _way(algorithm, x, x.shape[1], dy.shape[1], geometry, groups, "weight gradient")
    return way.weight_gradient(x, dy, geometry, groups)


def correlate_gradients(
    x: Array, w: Array, dy: Array, geometry: Geometry, groups: int, algorithm: str = "auto"
) -> tuple[Array, Array]:
    """(dX, dW): both gradients, which may share work. x: (N, C, *size), w: (O, C/G, *kernel), dy: (N, O, *out)."""
    way = _way(algorithm, x, x.shape[1], w.shape[0], geometry, groups, "both gradients")
    if way.gradients is not None:
        return way.gradients(x, w, dy, geometry, groups)
    dx = correlate_input_gradient(dy, w, geometry, groups, algorithm)
    return dx, correlate_weight_gradient(x, dy, geometry, groups, algorithm)


def choose(count: int, channels: int, filters: int, geometry: Geometry, groups: int, what: str = "forward") -> str:
    """The algorithm for `count` images; by the shapes alone.

    what: "forward", "input gradient", "weight gradient", or "both gradients": one that computes them in one walk, or any other
    where they had better go one by one.
    """
    if pointwise.fits(geometry, groups):
        return "pointwise"
    able = [m for m in (4, 2) if winograd.fits(geometry, groups, m)]
    if able:
        costs = {m: winograd.cost(m, count, channels, filters, geometry, what) for m in able}
        m = min(costs, key=costs.__getitem__)
        both = what == "both gradients"
        if costs[m] < _WORTH and not (both and winograd.cost(m, count, channels, filters, geometry, "weight gradient") > _BESIDE):
            return f"winograd{m}x{m}"
    return "rows" if rows.pays(channels, filters, geometry, groups, what) else "im2col"


def _way(
    algorithm: str, given: Array, channels: int, filters: int, geometry: Geometry, groups: int, what: str = "forward"
) -> _Algorithm:
    """What computes this map of a correlation. Raises ArgumentError if the algorithm that was asked for cannot do it."""
    if algorithm == "auto":
        return _GPU["auto"] if here(given) else _NAMED[choose(len(given), channels, filters, geometry, groups, what)]
    direct = here(given) and given.dtype == "float32" and can_direct("forward", len(given), channels, filters, geometry, groups)
    can = {
        "im2col": True, "direct": direct, "rows": True, "pointwise": pointwise.fits(geometry, groups),
        "winograd2x2": winograd.fits(geometry, groups, 2),
        "winograd4x4": can_winograd(geometry, groups) if here(given) else winograd.fits(geometry, groups, 4),
    }
    if algorithm not in can:
        raise ArgumentError(f"convolution: expected algorithm {', '.join(ALGORITHMS)}, got {algorithm!r}")
    if not can[algorithm]:
        able = ", ".join(name for name, fits in can.items() if fits)
        raise ArgumentError(
            f"convolution: {algorithm} cannot do kernel {geometry.kernel}, stride {geometry.stride}, "
            f"dilation {geometry.dilation}, groups {groups} of {given.dtype} here; what can: auto, {able}"
        )
    return _GPU[algorithm] if here(given) and algorithm in _GPU else _NAMED[algorithm]
