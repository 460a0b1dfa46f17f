"""Where the windows of a convolution or a pooling lie: sizes, strides, paddings, in any number of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..backend import Array, array_module
from ..errors import ArgumentError, ShapeError
from ._check import integers


class Geometry(NamedTuple):
    """Windows over the spatial axes; every field has one number an axis.

    Output position p sees the input positions p·stride + k·dilation − low, for k = 0 … kernel − 1. `low` and `high` are the
    cells of padding before and after the input of size `size`; `out` counts the windows.
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilation: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def padded(self) -> tuple[int, ...]:
        """Size of the input with its padding."""
        return tuple(s + lo + hi for s, lo, hi in zip(self.size, self.low, self.high, strict=True))

    @property
    def interior(self) -> tuple[Any, ...]:
        """Index of the input inside the padded array, for all axes behind batch and channel."""
        return (..., *(slice(lo, lo + s) for lo, s in zip(self.low, self.size, strict=True)))

    def seen_by(self, offset: Sequence[int], rows: slice | None = None) -> tuple[Any, ...]:
        """Index, into the padded array, of the cell that each window sees at kernel position `offset`.

        rows: only the windows of these positions along the first spatial axis.
        """
        index: list[Any] = [...]
        for axis, (k, s, d, count) in enumerate(zip(offset, self.stride, self.dilation, self.out, strict=True)):
            first, last = (rows.start, rows.stop) if axis == 0 and rows is not None else (0, count)
            begin = k * d + first * s
            index.append(slice(begin, begin + max(last - first - 1, -1) * s + 1, s))
        return tuple(index)


def pad_cells(x: Array, geometry: Geometry, value: float) -> Array:
    """x (N, C, *size) within its padding of `value`; x itself where there is none."""
    if geometry.padded == geometry.size:
        return x
    padded = array_module(x).full((*x.shape[:2], *geometry.padded), value, dtype=x.dtype)
    padded[geometry.interior] = x
    return padded


def windows(padded: Array, geometry: Geometry) -> Array:
    """A view (N, C, *out, *kernel) of the padded array: the cells that each window sees. Nothing is copied."""
    moves, inside = padded.strides[2:], []
    inside = [step * d for step, d in zip(moves, geometry.dilation, strict=True)]
    across = [step * s for step, s in zip(moves, geometry.stride, strict=True)]
    return array_module(padded).lib.stride_tricks.as_strided(
        padded, (*padded.shape[:2], *geometry.out, *geometry.kernel), (*padded.strides[:2], *across, *inside)
    )


def conv_geometry(op: str, size: Sequence[int], kernel: Sequence[int], stride: Any, padding: Any, dilation: Any) -> Geometry:
    """Windows of a convolution: out = ⌊(size + low + high − dilation·(kernel − 1) − 1) / stride⌋ + 1."""
    n = len(size)
    stride = integers(op, "stride", stride, n, 1)
    dilation = integers(op, "dilation", dilation, n, 1)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if min(kernel, default=1) < 1:
        raise ShapeError(f"{op}: expected a kernel of at least one cell, got {tuple(kernel)}")
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ArgumentError(f'{op}: expected padding to be "same", "valid" or integers, got {padding!r}')
        if padding == "same" and max(stride, default=1) > 1:
            raise ArgumentError(f'{op}: padding="same" takes stride 1 only, got {stride}')
        total = [span - 1 if padding == "same" else 0 for span in spans]
        low = tuple(t // 2 for t in total)
        high = tuple(t - lo for t, lo in zip(total, low, strict=True))
    else:
        low = high = integers(op, "padding", padding, n, 0)
    padded = [s + lo + hi for s, lo, hi in zip(size, low, high, strict=True)]
    if any(p < span for p, span in zip(padded, spans, strict=True)):
        raise ShapeError(
            f"{op}: expected an input of at least {tuple(spans)} cells with its padding, which the kernel spans, "
            f"got {tuple(padded)}"
        )
    out = tuple((p - span) // s + 1 for p, span, s in zip(padded, spans, stride, strict=True))
    return Geometry(tuple(size), tuple(kernel), stride, low, high, dilation, out)


def pool_geometry(
    op: str, size: Sequence[int], kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Geometry:
    """Windows of a pooling. With ceil_mode the division rounds up, but no window begins beyond the input and its low padding.

    stride None means kernel_size. Padding is at most half of the span of a window, as in PyTorch.
    """
    n = len(size)
    kernel = integers(op, "kernel_size", kernel_size, n, 1)
    stride = kernel if stride is None or stride in ((), []) else integers(op, "stride", stride, n, 1)
    padding = integers(op, "padding", padding, n, 0)
    dilation = integers(op, "dilation", dilation, n, 1)
    out, high = [], []
    for s, k, step, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        span = d * (k - 1) + 1
        if p > span // 2:
            raise ArgumentError(f"{op}: expected padding of at most half the window, {span // 2}, got {p}")
        room = s + 2 * p - span
        count = (-(-room // step) if ceil_mode else room // step) + 1
        if ceil_mode and (count - 1) * step >= s + p:
            count -= 1
        if count < 1 or s < 1:
            raise ShapeError(
                f"{op}: expected an input of at least {span} cells with its padding, got {s + 2 * p} ({tuple(size)})"
            )
        out.append(count)
        high.append(max(0, (count - 1) * step + span - s - p))
    return Geometry(tuple(size), kernel, stride, padding, tuple(high), dilation, tuple(out))
