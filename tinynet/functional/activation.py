"""Elementwise activations and their gradients.

A gradient takes what is cheapest to keep: the output where that tells enough (relu, relu6, sigmoid, tanh), otherwise the input.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array
from ..kernels.blocks import in_blocks
from ..kernels.masking import keep_positive, rectify
from ._check import check_floats, same_shape


def relu(input: Array, inplace: bool = False) -> Array:
    """max(x, 0), elementwise; NaN stays NaN. inplace: write into input."""
    check_floats("relu", input=input)
    return rectify(input, out=input if inplace else None)


def relu_input_gradient(dy: Array, output: Array) -> Array:
    """∂ℓ/∂x for relu: dy where y > 0, otherwise 0 (at x = 0 too, as PyTorch). dy, output: one shape."""
    check_floats("relu_input_gradient", dy=dy, output=output)
    same_shape("relu_input_gradient", output=output, dy=dy)
    # Not dy · [y > 0]: an infinite dy times 0 would be NaN. And not y <= 0: a NaN lets the signal through, as in PyTorch.
    return keep_positive(dy, output)


def relu6(input: Array, inplace: bool = False) -> Array:
    """min(max(x, 0), 6), elementwise; NaN stays NaN (Howard et al. 2017; Sandler et al. 2018). inplace: write into input."""
    xp = check_floats("relu6", input=input)
    return xp.clip(input, 0, 6, out=input if inplace else None)


def relu6_input_gradient(dy: Array, output: Array) -> Array:
    """∂ℓ/∂x for relu6: dy where 0 < y < 6, otherwise 0 (at x = 0 and x = 6 too, as PyTorch). dy, output: one shape.

    At NaN it is 0, as in the vectorised part of PyTorch's loop; the rest of that loop says dy.
    """
    xp = check_floats("relu6_input_gradient", dy=dy, output=output)
    same_shape("relu6_input_gradient", output=output, dy=dy)
    return xp.where((output > 0) & (output < 6), dy, xp.zeros((), dtype=dy.dtype))


def leaky_relu(input: Array, negative_slope: float = 0.01, inplace: bool = False) -> Array:
    """x where x > 0, otherwise negative_slope · x (Maas, Hannun & Ng 2013). inplace: write into input."""
    xp = check_floats("leaky_relu", input=input)
    if 0 < negative_slope <= 1:                                 # the larger of the two, without a branch
        return xp.maximum(input, input * input.dtype.type(negative_slope), out=input if inplace else None)
    y = xp.where(input > 0, input, input * input.dtype.type(negative_slope))
    if inplace:
        input[...] = y
        return input
    return y


def leaky_relu_input_gradient(dy: Array, input: Array, negative_slope: float = 0.01) -> Array:
    """∂ℓ/∂x for leaky_relu: dy where x > 0, otherwise negative_slope · dy. dy, input: one shape."""
    xp = check_floats("leaky_relu_input_gradient", dy=dy, input=input)
    same_shape("leaky_relu_input_gradient", input=input, dy=dy)
    return xp.where(input > 0, dy, dy * dy.dtype.type(negative_slope))


def sigmoid(input: Array) -> Array:
    """1 / (1 + e⁻ˣ), elementwise. Where e⁻ˣ overflows, to infinity, the result is 0, as it should be."""
    xp = check_floats("sigmoid", input=input)
    y = xp.empty(input.shape, dtype=input.dtype)
    with np.errstate(over="ignore"):
        for part, target in in_blocks([input, y]):
            xp.negative(part, out=target)
            xp.exp(target, out=target)
            xp.add(target, 1, out=target)
            xp.divide(1, target, out=target)
    return y


def sigmoid_input_gradient(dy: Array, output: Array) -> Array:
    """∂ℓ/∂x for sigmoid: dy · y (1 − y). dy, output: one shape."""
    check_floats("sigmoid_input_gradient", dy=dy, output=output)
    same_shape("sigmoid_input_gradient", output=output, dy=dy)
    return dy * (output * (1 - output))


def tanh(input: Array) -> Array:
    """The hyperbolic tangent, elementwise."""
    return check_floats("tanh", input=input).tanh(input)


def tanh_input_gradient(dy: Array, output: Array) -> Array:
    """∂ℓ/∂x for tanh: dy · (1 − y²). dy, output: one shape."""
    check_floats("tanh_input_gradient", dy=dy, output=output)
    same_shape("tanh_input_gradient", output=output, dy=dy)
    return dy * (1 - output * output)
