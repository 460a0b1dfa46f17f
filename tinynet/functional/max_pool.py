"""Max-pooling in one, two and three dimensions, its switches, and its gradient.

The switches are where each maximum stood: the flat index into the input plane, as PyTorch returns them. They are what
the gradient and the deconvnet's unpooling need (Zeiler & Fergus 2014, section 2.1). A layer's record holds them as `Switches`,
which take a byte where an index takes eight.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..errors import ArgumentError, ShapeError
from ..kernels import cuda
from ..kernels.cuda import max_pool as gpu
from ..kernels.geometry import Geometry
from ..kernels.pooling import first_cells, maxima, maxima_and_switches, put_back
from ._check import batched, check_floats, check_indices, check_signal
from ._geometry import pool_geometry

_Ints = int | Sequence[int]


def max_pool1d(
    input: Array, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0, dilation: _Ints = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:
    """max_pool2d with one spatial axis. input: (N, C, L) or (C, L)."""
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Array, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0, dilation: _Ints = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:
    """The maximum of every window: y[c, p] = max_k x[c, p·stride + k·dilation − padding].

    input: (N, C, H, W) or (C, H, W). stride None means kernel_size. padding: cells of −∞, at most half a window.
    ceil_mode: windows that reach over the end count too. Returns y (N, C, H', W'), and with return_indices also the switches:
    int64, of y's shape, the flat index row·W + column of the first maximum of each window. A NaN is larger than everything.
    """
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Array, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0, dilation: _Ints = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:
    """max_pool2d with three spatial axes. input: (N, C, D, H, W) or (C, D, H, W)."""
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d_input_gradient(dy: Array, indices: Array, input_size: Sequence[int]) -> Array:
    """max_pool2d_input_gradient with one spatial axis."""
    return _input_gradient("max_pool1d_input_gradient", 1, dy, indices, input_size)


def max_pool2d_input_gradient(dy: Array, indices: Array, input_size: Sequence[int]) -> Array:
    """∂ℓ/∂x for max_pool2d: dx[c, q] = Σ_{p : switch[c, p] = q} dy[c, p]. Windows that share a maximum add up.

    dy, indices: (N, C, H', W') or (C, H', W'). input_size: the shape of x, which is also what is returned.
    """
    return _input_gradient("max_pool2d_input_gradient", 2, dy, indices, input_size)


def max_pool3d_input_gradient(dy: Array, indices: Array, input_size: Sequence[int]) -> Array:
    """max_pool2d_input_gradient with three spatial axes."""
    return _input_gradient("max_pool3d_input_gradient", 3, dy, indices, input_size)


class Switches(NamedTuple):
    """Where the maxima of a pooling stand."""

    kept: Array
    """Of y's shape. On a CPU how far behind the first cell of its window each stands, in cells of the plane, in the smallest
    unsigned integers that hold it; on a GPU its flat index, int64.
    """
    geometry: Geometry

    @property
    def indices(self) -> Array:
        """The flat indices into the input plane, int64, of y's shape."""
        if self.kept.dtype == np.int64:
            return self.kept
        return first_cells(array_module(self.kept), self.geometry) + self.kept

    def pointing(self, indices: Array) -> Switches:
        """Others of the same windows: those of these flat indices (N, C, *out), each a cell of its window."""
        if self.kept.dtype == np.int64:
            return self._replace(kept=indices)
        return self._replace(kept=(indices - first_cells(array_module(indices), self.geometry)).astype(self.kept.dtype))


def max_pool_switches(
    op: str, n: int, input: Array, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Array, Switches]:
    """y and its switches, for a layer to keep. Arguments as max_pool2d, with n spatial axes; op: what errors call it."""
    x, unbatched, geometry = _check(op, n, input, kernel_size, stride, padding, dilation, ceil_mode)
    kept: Any
    y, kept = gpu.max_pool(x, geometry, True) if cuda.here(x) else maxima_and_switches(x, geometry)
    return (y[0], Switches(kept[0], geometry)) if unbatched else (y, Switches(kept, geometry))


def _max_pool(
    op: str, n: int, input: Array, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, switches: bool
) -> Any:
    windows = (kernel_size, stride, padding, dilation, ceil_mode)
    if switches:
        y, found = max_pool_switches(op, n, input, *windows)
        return y, found.indices
    x, unbatched, geometry = _check(op, n, input, *windows)
    y = gpu.max_pool(x, geometry, False)[0] if cuda.here(x) else maxima(x, geometry)
    return y[0] if unbatched else y


def _check(
    op: str, n: int, input: Array, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Array, bool, Geometry]:
    """The input (N, C, *size), whether it came without N, and its windows."""
    check_floats(op, input=input)
    x, unbatched = batched(op, "input", input, n)
    if x.shape[1] < 1:
        raise ShapeError(f"{op}: expected at least one channel, got {tuple(input.shape)}")
    return x, unbatched, pool_geometry(op, x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)


