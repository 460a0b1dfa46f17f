"""Affine map y = x Wᵀ + b and its gradients."""

from __future__ import annotations

from math import prod

from ..backend import Array
from ..errors import ShapeError
from ..kernels import linear as kernel
from ._check import check_floats, check_signal


def linear(input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Apply an affine map to the last axis: y_o = b_o + Σ_i W_oi x_i.

    input: (..., in_features). weight: (out_features, in_features), or (in_features,) for one output without an axis of its own.
    bias: (out_features,) or None. Returns (..., out_features). Raises ShapeError if the features differ.
    """
    check_floats("linear", input=input, weight=weight, bias=bias)
    if weight.ndim not in (1, 2):
        raise ShapeError(f"linear: expected weight (out_features, in_features), got {tuple(weight.shape)}")
    if input.ndim < 1 or input.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            f"linear: expected input (..., {weight.shape[-1]}), got {tuple(input.shape)}, for weight {tuple(weight.shape)}"
        )
    if bias is not None and tuple(bias.shape) != tuple(weight.shape[:-1]):
        raise ShapeError(f"linear: expected bias {tuple(weight.shape[:-1])}, got {tuple(bias.shape)}")
    if bias is not None and weight.ndim == 1 and input.ndim == 2:         # as PyTorch
        raise ShapeError(f"linear: expected no bias with weight {tuple(weight.shape)} and input {tuple(input.shape)}")
    y = kernel.forward(input, weight)                           # (..., out)
    if bias is not None:
        y += bias
    return y


def linear_input_gradient(dy: Array, weight: Array) -> Array:
    """∂ℓ/∂x for linear: dx_i = Σ_o dy_o W_oi. dy: (..., out_features). Returns (..., in_features)."""
    check_floats("linear_input_gradient", dy=dy, weight=weight)
    if weight.ndim == 1:
        return dy[..., None] * weight
    if dy.ndim < 1 or dy.shape[-1] != weight.shape[0]:
        raise ShapeError(f"linear_input_gradient: expected dy (..., {weight.shape[0]}), got {tuple(dy.shape)}")
    return kernel.input_gradient(dy, weight)


def linear_weight_gradient(dy: Array, input: Array) -> Array:
    """∂ℓ/∂W = Σ_n dy_n x_nᵀ, summed over every leading axis.

    dy: (..., out_features), or (...) for a weight of one axis. input: (..., in_features). Returns the shape of the weight.
    """
    check_floats("linear_weight_gradient", dy=dy, input=input)
    leading = tuple(input.shape[:-1])
    one_output = dy.ndim == len(leading)
    check_signal("linear_weight_gradient", dy, leading if one_output else (*leading, *dy.shape[-1:]))
    x = input.reshape(prod(leading), input.shape[-1])           # (n, in)
    if one_output:
        return dy.reshape(-1) @ x
    return kernel.weight_gradient(dy.reshape(prod(leading), dy.shape[-1]), x)  # (out, in)


def linear_bias_gradient(dy: Array) -> Array:
    """∂ℓ/∂b = Σ_n dy_n, summed over every leading axis. dy: (..., out_features). Returns (out_features,)."""
    check_floats("linear_bias_gradient", dy=dy)
    return dy.sum(axis=tuple(range(dy.ndim - 1)))
