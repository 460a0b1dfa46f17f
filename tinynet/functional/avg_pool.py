"""Average pooling in one, two and three dimensions, adaptive average pooling, and their gradients.

The average over a window is a product of averages along each axis, so both directions go axis by axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ..backend import Array, array_module
from ..errors import ArgumentError, ShapeError
from ..kernels.geometry import Geometry
from ..kernels.pooling import means
from ..kernels.sums import line_sums
from ._check import batched, check_floats, check_signal, integer
from ._geometry import pool_geometry

_Ints = int | Sequence[int]


def avg_pool1d(
    input: Array, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Array:
    """avg_pool2d with one spatial axis. input: (N, C, L) or (C, L)."""
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Array, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:
    """The mean of every window: y[c, p] = Σ_k x[c, p·stride + k − padding] / count[p].

    input: (N, C, H, W) or (C, H, W). count is the number of cells of the window, those in the padding among them if
    count_include_pad, never those that ceil_mode adds beyond; divisor_override replaces it. Returns (N, C, H', W')
    or (C, H', W').
    """
    return _avg_pool("avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Array, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:
    """avg_pool2d with three spatial axes. input: (N, C, D, H, W) or (C, D, H, W)."""
    return _avg_pool("avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool1d_input_gradient(
    dy: Array, input_size: Sequence[int], kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Array:
    """avg_pool2d_input_gradient with one spatial axis."""
    op = "avg_pool1d_input_gradient"
    return _input_gradient(op, 1, dy, input_size, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d_input_gradient(
    dy: Array, input_size: Sequence[int], kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:
    """∂ℓ/∂x for avg_pool2d: dx[c, q] = Σ_{p : q in the window of p} dy[c, p] / count[p]. Returns input_size."""
    op = "avg_pool2d_input_gradient"
    return _input_gradient(op, 2, dy, input_size, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d_input_gradient(
    dy: Array, input_size: Sequence[int], kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:
    """avg_pool2d_input_gradient with three spatial axes."""
    op = "avg_pool3d_input_gradient"
    return _input_gradient(op, 3, dy, input_size, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def adaptive_avg_pool2d(input: Array, output_size: int | Sequence[int | None] | None) -> Array:
    """The means of output_size windows that share the input out evenly: window i is ⌊i·H/H'⌋ … ⌈(i + 1)·H/H'⌉ − 1.

    input: (N, C, H, W) or (C, H, W). output_size: H' = W', or (H', W'); None keeps that axis. Returns (N, C, H', W')
    or (C, H', W').
    """
    op = "adaptive_avg_pool2d"
    check_floats(op, input=input)
    x, unbatched = batched(op, "input", input, 2)
    if min(x.shape[2:]) < 1:
        raise ShapeError(f"{op}: expected sizes of at least one, got {tuple(input.shape)}")
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(wanted) != 2:
        raise ArgumentError(f"{op}: expected output_size of one or two numbers, got {tuple(wanted)}")
    counts = [n if count is None else integer(op, "output_size", count, 0) for n, count in zip(x.shape[2:], wanted, strict=True)]
    y = _of_all(x) if counts == [1, 1] else x
    for axis, count in zip((2, 3), counts, strict=True):
        if y.shape[axis] != count:
            y = _adaptive_axis(y, axis, count)
    y = x.copy() if y is x else y
    return y[0] if unbatched else y


def adaptive_avg_pool2d_input_gradient(dy: Array, input_size: Sequence[int]) -> Array:
    """∂ℓ/∂x for adaptive_avg_pool2d: every dy[c, p] spread evenly over its window. Returns input_size."""
    op = "adaptive_avg_pool2d_input_gradient"
    xp = check_floats(op, dy=dy)
    batched(op, "dy", dy, 2)
    if len(input_size) != dy.ndim or tuple(input_size[:-2]) != tuple(dy.shape[:-2]):
        raise ShapeError(f"{op}: expected input_size ({', '.join(map(str, dy.shape[:-2]))}, H, W), got {tuple(input_size)}")
    if tuple(dy.shape[-2:]) == (1, 1):
        dx = xp.empty(tuple(input_size), dtype=dy.dtype)
        dx[...] = dy / prod(input_size[-2:])
        return dx
    dx = dy
    for axis in (dy.ndim - 1, dy.ndim - 2):
        if input_size[axis] == dy.shape[axis]:
            continue
        size = (*dx.shape[:axis], input_size[axis], *dx.shape[axis + 1 :])
        spread = xp.zeros(size, dtype=dy.dtype)
        before = (slice(None),) * axis
        for i, (begin, end) in enumerate(_adaptive_windows(input_size[axis], dy.shape[axis])):
            spread[(*before, slice(begin, end))] += dx[(*before, slice(i, i + 1))] / (end - begin)
        dx = spread
    return dx.copy() if dx is dy else dx


def _of_all(x: Array) -> Array:
    """The mean of each map, (N, C, 1, 1)."""
    n, c, *size = x.shape
    return line_sums(x.reshape(n * c, prod(size))).reshape(n, c, 1, 1) / prod(size)


def _adaptive_windows(size: int, count: int) -> list[tuple[int, int]]:
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _adaptive_axis(x: Array, axis: int, count: int) -> Array:
    xp, before = array_module(x), (slice(None),) * axis
    y = xp.empty((*x.shape[:axis], count, *x.shape[axis + 1 :]), dtype=x.dtype)
    for i, (begin, end) in enumerate(_adaptive_windows(x.shape[axis], count)):
        y[(*before, i)] = x[(*before, slice(begin, end))].mean(axis=axis)
    return y


def _avg_pool(
    op: str, n: int, input: Array, kernel_size: Any, stride: Any, padding: Any,
    ceil_mode: bool, count_include_pad: bool, divisor_override: int | None,
) -> Array:
    xp = check_floats(op, input=input)
    x, unbatched = batched(op, "input", input, n)
    geometry = _check(op, x.shape, kernel_size, stride, padding, ceil_mode)
    counts = _counts(op, xp, geometry, count_include_pad, divisor_override, x.dtype)
    y = means(x, geometry, counts)
    return y[0] if unbatched else y


def _input_gradient(
    op: str, n: int, dy: Array, input_size: Sequence[int], kernel_size: Any, stride: Any, padding: Any,
    ceil_mode: bool, count_include_pad: bool, divisor_override: int | None,
) -> Array:
    xp = check_floats(op, dy=dy)
    signal, unbatched = batched(op, "dy", dy, n)
    size = (1, *input_size) if unbatched else tuple(input_size)
    geometry = _check(op, size, kernel_size, stride, padding, ceil_mode)
    check_signal(op, signal, (*size[:2], *geometry.out))
    dx = signal / _counts(op, xp, geometry, count_include_pad, divisor_override, dy.dtype)
    for axis in reversed(range(n)):
        index = _axis_windows(geometry, axis)
        spread = xp.zeros((*dx.shape[: 2 + axis], geometry.padded[axis], *dx.shape[3 + axis :]), dtype=dy.dtype)
        for k in range(geometry.kernel[axis]):
            spread[index(k)] += dx
        dx = spread
    dx = xp.ascontiguousarray(dx[geometry.interior])
    return dx[0] if unbatched else dx


def _check(op: str, size: Sequence[int], kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool) -> Geometry:
    if len(size) < 3 or size[1] < 1:
        raise ShapeError(f"{op}: expected at least one channel, got {tuple(size)}")
    geometry = pool_geometry(op, size[2:], kernel_size, stride, padding, 1, ceil_mode)
    if len(size) == 5 and any(s < k for s, k in zip(geometry.size, geometry.kernel, strict=True)):
        # In three dimensions PyTorch asks for this, padding or not; in one and two it does not.
        raise ShapeError(f"{op}: expected sizes of at least the kernel's {geometry.kernel}, got {tuple(size)}")
    return geometry


def _axis_windows(geometry: Geometry, axis: int) -> Any:
    """A function: kernel position k along the axis to the index of the cells that the windows see there."""
    s, count = geometry.stride[axis], geometry.out[axis]
    return lambda k: (*(slice(None),) * (2 + axis), slice(k, k + (count - 1) * s + 1, s))


def _counts(
    op: str, xp: Any, geometry: Geometry, count_include_pad: bool, divisor_override: int | None, dtype: Any
) -> Array:
    """What the sum of each window is divided by, an array (*out)."""
    if divisor_override is not None:
        divisor = integer(op, "divisor_override", divisor_override)
        if divisor == 0:
            raise ArgumentError(f"{op}: expected divisor_override other than 0")
        return xp.full(geometry.out, divisor, dtype=dtype)
    counts = xp.ones((), dtype=dtype)
    for size, k, s, p, count in zip(
        geometry.size, geometry.kernel, geometry.stride, geometry.low, geometry.out, strict=True
    ):
        begin = xp.arange(count) * s - p
        end = xp.minimum(begin + k, size + p)
        if not count_include_pad:
            begin, end = xp.maximum(begin, 0), xp.minimum(end, size)
        counts = counts[..., None] * (end - begin).astype(dtype)
    return counts
