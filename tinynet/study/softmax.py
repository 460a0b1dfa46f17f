"""A softmax on features that stay as they are: multinomial logistic regression, by L-BFGS."""

from __future__ import annotations

import numpy as np

from ..functional import log_softmax

DECAY = 1e-5
"""Of the weights, for features of mean square length 1. (With 1e-3 a hundred classes are underfitted by a third.)"""
_MEMORY = 6                                                    # pairs of steps and changes of the gradient


def classify(x: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int, decay: float = DECAY) -> np.ndarray:
    """The classes (M,) that a softmax trained on x (N, D), labels (N,) says of test (M, D).

    Features are centred and scaled together, so that the mean square of their length is 1; in x's dtype.
    """
    mean = x.mean(axis=0, dtype=np.float64).astype(x.dtype)
    x, test = x - mean, test - mean
    scale = x.dtype.type(np.sqrt((x**2).sum(axis=1).mean()) or 1.0)
    x, test = x / scale, test / scale
    if x.shape[1] > len(x):                                     # the best weights lie in the span of the N photos
        wide = x.astype(np.float64)
        values, vectors = np.linalg.eigh(wide @ wide.T)
        keep = values > values.max() * 1e-10
        basis = (wide.T @ (vectors[:, keep] / np.sqrt(values[keep]))).astype(x.dtype)    # (D, r), orthonormal
        x, test = x @ basis, test @ basis
    weight, bias = fit_softmax(x, labels, classes, decay)
    answer: np.ndarray = (test @ weight + bias).argmax(axis=1)
    return answer


def fit_softmax(
    x: np.ndarray, labels: np.ndarray, classes: int, decay: float = DECAY, steps: int = 1000, tolerance: float = 3e-5
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D, C) and bias (C,) of least mean cross-entropy + decay/2 · ‖W‖², in x's dtype.

    Ends when no entry of the gradient exceeds the tolerance, after `steps`, or when the loss falls no more.
    (Nocedal & Wright 2006, Numerical Optimization, algorithms 7.4 and 7.5, with a search that halves the step.)
    """
    count = len(x)
    design = np.concatenate([x, np.ones((count, 1), x.dtype)], axis=1)
    shrink = np.full((design.shape[1], 1), decay, x.dtype)
    shrink[-1] = 0                                              # not of the bias
    target = np.eye(classes, dtype=x.dtype)[labels]

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(design @ w, 1)
        value = -float(logs[np.arange(count), labels].mean(dtype=np.float64)) + 0.5 * float((shrink * w * w).sum())
        return value, design.T @ (np.exp(logs) - target) / count + shrink * w

    weight = np.zeros((design.shape[1], classes), x.dtype)
    value, gradient = loss(weight)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []             # (step, change of the gradient)
    for _ in range(steps):
        if np.abs(gradient).max() < tolerance:
            break
        direction = _newton(gradient, pairs)
        slope, rate = float((gradient * direction).sum()), 1.0
        while True:
            new = weight - x.dtype.type(rate) * direction
            lower, after = loss(new)
            if lower <= value - 1e-4 * rate * slope or rate < 1e-8:
                break
            rate /= 2
        if not lower < value:                                   # as low as the dtype can tell
            break
        step, change = new - weight, after - gradient
        if float((step * change).sum()) > 0:
            pairs = [*pairs, (step, change)][-_MEMORY:]
        weight, value, gradient = new, lower, after
    return weight[:-1], weight[-1]


def _newton(gradient: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The inverse Hessian, as the pairs have it, times the gradient."""
    direction, shares = gradient.copy(), []
    for step, change in pairs[::-1]:
        shares.append((step * direction).sum() / (step * change).sum())
        direction -= shares[-1] * change
    if pairs:
        step, change = pairs[-1]
        direction *= (step * change).sum() / (change * change).sum()
    else:
        direction /= np.sqrt((gradient * gradient).sum())
    for (step, change), share in zip(pairs, shares[::-1], strict=True):
        direction += step * (share - (change * direction).sum() / (step * change).sum())
    return direction


__all__ = ["DECAY", "classify", "fit_softmax"]
