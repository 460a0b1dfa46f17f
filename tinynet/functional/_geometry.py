"""Lay out the windows of a convolution or a pooling: check sizes, strides, paddings, in any number of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ArgumentError, ShapeError
from ..kernels.geometry import Geometry
from ._check import integers


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
