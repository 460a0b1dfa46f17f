"""Max-unpooling: put every value back to where its maximum stood, in one, two and three dimensions, and its gradient.

With the switches of a max-pooling it is the approximate inverse that the deconvnet uses (Zeiler & Fergus 2014, section 2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ..backend import Array, array_module
from ..errors import ArgumentError, ShapeError
from ..kernels import cuda
from ..kernels.cuda import max_pool as gpu
from ..kernels.geometry import Geometry
from ._check import batched, check_floats, check_indices, integers
from .max_pool import check_inside

_Ints = int | Sequence[int]


def max_unpool1d(
    input: Array, indices: Array, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Array:
    """max_unpool2d with one spatial axis. input, indices: (N, C, L) or (C, L)."""
    return _max_unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Array, indices: Array, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Array:
    """y[c, indices[c, p]] = x[c, p], zero elsewhere. Where windows share a cell, the last of them overwrites, as in PyTorch.

    input: (N, C, H, W) or (C, H, W). indices: the switches of max_pool2d, int64, of input's shape. output_size: the size of the
    pooled input, (H', W') or with its leading axes; None means (H − 1)·stride − 2·padding + kernel_size. It may
    differ from that by less than one stride. Raises ArgumentError for an output size out of that range, or a switch outside the
    plane.
    """
    return _max_unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Array, indices: Array, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Array:
    """max_unpool2d with three spatial axes. input, indices: (N, C, D, H, W) or (C, D, H, W)."""
    return _max_unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


def max_unpool1d_input_gradient(dy: Array, indices: Array) -> Array:
    """max_unpool2d_input_gradient with one spatial axis."""
    return _input_gradient("max_unpool1d_input_gradient", 1, dy, indices)


def max_unpool2d_input_gradient(dy: Array, indices: Array) -> Array:
    """∂ℓ/∂x for max_unpool2d: dx[c, p] = dy[c, indices[c, p]].

    dy: (N, C, H', W') or (C, H', W'). Returns the shape of indices. Where windows shared a cell each receives that cell's
    gradient, as in PyTorch (exact only for the one that was kept).
    """
    return _input_gradient("max_unpool2d_input_gradient", 2, dy, indices)


def max_unpool3d_input_gradient(dy: Array, indices: Array) -> Array:
    """max_unpool2d_input_gradient with three spatial axes."""
    return _input_gradient("max_unpool3d_input_gradient", 3, dy, indices)


def _max_unpool(
    op: str, n: int, input: Array, indices: Array, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Array:
    check_floats(op, input=input)
    check_indices(op, "indices", indices)
    array_module(input, indices)
    x, unbatched = batched(op, "input", input, n)
    if min(x.shape[1:]) < 1:
        raise ShapeError(f"{op}: expected channels and sizes of at least one, got input {tuple(input.shape)}")
    if tuple(indices.shape) != tuple(input.shape):
        raise ShapeError(f"{op}: expected indices {tuple(input.shape)} as input is, got {tuple(indices.shape)}")
    size, kernel, stride, low = _output_size(op, n, x.shape[2:], kernel_size, stride, padding, output_size)
    if cuda.here(x):
        switches = indices.reshape(x.shape)
        windows = Geometry(size, kernel, stride, low, low, (1,) * n, tuple(x.shape[2:]))
        inside, of_these_windows = gpu.lie(switches, windows)
        if not inside:
            check_inside(op, indices, size)
        y = gpu.unpool(x, switches, (*x.shape[:2], *size), n, "overwrite", windows if of_these_windows else None)
        return y[0] if unbatched else y
    places = _places(op, indices, x.shape[0] * x.shape[1], size)
    y = array_module(x).zeros(x.shape[0] * x.shape[1] * prod(size), dtype=x.dtype)
    y[places] = x.reshape(-1)
    y = y.reshape(*x.shape[:2], *size)
    return y[0] if unbatched else y


def _input_gradient(op: str, n: int, dy: Array, indices: Array) -> Array:
    check_floats(op, dy=dy)
    check_indices(op, "indices", indices)
    array_module(dy, indices)
    batched(op, "dy", dy, n)
    if indices.ndim != dy.ndim or tuple(indices.shape[:-n]) != tuple(dy.shape[:-n]):
        raise ShapeError(f"{op}: expected indices ({', '.join(map(str, dy.shape[:-n]))}, …), got {tuple(indices.shape)}")
    size = tuple(dy.shape[-n:])
    return dy.reshape(-1)[_places(op, indices, prod(dy.shape[:-n]), size)].reshape(indices.shape)


def _output_size(
    op: str, n: int, size: Sequence[int], kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> tuple[tuple[int, ...], ...]:
    """The size of the output, and kernel, stride and padding along every axis."""
    for name, given in (("kernel_size", kernel_size), ("padding", padding)):
        if isinstance(given, (tuple, list)) and len(given) != n:         # here PyTorch does not spread one number over all axes
            raise ArgumentError(f"{op}: expected {name} to be an integer or {n}, got {tuple(given)}")
    kernel = integers(op, "kernel_size", kernel_size, n, 1)
    stride = kernel if stride is None or stride in ((), []) else integers(op, "stride", stride, n, 1)
    padding = integers(op, "padding", padding, n, 0)
    default = [(s - 1) * st + k - 2 * p for s, st, k, p in zip(size, stride, kernel, padding, strict=True)]
    if output_size is None:
        wanted = default
    else:
        wanted = [int(s) for s in output_size]
        if len(wanted) == n + 2:
            wanted = wanted[2:]
        if len(wanted) != n:
            raise ArgumentError(f"{op}: expected output_size of {n} or {n + 2} numbers, got {tuple(output_size)}")
        for w, d, st in zip(wanted, default, stride, strict=True):
            if not d - st < w < d + st:
                raise ArgumentError(
                    f"{op}: expected output_size within less than one stride {stride} of {tuple(default)}, got {tuple(wanted)}"
                )
    if min(wanted) < 1:
        raise ShapeError(f"{op}: expected an output of at least one cell, got {tuple(wanted)}")
    return tuple(wanted), kernel, stride, padding


def _places(op: str, indices: Array, planes: int, size: tuple[int, ...]) -> Array:
    """Flat indices into all planes one after the other, checked to lie inside their plane."""
    check_inside(op, indices, size)
    xp, cells = array_module(indices), prod(size)
    count = prod(indices.shape[-len(size) :])
    return (indices.reshape(-1, count) + xp.arange(planes, dtype=xp.int64).reshape(-1, 1) * cells).ravel()
