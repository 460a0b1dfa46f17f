"""Gradient clipping, in place on a dict name -> gradient, as torch.nn.utils.clip_grad_norm_ and clip_grad_value_.

A gradient may be a Product (kernels.factors), which is not computed. Its 2-norm follows from its factors; any other is taken of a
few rows at a time, and so is that of float64, of many samples, or where numbers might overflow. To scale it, its dy is scaled.
Only to be clipped value by value, or by a norm that is not finite, it is written, and takes its place in the dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..errors import ArgumentError, TinynetError
from ..kernels.blocks import Each, in_blocks, in_turn, worth
from ..kernels.factors import Product, arrays_of

_EPSILON = 1e-6  # PyTorch's: keeps max_norm / norm finite when every gradient is zero
_SILENT: Any = {"over": "ignore", "invalid": "ignore"}  # exploded gradients are for the caller to judge


def total_norm(gradients: Mapping[str, Array | Product | None], norm_type: float = 2.0, *, each: Each = in_turn) -> Any:
    """The norm of all gradients together, as if they were one long vector: (Σ |g|^p)^(1/p), max |g| for p = inf.

    each: how the work is shared out, `Shards.each` for one; the result is the same to the bit. Returns a scalar on the gradients'
    device (no host synchronisation); 0.0 if there are none.
    """
    found = [gradient for gradient in gradients.values() if gradient is not None]
    if not found:
        return 0.0
    xp = array_module(*(array for gradient in found for array in arrays_of(gradient)))
    with np.errstate(**_SILENT):
        pieces = [(number, norm) for number, gradient in enumerate(found) for norm in _norms(xp, gradient, norm_type)]
        norms = worth(each, found)(lambda piece: xp.asarray(piece[1]()), pieces)
        parts: list[list[Any]] = [[] for _ in found]
        for (number, _), norm in zip(pieces, norms, strict=True):
            parts[number].append(norm)
        # The norm of the norms is the norm of the whole; but p = 0 counts, what is not 0 in an array and then such arrays.
        whole = [p[0] if len(p) == 1 else sum(p) if norm_type == 0 else _norm(xp, xp.stack(p), norm_type) for p in parts]
        return _norm(xp, xp.stack(whole), norm_type)


def clip_grad_norm(
    gradients: MutableMapping[str, Any],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    *,
    each: Each = in_turn,
) -> Any:
    """Scale all gradients in place by min(1, max_norm / (norm + 1e-6)); return the norm they had before.

    Raises TinynetError if error_if_nonfinite and the norm is nan or inf (that looks at the number, so a GPU is waited
    for); otherwise gradients of a non-finite norm are scaled by it as they are, which PyTorch does too. each: see total_norm.
    """
    norm = total_norm(gradients, norm_type, each=each)
    if any(isinstance(gradient, Product) for gradient in gradients.values()) and not math.isfinite(norm):
        gradients = _written(gradients, each)                   # 0 · inf is nan in an array, and would be 0 in factors
    if error_if_nonfinite and not math.isfinite(norm):
        raise TinynetError(f"the total norm (order {norm_type}) of the gradients is {float(norm)}: cannot clip to it")
    found = [gradient for gradient in gradients.values() if gradient is not None]
    if found:
        xp = array_module(*(array for gradient in found for array in arrays_of(gradient)))
        with np.errstate(**_SILENT):
            factor = xp.minimum(float(max_norm) / (norm + _EPSILON), 1.0)
            if xp is not np or factor != 1:  # a GPU multiplies by 1, too: asking would wait
                for gradient in found:
                    if isinstance(gradient, Product):
                        gradient.scale(factor)
                arrays = [gradient for gradient in found if not isinstance(gradient, Product)]
                _in_place(arrays, each, lambda x: xp.multiply(x, factor.astype(x.dtype), out=x))
    return norm


def clip_grad_value(gradients: MutableMapping[str, Any], clip_value: float, *, each: Each = in_turn) -> None:
    """Clip every element of every gradient to [−clip_value, clip_value], in place. each: see total_norm.

    A Product among the gradients is written, and the dict has the array from then on.
    """
    clip_value = float(clip_value)
    _written(gradients, each)

    def clip(x: Array) -> None:
        xp = array_module(x)
        xp.maximum(x, -clip_value, out=x)
        xp.minimum(x, clip_value, out=x)

    _in_place([gradient for gradient in gradients.values() if gradient is not None], each, clip)


def _written(gradients: MutableMapping[str, Any], each: Each) -> MutableMapping[str, Any]:
    """Products in the dict become arrays."""
    for name, gradient in gradients.items():
        if isinstance(gradient, Product):
            gradients[name] = gradient.value(each)              # no name comes or goes
    return gradients


def _in_place(arrays: Sequence[Array], each: Each, change: Callable[[Array], Any]) -> None:
    """Change every array, block by block."""
    worth(each, arrays)(change, [block for array in arrays for (block,) in in_blocks([array])])


def _norms(xp: Any, gradient: Array | Product, p: float) -> list[Callable[[], Any]]:
    """The pieces of work that give the p-norms of a gradient's parts."""
    if isinstance(gradient, Product):
        if p == 2 and gradient.norm_follows:
            return [gradient.norm]
        if xp is np:
            return [partial(_norm_of_rows, gradient, part, p) for part in gradient.parts()]
        gradient = gradient.value()
    return [partial(_norm, xp, block.reshape(-1), p) for (block,) in in_blocks([gradient])]


def _norm_of_rows(product: Product, part: slice, p: float) -> Any:
    return _norm(np, product.rows(part).reshape(-1), p)


def _norm(xp: Any, flat: Array, p: float) -> Any:
    """The p-norm of a vector (n,)."""
    p = float(p)
    if math.isnan(p):
        raise ArgumentError("expected a number or inf as norm_type, got nan")
    if math.isinf(p) and flat.size == 0:
        return xp.zeros((), flat.dtype)  # no element: nothing to take the largest of
    if p == 2:
        return xp.sqrt(xp.dot(flat, flat))
    magnitudes = xp.abs(flat)
    if math.isinf(p):
        return magnitudes.max() if p > 0 else magnitudes.min()
    if p == 0:
        return xp.sum(magnitudes != 0).astype(flat.dtype)
    return xp.sum(magnitudes**p) ** (1 / p)
