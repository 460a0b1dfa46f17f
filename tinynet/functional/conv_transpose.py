"""Transposed convolution in one, two and three dimensions, and its gradients.

It is the adjoint of convolution, its matrix transposed: conv_transpose(x, w) does to x what conv's input gradient does to dy.
Its own input gradient is therefore the convolution, and its weight gradient is convolution's with the two arrays in
exchanged parts.
(Zeiler, Krishnan, Taylor & Fergus, "Deconvolutional networks", CVPR 2010.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import Array
from ..errors import ArgumentError, ShapeError
from ..kernels.correlation import correlate, correlate_input_gradient, correlate_weight_gradient
from ..kernels.geometry import Geometry
from ._check import batched, check_floats, check_signal, integer, integers

_Ints = int | Sequence[int]


def conv_transpose1d(
    input: Array, weight: Array, bias: Array | None = None,
    stride: _Ints = 1, padding: _Ints = 0, output_padding: _Ints = 0, groups: int = 1, dilation: _Ints = 1,
) -> Array:
    """conv_transpose2d with one spatial axis. input: (N, C, L) or (C, L). weight: (C, O/groups, k)."""
    return _forward("conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Array, weight: Array, bias: Array | None = None,
    stride: _Ints = 1, padding: _Ints = 0, output_padding: _Ints = 0, groups: int = 1, dilation: _Ints = 1,
) -> Array:
    """Paint every filter, scaled by x[c, p], at p·stride: y[o, q] = b[o] + Σ_c Σ_{p·stride + k·dilation − padding =
    q} w[c, o, k] x[c, p].

    input: (N, C, H, W) or (C, H, W). weight: (C, O/groups, kh, kw). bias: (O,) or None. padding cuts that many cells off each
    border of the result; output_padding adds cells at the end of each axis. Returns (N, O, H', W') or (O, H', W') with
    H' = (H − 1)·stride − 2·padding + dilation·(kh − 1) + output_padding + 1. Raises ShapeError, ArgumentError or DtypeError.
    """
    return _forward("conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Array, weight: Array, bias: Array | None = None,
    stride: _Ints = 1, padding: _Ints = 0, output_padding: _Ints = 0, groups: int = 1, dilation: _Ints = 1,
) -> Array:
    """conv_transpose2d with three spatial axes. input: (N, C, D, H, W) or (C, D, H, W). weight: (C, O/groups, kd, kh, kw)."""
    return _forward("conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose1d_input_gradient(
    dy: Array, weight: Array, stride: _Ints = 1, padding: _Ints = 0, output_padding: _Ints = 0,
    groups: int = 1, dilation: _Ints = 1,
) -> Array:
    """conv_transpose2d_input_gradient with one spatial axis."""
    return _input_gradient("conv_transpose1d_input_gradient", 1, dy, weight, stride, padding, output_padding, groups, dilation)


def conv_transpose2d_input_gradient(
    dy: Array, weight: Array, stride: _Ints = 1, padding: _Ints = 0, output_padding: _Ints = 0,
    groups: int = 1, dilation: _Ints = 1,
) -> Array:
    """∂ℓ/∂x for conv_transpose2d: the convolution of dy with the same filters, dx[c, p] = Σ_o Σ_k w[c, o, k] dy[o,
    p·stride + …].
    """
    return _input_gradient("conv_transpose2d_input_gradient", 2, dy, weight, stride, padding, output_padding, groups, dilation)


def conv_transpose3d_input_gradient(
    dy: Array, weight: Array, stride: _Ints = 1, padding: _Ints = 0, output_padding: _Ints = 0,
    groups: int = 1, dilation: _Ints = 1,
) -> Array:
    """conv_transpose2d_input_gradient with three spatial axes."""
    return _input_gradient("conv_transpose3d_input_gradient", 3, dy, weight, stride, padding, output_padding, groups, dilation)


def conv_transpose1d_weight_gradient(
    input: Array, weight_size: Sequence[int], dy: Array, stride: _Ints = 1, padding: _Ints = 0, output_padding: _Ints = 0,
    groups: int = 1, dilation: _Ints = 1,
) -> Array:
    """conv_transpose2d_weight_gradient with one spatial axis."""
    return _weight_gradient(
        "conv_transpose1d_weight_gradient", 1, input, weight_size, dy, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d_weight_gradient(
    input: Array, weight_size: Sequence[int], dy: Array, stride: _Ints = 1, padding: _Ints = 0, output_padding: _Ints = 0,
    groups: int = 1, dilation: _Ints = 1,
) -> Array:
    """∂ℓ/∂w for conv_transpose2d: dw[c, o, k] = Σ_n Σ_p x[n, c, p] · dy[n, o, p·stride + k·dilation − padding]."""
    return _weight_gradient(
        "conv_transpose2d_weight_gradient", 2, input, weight_size, dy, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d_weight_gradient(
    input: Array, weight_size: Sequence[int], dy: Array, stride: _Ints = 1, padding: _Ints = 0, output_padding: _Ints = 0,
    groups: int = 1, dilation: _Ints = 1,
) -> Array:
    """conv_transpose2d_weight_gradient with three spatial axes."""
    return _weight_gradient(
        "conv_transpose3d_weight_gradient", 3, input, weight_size, dy, stride, padding, output_padding, groups, dilation
    )


def _forward(
    op: str, n: int, input: Array, weight: Array, bias: Array | None,
    stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any,
) -> Array:
    check_floats(op, input=input, weight=weight, bias=bias)
    x, unbatched = batched(op, "input", input, n)
    geometry = _check(op, n, x.shape, weight.shape, stride, padding, output_padding, groups, dilation)
    channels = weight.shape[1] * groups
    if bias is not None and tuple(bias.shape) != (channels,):
        raise ShapeError(f"{op}: expected bias ({channels},), one number an output channel, got {tuple(bias.shape)}")
    y = correlate_input_gradient(x, weight, geometry, groups)
    if bias is not None:
        y += bias.reshape(-1, *[1] * n)
    return y[0] if unbatched else y


def _input_gradient(
    op: str, n: int, dy: Array, weight: Array, stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any
) -> Array:
    check_floats(op, dy=dy, weight=weight)
    signal, unbatched = batched(op, "dy", dy, n)
    # The size of x: the windows that fit once the extra cells at the end are left out.
    spans = [
        size + 2 * p - d * (k - 1) - 1 - extra
        for size, p, d, k, extra in zip(
            signal.shape[2:], integers(op, "padding", padding, n), integers(op, "dilation", dilation, n, 1), weight.shape[2:],
            integers(op, "output_padding", output_padding, n), strict=True,
        )
    ]
    size = [span // s + 1 for span, s in zip(spans, integers(op, "stride", stride, n, 1), strict=True)]
    geometry = _check(
        op, n, (signal.shape[0], weight.shape[0], *size), weight.shape, stride, padding, output_padding, groups, dilation
    )
    check_signal(op, signal, (signal.shape[0], weight.shape[1] * groups, *geometry.size))
    dx = correlate(signal, weight, None, geometry, groups)
    return dx[0] if unbatched else dx


def _weight_gradient(
    op: str, n: int, input: Array, weight_size: Sequence[int], dy: Array,
    stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any,
) -> Array:
    check_floats(op, input=input, dy=dy)
    (x, _), (signal, _) = batched(op, "input", input, n), batched(op, "dy", dy, n)
    geometry = _check(op, n, x.shape, tuple(weight_size), stride, padding, output_padding, groups, dilation)
    check_signal(op, signal, (x.shape[0], weight_size[1] * groups, *geometry.size))
    return correlate_weight_gradient(signal, x, geometry, groups)


def _check(
    op: str, n: int, size: Sequence[int], weight: Sequence[int],
    stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any,
) -> Geometry:
    """The windows of the convolution whose adjoint this is: its input is our output, its output our input."""
    groups = integer(op, "groups", groups, 1)
    stride, dilation = integers(op, "stride", stride, n, 1), integers(op, "dilation", dilation, n, 1)
    padding = integers(op, "padding", padding, n, 0)
    output_padding = integers(op, "output_padding", output_padding, n, 0)
    if len(weight) != n + 2:
        raise ShapeError(f"{op}: expected weight (in, out/groups, {n} kernel sizes), got {tuple(weight)}")
    if weight[1] < 1 or min(weight[2:]) < 1 or weight[0] < 1 or weight[0] % groups:
        raise ShapeError(f"{op}: expected a number of input channels divisible by groups={groups}, got weight {tuple(weight)}")
    if size[1] != weight[0]:
        raise ShapeError(
            f"{op}: expected input (N, {weight[0]}, …), got {tuple(size)}: {size[1]} "
            f"channel{'s' if size[1] != 1 else ''} where weight {tuple(weight)} has {weight[0]}"
        )
    out = []
    for axis, (s, k) in enumerate(zip(size[2:], weight[2:], strict=True)):
        if output_padding[axis] >= max(stride[axis], dilation[axis]):
            raise ArgumentError(
                f"{op}: expected output_padding smaller than stride {stride} or dilation {dilation}, got {output_padding}"
            )
        out.append((s - 1) * stride[axis] - 2 * padding[axis] + dilation[axis] * (k - 1) + output_padding[axis] + 1)
    if min(out) < 1 or min(size[2:]) < 1:
        raise ShapeError(f"{op}: expected an output of at least one cell, got {tuple(out)} from input {tuple(size)}")
    return Geometry(tuple(out), tuple(weight[2:]), stride, padding, padding, dilation, tuple(size[2:]))
