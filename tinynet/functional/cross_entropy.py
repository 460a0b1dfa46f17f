"""Cross-entropy on logits, negative log-likelihood on log-probabilities, and their gradients.

Both are one formula. With q_c what class c weighs in the target (its class weight times the probability that the
target gives it; one class has all of it where targets are class numbers), the loss of one prediction is

    ℓ = −Σ_c q_c · log p_c,    ∂ℓ/∂log p_c = −q_c,    and for p = softmax(logits):    ∂ℓ/∂logits_c = p_c · Σ_j q_j − q_c,

which is the p − y of the textbooks where the weights are one and y is the target.
"""

from __future__ import annotations

from typing import Any

from ..backend import Array, array_module
from ..errors import ArgumentError, DtypeError, ShapeError
from ..kernels import cuda
from ..kernels.cuda.cross_entropy import cross_entropy as fused_cross_entropy
from ._check import check_floats, choice
from ._reduction import REDUCTIONS, divided, divisor, reduced, through
from .softmax import below_largest, log_softmax, sums


def cross_entropy(
    input: Array, target: Array, weight: Array | None = None, *,
    ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Array:
    """−Σ_c q_c log softmax(input)_c for every prediction, q_c the weight of class c times its probability in the target.

    input: logits (N, C), (N, C, d₁, …) or (C,). target: class numbers (N,), (N, d₁, …) or (), int64 or uint8; or
    class probabilities of input's shape and dtype. weight: (C,) or None. ignore_index: class numbers that count nowhere.
    "mean" divides the sum by that of the class weights of the targets; with class probabilities, by the number of predictions.
    label_smoothing ε: the target becomes (1 − ε)·target + ε/C (Szegedy et al. 2016, section 7). Returns a scalar, or an array
    like the class numbers for "none".
    A class number that is none raises ArgumentError; on a GPU, which would have to be waited for, it makes the loss NaN.
    """
    op = "cross_entropy"
    if _fused(op, input, target, weight, ignore_index, reduction, label_smoothing):
        options: Any = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
        return fused_cross_entropy(input, target, weight, gradient=False, **options)[0]
    if _single(input, target, label_smoothing):
        return _of_class_numbers(op, input, target, weight, ignore_index, reduction, gradient=False)[0]
    q, normaliser, along = _target_weights(op, input, target, weight, ignore_index, reduction, label_smoothing)
    return reduced(_minus_product(log_softmax(input, along), q, along, exact=_same(input, target)), normaliser, reduction)


def cross_entropy_input_gradient(
    input: Array, target: Array, weight: Array | None = None, *,
    ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0, dy: Array | None = None,
) -> Array:
    """∂ℓ/∂logits for cross_entropy: softmax(input)_c · Σ_j q_j − q_c, for "mean" divided as the loss is: by N where every
    prediction weighs 1. dy: what arrives at the loss; None means 1. Returns input's shape.
    """
    op = "cross_entropy_input_gradient"
    if _fused(op, input, target, weight, ignore_index, reduction, label_smoothing):
        options: Any = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
        dx = fused_cross_entropy(input, target, weight, value=False, **options)[1]
        return through(op, dx, reduction, dy, 0 if input.ndim == 1 else 1)
    if _single(input, target, label_smoothing):
        dx = _of_class_numbers(op, input, target, weight, ignore_index, reduction)[1]
        return through(op, dx, reduction, dy, 0 if input.ndim == 1 else 1)
    q, normaliser, along = _target_weights(op, input, target, weight, ignore_index, reduction, label_smoothing)
    return through(op, divided(_minus_target(log_softmax(input, along), q, along), normaliser, reduction), reduction, dy, along)


def cross_entropy_and_gradient(
    input: Array, target: Array, weight: Array | None = None, *,
    ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0,
) -> tuple[Array, Array]:
    """cross_entropy and its input gradient, with one softmax for both. For reduction "none" the gradient is of the sum."""
    op = "cross_entropy"
    if _fused(op, input, target, weight, ignore_index, reduction, label_smoothing):
        return fused_cross_entropy(
            input, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
        )
    if _single(input, target, label_smoothing):
        return _of_class_numbers(op, input, target, weight, ignore_index, reduction)
    q, normaliser, along = _target_weights(op, input, target, weight, ignore_index, reduction, label_smoothing)
    log_p = log_softmax(input, along)
    value = reduced(_minus_product(log_p, q, along, exact=_same(input, target)), normaliser, reduction)
    return value, divided(_minus_target(log_p, q, along), normaliser, reduction)


def nll_loss(
    input: Array, target: Array, weight: Array | None = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    """−w_t · input_t for target class t: cross_entropy for an input that is log-probabilities already. Arguments as there."""
    if _fused("nll_loss", input, target, weight, ignore_index, reduction, None):
        options: Any = {"ignore_index": ignore_index, "reduction": reduction}
        return fused_cross_entropy(input, target, weight, gradient=False, logits=False, **options)[0]
    q, normaliser, along = _target_weights("nll_loss", input, target, weight, ignore_index, reduction, None)
    return reduced(_minus_product(input, q, along, exact=False), normaliser, reduction)


def nll_loss_input_gradient(
    input: Array, target: Array, weight: Array | None = None, *,
    ignore_index: int = -100, reduction: str = "mean", dy: Array | None = None,
) -> Array:
    """∂ℓ/∂input for nll_loss: −w_t at the target class, for "mean" over Σ w_t; 0 elsewhere. dy: what arrives at the
    loss; None means 1.
    """
    op = "nll_loss_input_gradient"
    if _fused(op, input, target, weight, ignore_index, reduction, None):
        options: Any = {"ignore_index": ignore_index, "reduction": reduction}
        dx = fused_cross_entropy(input, target, weight, value=False, logits=False, **options)[1]
        return through(op, dx, reduction, dy, 0 if input.ndim == 1 else 1)
    q, normaliser, along = _target_weights(op, input, target, weight, ignore_index, reduction, None)
    return through(op, divided(-q, normaliser, reduction), reduction, dy, along)


def _same(input: Array, target: Array) -> bool:
    """Whether the target is class probabilities."""
    return target.dtype == input.dtype


def _fused(
    op: str, input: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str,
    smoothing: float | None,
) -> bool:
    """Whether the arguments, which are checked, are for the kernel of a GPU."""
    check_floats(op, input=input)
    if not cuda.here(input) or str(getattr(target, "dtype", "float")).startswith("float"):
        return False
    _check_target(op, input, target, weight, ignore_index, reduction, smoothing)
    return input.size > 0


def _check_target(
    op: str, input: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str, smoothing: float | None
) -> tuple[int, bool]:
    """The class axis, and whether the target is class probabilities; dtypes and shapes are checked, class numbers not."""
    check_floats(op, input=input, weight=weight)
    choice(op, "reduction", reduction, REDUCTIONS)
    if not hasattr(target, "dtype") or not hasattr(target, "shape"):
        raise DtypeError(f"{op}: expected target to be an array, got {type(target).__name__}")
    array_module(input, target)
    if input.ndim < 1:
        raise ShapeError(f"{op}: expected input (C,), (N, C) or (N, C, d1, …), got {tuple(input.shape)}")
    along = 0 if input.ndim == 1 else 1
    classes = input.shape[along]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ShapeError(f"{op}: expected weight ({classes},), one number a class, got {tuple(weight.shape)}")
    if smoothing is not None and not 0 <= smoothing <= 1:
        raise ArgumentError(f"{op}: expected label_smoothing from 0 to 1, got {smoothing}")
    expected = (*input.shape[:along], *input.shape[along + 1 :])
    if smoothing is not None and str(target.dtype).startswith("float"):
        if tuple(target.shape) != tuple(input.shape):
            raise ShapeError(
                f"{op}: expected class numbers, integers {expected}, or class probabilities, {input.dtype} {tuple(input.shape)}, "
                f"got {target.dtype} {tuple(target.shape)}; for numbers target.astype(numpy.int64)"
            )
        check_floats(op, input=input, target=target)
        if ignore_index >= 0:
            raise ArgumentError(f"{op}: expected no ignore_index with class probabilities, got {ignore_index}")
        return along, True
    if classes < 1 and input.ndim > 2:
        raise ShapeError(f"{op}: expected at least one class, got input {tuple(input.shape)}")
    if str(target.dtype) not in ("int64", "uint8"):
        raise DtypeError(f"{op}: expected class numbers of int64 or uint8, got {target.dtype}; target.astype(numpy.int64)")
    if tuple(target.shape) != expected:
        raise ShapeError(f"{op}: expected target {expected} for input {tuple(input.shape)}, got {tuple(target.shape)}")
    return along, False


def _target_weights(
    op: str, input: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str, smoothing: float | None
) -> tuple[Array, Any, int]:
    """q of input's shape, what "mean" divides by, and the class axis. smoothing None: an op that takes class numbers only."""
    along, probabilities = _check_target(op, input, target, weight, ignore_index, reduction, smoothing)
    xp, classes = array_module(input), input.shape[along]
    vector = None if weight is None else weight.reshape(-1, *[1] * (input.ndim - along - 1))    # (C, 1, …)
    if probabilities:
        q = target * (1 - smoothing) + smoothing / max(classes, 1) if smoothing else target
        normaliser = input.size // max(classes, 1)
        return (q if vector is None else q * vector), normaliser, along
    counted = _counted(op, target, ignore_index, classes)
    number = xp.arange(classes).reshape(-1, *[1] * (input.ndim - along - 1))                    # (C, 1, …)
    hit = (xp.expand_dims(target, along) == number) & xp.expand_dims(counted, along)            # one-hot, input's shape
    one = hit.astype(input.dtype)
    q = one if vector is None else one * vector
    normaliser = q.sum()
    if reduction == "mean" and normaliser == 0:                     # a mean over no weight: as PyTorch, NaN for what counts
        q = xp.where(hit, xp.full((), float("nan"), dtype=q.dtype), q)
    if smoothing:
        even = xp.expand_dims(counted, along) * xp.full((), smoothing / max(classes, 1), dtype=input.dtype)
        q = q * (1 - smoothing) + (even if vector is None else even * vector)
    return q, normaliser, along


def _counted(op: str, target: Array, ignore_index: int, classes: int) -> Array:
    """Which class numbers count. Raises ArgumentError if one of these is none."""
    counted = target != ignore_index
    if bool((((target < 0) | (target >= classes)) & counted).any()):
        raise ArgumentError(
            f"{op}: expected targets from 0 to {classes - 1}, got {int(target.min())} to {int(target.max())}"
        )
    return counted


def _single(input: Array, target: Array, smoothing: float) -> bool:
    """Whether one class has all of each target: then q is no array of input's shape, but one number a prediction."""
    return not smoothing and getattr(input, "size", 0) > 0 and str(getattr(target, "dtype", "float")) in ("int64", "uint8")


def _of_class_numbers(
    op: str, input: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str, gradient: bool = True
) -> tuple[Array, Array]:
    """The loss and its gradient where q_c is w for the target class and 0 for the others; without gradient just anything for it.

    With e_c = exp(x_c − max x): log p_t = (x_t − max x) − log Σ e, and the gradient is e_c · (w / Σ e), less w at the target.
    """
    along = _check_target(op, input, target, weight, ignore_index, reduction, 0.0)[0]
    xp = array_module(input)
    counted = _counted(op, target, ignore_index, input.shape[along])
    index = xp.where(counted, target, xp.zeros((), dtype=target.dtype))
    w = counted.astype(input.dtype) if weight is None else weight[index] * counted              # like the class numbers
    normaliser = w.sum()
    if reduction == "mean" and normaliser == 0:                     # a mean over no weight: as PyTorch, NaN for what counts
        w = xp.where(counted, xp.full((), float("nan"), dtype=w.dtype), w)
    index, column = xp.expand_dims(index, along), xp.expand_dims(w, along)
    e = below_largest(input, along)
    log_p = xp.take_along_axis(e, index, axis=along)
    xp.exp(e, out=e)
    total = sums(e, along)
    log_p -= xp.log(total)
    log_p = xp.where(column == 0, xp.zeros((), dtype=w.dtype), log_p)   # what does not count adds nothing, even where it is −∞
    value = reduced(-w * log_p.reshape(w.shape), normaliser, reduction)
    if gradient:
        if reduction == "mean":
            column = column / divisor(normaliser, 1)
        e *= column / total
        xp.put_along_axis(e, index, xp.take_along_axis(e, index, axis=along) - column, axis=along)
    return value, e


def _minus_product(log_p: Array, q: Array, along: int, exact: bool) -> Array:
    """−Σ_c q_c log p_c. For class numbers (not exact) a class that counts nothing adds nothing, even where its log p is −∞."""
    if not exact:
        xp = array_module(log_p)
        log_p = xp.where(q == 0, xp.zeros((), dtype=q.dtype), log_p)
    return -(q * log_p).sum(axis=along)


def _minus_target(log_p: Array, q: Array, along: int) -> Array:
    """p_c · Σ_j q_j − q_c."""
    dx = array_module(log_p).exp(log_p)
    dx *= q.sum(axis=along, keepdims=True)
    dx -= q
    return dx