def _input_gradient(op: str, n: int, dy: Array, indices: Array, input_size: Sequence[int]) -> Array:
    check_floats(op, dy=dy)
    check_indices(op, "indices", indices)
    array_module(dy, indices)
    batched(op, "dy", dy, n)
    check_signal(op, dy, indices.shape)
    if len(input_size) != dy.ndim or tuple(input_size[:-n]) != tuple(dy.shape[:-n]):
        raise ShapeError(f"{op}: expected input_size ({', '.join(map(str, dy.shape[:-n]))}, …), got {tuple(input_size)}")
    return unpooled(op, dy, indices, input_size, n)


def unpooled(op: str, values: Array, indices: Array, size: Sequence[int], n: int, meeting: str = "sum") -> Array:
    """Every value where its flat index points, 0 elsewhere. size: of the result, whose last n axes are a plane.

    meeting: where several values meet in a cell, their "sum", or the "largest".
    """
    check_inside(op, indices, size[-n:])
    if cuda.here(values):
        return gpu.unpool(values, indices, size, n, meeting)
    scatter = scatter_add if meeting == "sum" else scatter_max
    return scatter(values, indices, size, n)


def unpooled_by(op: str, values: Array, switches: Switches, size: Sequence[int], n: int, meeting: str = "sum") -> Array:
    """unpooled, along the windows that the switches are of.

    A window of nothing but padding, whose switch is of no cell of its own, passes nothing on. A GPU gathers along the windows,
    and does not check the switches, for which the host would wait.
    """
    geometry = switches.geometry
    if cuda.here(values):
        return gpu.unpool(values, switches.kept, size, n, meeting, geometry)
    empty = _sees_nothing(array_module(values), geometry)
    if empty is None:
        return put_back(values, switches.kept, geometry, meeting == "largest").reshape(tuple(size))
    xp, nothing = array_module(values), 0 if meeting == "sum" else -inf
    values = xp.where(empty, xp.full((), nothing, dtype=values.dtype), values)
    return unpooled(op, values, xp.where(empty, xp.zeros((), dtype=xp.int64), switches.indices), size, n, meeting)


def _sees_nothing(xp: Any, geometry: Geometry) -> Array | None:
    """A mask (*out) of the windows that hold no cell of the input, whose dilation steps over all of it; None: there are none."""
    axes = []
    for size, k, d, begins in zip(geometry.size, geometry.kernel, geometry.dilation, geometry.begins(np), strict=True):
        inside = [(begins + i * d >= 0) & (begins + i * d < size) for i in range(k)]
        axes.append(~np.any(inside, axis=0))
    if not any(axis.any() for axis in axes):
        return None
    mask = xp.zeros((), dtype=bool)
    for nothing in axes:
        mask = mask[..., None] | xp.asarray(nothing)
    return mask


def check_inside(op: str, indices: Array, plane: Sequence[int]) -> None:
    """Every index must lie inside its plane: otherwise a signal would land in another one. A GPU is waited for."""
    cells = prod(plane)
    if indices.size and bool(((indices < 0) | (indices >= cells)).any()):
        raise ArgumentError(
            f"{op}: expected indices from 0 to {cells - 1} for planes of {tuple(plane)}, "
            f"got {int(indices.min())} to {int(indices.max())}"
        )


def scatter_add(values: Array, indices: Array, size: Sequence[int], n: int) -> Array:
    """Add every value at its flat index of the plane it belongs to; planes are the last n axes. Returns shape `size`."""
    xp, cells = array_module(values), prod(size[-n:])
    planes = xp.arange(prod(size[:-n]), dtype=xp.int64).reshape(-1, 1) * cells
    out = xp.zeros(prod(size), dtype=values.dtype)
    count = prod(values.shape[-n:])
    xp.add.at(out, (indices.reshape(-1, count) + planes).ravel(), values.reshape(-1))
    return out.reshape(tuple(size))


def scatter_max(values: Array, indices: Array, size: Sequence[int], n: int) -> Array:
    """Like scatter_add, but where several values meet in a cell the largest stays; a cell that none reaches is 0."""
    xp, cells = array_module(values), prod(size[-n:])
    planes = xp.arange(prod(size[:-n]), dtype=xp.int64).reshape(-1, 1) * cells
    places = (indices.reshape(-1, prod(values.shape[-n:])) + planes).ravel()
    out = xp.full(prod(size), -inf, dtype=values.dtype)
    xp.maximum.at(out, places, values.reshape(-1))
    return xp.where(out == -inf, xp.zeros((), dtype=values.dtype), out).reshape(tuple(size))
