"""Softmax and its logarithm, and their gradients: the full Jacobian products."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..errors import DtypeError, ShapeError
from ._check import axis, check_floats, check_signal, same_shape


def softmax(input: Array, dim: int | None = None, dtype: Any = None) -> Array:
    """e^{x_i} / Σ_j e^{x_j} along axis dim; the largest x is subtracted first, so nothing overflows.

    dtype: the input is converted to it first, on request. dim None is PyTorch's old guess, with its warning. Returns
    input's shape.
    """
    x, along = _prepare("softmax", input, dim, dtype)
    xp = check_floats("softmax", input=x)
    if x.size == 0:
        return x.copy()
    e = below_largest(x, along)
    xp.exp(e, out=e)
    e /= sums(e, along)
    return e


def log_softmax(input: Array, dim: int | None = None, dtype: Any = None) -> Array:
    """x_i − log Σ_j e^{x_j} along axis dim, stable. Arguments as softmax."""
    x, along = _prepare("log_softmax", input, dim, dtype)
    xp = check_floats("log_softmax", input=x)
    if x.size == 0:
        return x.copy()
    shifted = below_largest(x, along)
    shifted -= xp.log(sums(xp.exp(shifted), along))
    return shifted


def group_logsumexp(input: Array, groups: Sequence[Sequence[int]]) -> Array:
    """y_g = log Σ_{k in group g} e^{x_k}: the logits of unions of classes, so that softmax(y)_g = Σ_{k in g} softmax(x)_k.

    input: (N, K). groups: of each result the columns it unites, every column in one group. Returns (N, len(groups)).
    """
    xp = check_floats("group_logsumexp", input=input)
    _check_groups("group_logsumexp", input, groups)
    parts = []
    for group in groups:
        x = input[:, list(group)]
        largest = x.max(axis=1, keepdims=True)
        parts.append(largest + xp.log(xp.exp(x - largest).sum(axis=1, keepdims=True)))
    return xp.concatenate(parts, axis=1)


def group_logsumexp_input_gradient(dy: Array, input: Array, output: Array, groups: Sequence[Sequence[int]]) -> Array:
    """∂ℓ/∂x for group_logsumexp: dx_k = dy_g · e^{x_k − y_g}, each column's share of its group. Returns input's shape."""
    xp = check_floats("group_logsumexp_input_gradient", dy=dy, input=input, output=output)
    _check_groups("group_logsumexp_input_gradient", input, groups)
    same_shape("group_logsumexp_input_gradient", output=output, dy=dy)
    check_signal("group_logsumexp_input_gradient", dy, (len(input), len(groups)))
    dx = xp.empty_like(input)
    for g, group in enumerate(groups):
        columns = list(group)
        dx[:, columns] = dy[:, g : g + 1] * xp.exp(input[:, columns] - output[:, g : g + 1])
    return dx


def _check_groups(op: str, input: Array, groups: Sequence[Sequence[int]]) -> None:
    columns = sorted(column for group in groups for column in group)
    if input.ndim != 2 or columns != list(range(input.shape[1])) or not all(groups):
        raise ShapeError(f"{op}: expected input (N, K) and groups that share its K columns, got {tuple(input.shape)}, {groups}")


def softmax_input_gradient(dy: Array, output: Array, dim: int) -> Array:
    """∂ℓ/∂x for softmax: Jᵀ dy with J = diag(y) − y yᵀ, that is dx_i = y_i (dy_i − Σ_j dy_j y_j). dy, output: one shape."""
    check_floats("softmax_input_gradient", dy=dy, output=output)
    same_shape("softmax_input_gradient", output=output, dy=dy)
    along = _sum_axis(output, axis("softmax_input_gradient", "dim", dim, output.ndim))
    dx = dy * output
    dx -= output * sums(dx, along)
    return dx


def log_softmax_input_gradient(dy: Array, output: Array, dim: int) -> Array:
    """∂ℓ/∂x for log_softmax: dx_i = dy_i − e^{y_i} Σ_j dy_j. dy, output: one shape."""
    xp = check_floats("log_softmax_input_gradient", dy=dy, output=output)
    same_shape("log_softmax_input_gradient", output=output, dy=dy)
    along = _sum_axis(output, axis("log_softmax_input_gradient", "dim", dim, output.ndim))
    return dy - xp.exp(output) * dy.sum(axis=along, keepdims=True)


def _prepare(op: str, input: Array, dim: int | None, dtype: Any) -> tuple[Array, Any]:
    if dtype is not None:
        if not hasattr(input, "astype"):
            check_floats(op, input=input)
        input = input.astype(dtype)
    check_floats(op, input=input)
    if dim is None:
        warnings.warn(f"{op}: dim is not given and guessed from the number of axes; pass dim=", stacklevel=3)
        dim = 0 if input.ndim in (0, 1, 3) else 1
    if isinstance(dim, bool):
        raise DtypeError(f"{op}: expected dim to be an integer, got {dim}")
    return input, _sum_axis(input, axis(op, "dim", dim, input.ndim))


def _sum_axis(x: Array, along: int) -> Any:
    return along if x.ndim else ()                              # a scalar has no axis to sum over


def below_largest(x: Array, along: Any) -> Array:
    """x − the largest x along the axis, a new array; where that is +∞ (or NaN) the result is NaN anyway, and quietly so."""
    xp, largest = array_module(x), x.max(axis=along, keepdims=True)
    largest = xp.where(xp.isinf(largest), xp.full((), float("nan"), dtype=x.dtype), largest)
    return xp.subtract(x, largest, out=xp.empty(x.shape, dtype=x.dtype))


def sums(x: Array, along: Any) -> Array:
    """Σ x along the axis, which stays. Of rows on a CPU as a product with ones, which takes a third of the time."""
    if array_module(x) is np and x.ndim == 2 and along == 1:
        return np.matmul(x, np.ones((x.shape[1], 1), x.dtype))
    return x.sum(axis=along, keepdims=True)
