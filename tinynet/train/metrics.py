"""Figures of merit of a classifier, from labels and predictions (or scores) on the host.

labels: (N,) integers, the true classes. predictions: (N,) integers. scores: (N, C), or (N,) for two classes; higher
means more of that class. All results are plain floats or NumPy arrays. An empty set of samples gives nan.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, DtypeError, ShapeError


def accuracy(labels: Any, predictions: Any) -> float:
    """The share of samples whose class was predicted."""
    labels, predictions = _classes("accuracy", labels, predictions)
    return float(np.mean(labels == predictions)) if labels.size else float("nan")


def top_k_accuracy(labels: Any, scores: Any, k: int = 5) -> float:
    """The share of samples whose class is among the k highest scores; of equal scores the lower class comes first."""
    labels, scores = _labels_and_scores("top_k_accuracy", labels, scores, axes=(2,))
    if not 1 <= k <= scores.shape[1]:
        raise ArgumentError(f"top_k_accuracy: expected k from 1 to {scores.shape[1]} (the classes), got {k}")
    if not labels.size:
        return float("nan")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # (N, k)
    return float(np.mean((best == labels[:, None]).any(axis=1)))


def confusion_matrix(labels: Any, predictions: Any, classes: int | None = None) -> np.ndarray:
    """(C, C) counts: row i, column j holds the samples of class i that were taken for class j.

    classes: C; by default one more than the largest class that occurs.
    """
    labels, predictions = _classes("confusion_matrix", labels, predictions)
    largest = int(max(labels.max(initial=-1), predictions.max(initial=-1)))
    classes = largest + 1 if classes is None else classes
    if largest >= classes:
        raise ArgumentError(f"confusion_matrix: expected classes below {classes}, got {largest}")
    return np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)


def precision(labels: Any, predictions: Any, classes: int | None = None) -> np.ndarray:
    """(C,): of the samples taken for each class, the share that belongs to it.

    This and the two below: a class that is neither among the labels nor among the predictions has no figure (nan);
    any other 0 / 0 (a class that occurs and is never predicted) counts as 0.
    """
    right, occurs, predicted = _counts(labels, predictions, classes)
    return _ratio(right, predicted, occurs + predicted)


def recall(labels: Any, predictions: Any, classes: int | None = None) -> np.ndarray:
    """(C,): of the samples of each class, the share that was found. See precision for 0 / 0."""
    right, occurs, predicted = _counts(labels, predictions, classes)
    return _ratio(right, occurs, occurs + predicted)


def f1_score(labels: Any, predictions: Any, classes: int | None = None) -> np.ndarray:
    """(C,): the harmonic mean of precision and recall, 2 right / (occurring + predicted). See precision for 0 / 0."""
    right, occurs, predicted = _counts(labels, predictions, classes)
    return _ratio(2 * right, occurs + predicted, occurs + predicted)


def macro(per_class: np.ndarray) -> float:
    """The plain mean over the classes that have a figure; nan if none has."""
    present = per_class[~np.isnan(per_class)]
    return float(present.mean()) if present.size else float("nan")


def roc_auc(labels: Any, scores: Any) -> float:
    """The area under the ROC curve: the chance that a sample of the class scores above one that is not, ties half.

    scores (N,): labels are 0 and 1 (or bool), the scores are of class 1. scores (N, 2): the same with the difference
    of the columns. scores (N, C): the mean over the classes, each against the rest; a class that no sample or every
    sample has is left out. nan where no class is left (all labels equal) and where a score is nan.
    Fawcett, "An introduction to ROC analysis", 2006; by ranks as in the Mann-Whitney statistic.
    """
    labels, scores = _labels_and_scores("roc_auc", labels, scores, axes=(1, 2))
    if scores.ndim == 1:
        if labels.size and labels.max() > 1:
            raise ArgumentError(f"roc_auc: expected labels 0 and 1 for scores (N,), got {labels.max()}")
        return _binary_auc(labels == 1, scores)
    if scores.shape[1] == 2:
        return _binary_auc(labels == 1, scores[:, 1] - scores[:, 0])
    return macro(np.array([_binary_auc(labels == c, scores[:, c]) for c in range(scores.shape[1])]))


def _binary_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    positives = int(positive.sum())
    negatives = positive.size - positives
    if not positives or not negatives or np.isnan(scores).any():
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2  # from 1; equal scores share the mean of their ranks
    above = rank[place][positive].sum() - positives * (positives + 1) / 2  # pairs that the positive sample wins
    return float(above / (positives * negatives))


def _counts(labels: Any, predictions: Any, classes: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    matrix = confusion_matrix(labels, predictions, classes)
    return np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)


def _ratio(part: np.ndarray, whole: np.ndarray, seen: np.ndarray) -> np.ndarray:
    result = np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
    result[seen == 0] = np.nan
    return result


def _classes(name: str, labels: Any, predictions: Any) -> tuple[np.ndarray, np.ndarray]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape:
        raise ShapeError(
            f"{name}: expected labels and predictions of one shape (N,), got {labels.shape} and {predictions.shape}"
        )
    return _integers(name, "labels", labels), _integers(name, "predictions", predictions)


def _labels_and_scores(name: str, labels: Any, scores: Any, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or scores.ndim not in axes or scores.shape[:1] != labels.shape:
        expected = " or ".join({1: "(N,)", 2: "(N, C)"}[n] for n in axes)
        raise ShapeError(f"{name}: expected labels (N,) and scores {expected}, got {labels.shape} and {scores.shape}")
    labels = _integers(name, "labels", labels)
    if scores.ndim == 2 and labels.size and labels.max() >= scores.shape[1]:
        raise ArgumentError(f"{name}: expected labels below {scores.shape[1]} (columns of scores), got {labels.max()}")
    return labels, scores


def _integers(name: str, what: str, values: np.ndarray) -> np.ndarray:
    if values.size and values.dtype.kind not in "iub":
        raise DtypeError(f"{name}: expected {what} as integers, got {values.dtype}")
    values = values.astype(np.int64)
    if values.size and values.min() < 0:
        raise ArgumentError(f"{name}: expected {what} >= 0, got {values.min()}")
    return values
