"""Convolution (correlation, as deep learning calls it) in one, two and three dimensions, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import Array
from ..errors import ShapeError
from ..kernels.correlation import ALGORITHMS as ALGORITHMS
from ..kernels.correlation import correlate, correlate_gradients, correlate_input_gradient, correlate_weight_gradient
from ..kernels.geometry import Geometry
from ..kernels.sums import channel_sums
from ._check import batched, check_floats, check_signal, integer
from ._geometry import conv_geometry

_Ints = int | Sequence[int]


def conv1d(
    input: Array, weight: Array, bias: Array | None = None,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1,
    *, algorithm: str = "auto",
) -> Array:
    """conv2d with one spatial axis. input: (N, C, L) or (C, L). weight: (O, C/groups, k)."""
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups, algorithm)


def conv2d(
    input: Array, weight: Array, bias: Array | None = None,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1,
    *, algorithm: str = "auto",
) -> Array:
    """Slide every filter over the image: y[o, p] = b[o] + Σ_c Σ_k w[o, c, k] · x[c, p·stride + k·dilation − padding].

    input: (N, C, H, W) or (C, H, W). weight: (O, C/groups, kh, kw). bias: (O,) or None. padding: cells of zeros on both sides of
    each axis, or "valid" (none), or "same" (stride 1 only; the odd cell goes to the end). groups: input and output
    channels fall into that many groups which do not see each other. algorithm: how it is computed, for who wants to compare;
    "auto" takes what is fastest for the shapes (kernels/correlation.py). Returns (N, O, H', W') or (O, H', W') with
    H' = ⌊(H + 2·padding − dilation·(kh − 1) − 1) / stride⌋ + 1. Raises ShapeError, ArgumentError or DtypeError.
    """
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups, algorithm)


def conv3d(
    input: Array, weight: Array, bias: Array | None = None,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1,
    *, algorithm: str = "auto",
) -> Array:
    """conv2d with three spatial axes. input: (N, C, D, H, W) or (C, D, H, W). weight: (O, C/groups, kd, kh, kw)."""
    return _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups, algorithm)


def conv_relu(
    n: int, input: Array, weight: Array, bias: Array | None = None,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1, *, algorithm: str = "auto",
) -> Array:
    """relu(conv(input, …)) with n spatial axes; what is below zero never leaves the cache. Arguments as conv2d."""
    return _conv(f"conv{n}d", n, input, weight, bias, stride, padding, dilation, groups, algorithm, relu=True)


def conv_scaled(
    n: int, input: Array, weight: Array, bias: Array | None, scale: Array, relu: bool = False,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1, *, algorithm: str = "auto",
) -> Array:
    """scale · conv(input, weight) + bias with n spatial axes, and ReLU if relu: a convolution and the normalisation behind it.

    scale: (O,), one number a filter. Other arguments as conv2d.
    """
    return _conv(f"conv{n}d", n, input, weight, bias, stride, padding, dilation, groups, algorithm, relu, scale)


def conv1d_input_gradient(
    input_size: Sequence[int], weight: Array, dy: Array,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1,
    *, algorithm: str = "auto",
) -> Array:
    """conv2d_input_gradient with one spatial axis."""
    return _input_gradient("conv1d_input_gradient", 1, input_size, weight, dy, stride, padding, dilation, groups, algorithm)


def conv2d_input_gradient(
    input_size: Sequence[int], weight: Array, dy: Array,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1,
    *, algorithm: str = "auto",
) -> Array:
    """∂ℓ/∂x for conv2d: dx[c, q] = Σ_o Σ_{p, k : p·stride + k·dilation − padding = q} w[o, c, k] · dy[o, p].

    input_size: the shape of x, which the sizes alone do not tell where the stride does not divide. dy: the shape of y.
    Returns that shape. Arguments as torch.nn.grad.conv2d_input.
    """
    return _input_gradient("conv2d_input_gradient", 2, input_size, weight, dy, stride, padding, dilation, groups, algorithm)


def conv3d_input_gradient(
    input_size: Sequence[int], weight: Array, dy: Array,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1,
    *, algorithm: str = "auto",
) -> Array:
    """conv2d_input_gradient with three spatial axes."""
    return _input_gradient("conv3d_input_gradient", 3, input_size, weight, dy, stride, padding, dilation, groups, algorithm)


def conv1d_weight_gradient(
    input: Array, weight_size: Sequence[int], dy: Array,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1,
    *, algorithm: str = "auto",
) -> Array:
    """conv2d_weight_gradient with one spatial axis."""
    return _weight_gradient("conv1d_weight_gradient", 1, input, weight_size, dy, stride, padding, dilation, groups, algorithm)


def conv2d_weight_gradient(
    input: Array, weight_size: Sequence[int], dy: Array,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1,
    *, algorithm: str = "auto",
) -> Array:
    """∂ℓ/∂w for conv2d: dw[o, c, k] = Σ_n Σ_p dy[n, o, p] · x[n, c, p·stride + k·dilation − padding].

    Returns weight_size, (O, C/groups, kh, kw). Arguments as torch.nn.grad.conv2d_weight.
    """
    return _weight_gradient("conv2d_weight_gradient", 2, input, weight_size, dy, stride, padding, dilation, groups, algorithm)


def conv3d_weight_gradient(
    input: Array, weight_size: Sequence[int], dy: Array,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1,
    *, algorithm: str = "auto",
) -> Array:
    """conv2d_weight_gradient with three spatial axes."""
    return _weight_gradient("conv3d_weight_gradient", 3, input, weight_size, dy, stride, padding, dilation, groups, algorithm)


def conv_gradients(
    n: int, input: Array, weight: Array, dy: Array,
    stride: _Ints = 1, padding: _Ints | str = 0, dilation: _Ints = 1, groups: int = 1, *, algorithm: str = "auto",
) -> tuple[Array, Array]:
    """(∂ℓ/∂x, ∂ℓ/∂w) with n spatial axes, sharing what they can. Arguments as conv2d_input_gradient, but the input itself."""
    op = f"conv{n}d_gradients"
    check_floats(op, input=input, weight=weight, dy=dy)
    (x, unbatched), (signal, _) = batched(op, "input", input, n), batched(op, "dy", dy, n)
    geometry = _check(op, n, x.shape, weight.shape, stride, padding, dilation, groups)
    check_signal(op, signal, (x.shape[0], weight.shape[0], *geometry.out))
    dx, dw = correlate_gradients(x, weight, signal, geometry, groups, algorithm)
    return dx[0] if unbatched else dx, dw


def conv_bias_gradient(dy: Array, unbatched: bool = False) -> Array:
    """∂ℓ/∂b for every convolution, transposed or not: dy (N, O, …) summed over all but O. dy is (O, …) if unbatched."""
    check_floats("conv_bias_gradient", dy=dy)
    return channel_sums(dy[None] if unbatched else dy)


def _conv(
    op: str, n: int, input: Array, weight: Array, bias: Array | None, stride: Any, padding: Any, dilation: Any, groups: int,
    algorithm: str, relu: bool = False, scale: Array | None = None,
) -> Array:
    check_floats(op, input=input, weight=weight, bias=bias, scale=scale)
    x, unbatched = batched(op, "input", input, n)
    geometry = _check(op, n, x.shape, weight.shape, stride, padding, dilation, groups)
    for name, vector in (("bias", bias), ("scale", scale)):
        if vector is not None and tuple(vector.shape) != (weight.shape[0],):
            raise ShapeError(f"{op}: expected {name} ({weight.shape[0]},), one number a filter, got {tuple(vector.shape)}")
    y = correlate(x, weight, bias, geometry, groups, algorithm, relu, scale)
    return y[0] if unbatched else y


def _input_gradient(
    op: str, n: int, input_size: Sequence[int], weight: Array, dy: Array, stride: Any, padding: Any, dilation: Any, groups: int,
    algorithm: str,
) -> Array:
    check_floats(op, weight=weight, dy=dy)
    signal, unbatched = batched(op, "dy", dy, n)
    size = (1, *input_size) if unbatched else tuple(input_size)
    geometry = _check(op, n, size, weight.shape, stride, padding, dilation, groups)
    check_signal(op, signal, (size[0], weight.shape[0], *geometry.out))
    dx = correlate_input_gradient(signal, weight, geometry, groups, algorithm)
    return dx[0] if unbatched else dx


def _weight_gradient(
    op: str, n: int, input: Array, weight_size: Sequence[int], dy: Array, stride: Any, padding: Any, dilation: Any, groups: int,
    algorithm: str,
) -> Array:
    check_floats(op, input=input, dy=dy)
    (x, _), (signal, _) = batched(op, "input", input, n), batched(op, "dy", dy, n)
    geometry = _check(op, n, x.shape, tuple(weight_size), stride, padding, dilation, groups)
    check_signal(op, signal, (x.shape[0], weight_size[0], *geometry.out))
    return correlate_weight_gradient(x, signal, geometry, groups, algorithm)


def _check(
    op: str, n: int, size: Sequence[int], weight: Sequence[int], stride: Any, padding: Any, dilation: Any, groups: int
) -> Geometry:
    """Check that input sizes (N, C, …) and weight sizes (O, C/groups, …) fit, and lay out the windows."""
    groups = integer(op, "groups", groups, 1)
    if len(size) != n + 2:
        raise ShapeError(f"{op}: expected {n + 2} input sizes (N, C, …), got {tuple(size)}")
    if len(weight) != n + 2:
        raise ShapeError(f"{op}: expected weight (out, in/groups, {n} kernel sizes), got {tuple(weight)}")
    if weight[0] < 1 or weight[0] % groups:
        raise ShapeError(f"{op}: expected a number of filters divisible by groups={groups}, got weight {tuple(weight)}")
    if size[1] != weight[1] * groups:
        axes = ", ".join(["D", "H", "W"][3 - n :])
        raise ShapeError(
            f"{op}: expected input (N, {weight[1] * groups}, {axes}), got {tuple(size)}: {size[1]} "
            f"channel{'s' if size[1] != 1 else ''} where weight {tuple(weight)}"
            + (f" with groups={groups} takes {weight[1] * groups}" if groups > 1 else f" has {weight[1]}")
        )
    if size[1] < 1 or (size[0] > 0 and min(size[2:]) < 1):     # of no samples any size will do, as in PyTorch
        raise ShapeError(f"{op}: expected channels and sizes of at least one, got input {tuple(size)}")
    return conv_geometry(op, size[2:], weight[2:], stride, padding, dilation)
