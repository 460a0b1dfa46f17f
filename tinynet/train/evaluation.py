"""Run a model over a set of samples without training it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..data.pinned import fetched, transferred
from ..distributed import Shards
from ..errors import ArgumentError
from ..functional import pad
from ..functional._check import integer
from ..nn.classes import final_softmax, probabilities, without_softmax
from ..nn.layer import reference_array
from ..nn.loss import Loss, asked
from . import metrics


@dataclass(frozen=True)
class Evaluation:
    """What a model said about a set.

    logits: (N, C) on the host, what comes before a Softmax at the end. labels: (N,). loss: the mean, nan if none was asked for.
    """

    logits: np.ndarray
    labels: np.ndarray
    loss: float = float("nan")

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, C): softmax of the logits, in float64."""
        return probabilities(self.logits)

    @cached_property
    def predictions(self) -> np.ndarray:
        """(N,): the class with the highest logit."""
        return self.logits.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        """The share of samples that were classified rightly."""
        return metrics.accuracy(self.labels, self.predictions)

    @cached_property
    def confusion_matrix(self) -> np.ndarray:
        """(C, C) counts; rows are the true classes."""
        return metrics.confusion_matrix(self.labels, self.predictions, self.logits.shape[1])

    def metrics(self, positive: int | None = None) -> dict[str, float]:
        """loss, accuracy, precision, recall, f1 and auc.

        positive: precision, recall and F1 of this class; None: their mean over the classes (macro). See train.metrics.
        """
        classes = self.logits.shape[1]
        if positive is not None and not 0 <= positive < classes:
            raise ArgumentError(f"metrics: expected a positive class from 0 to {classes - 1}, got {positive}")

        def one(per_class: np.ndarray) -> float:
            return metrics.macro(per_class) if positive is None else float(per_class[positive])

        pair = self.labels, self.predictions
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "precision": one(metrics.precision(*pair, classes)),
            "recall": one(metrics.recall(*pair, classes)),
            "f1": one(metrics.f1_score(*pair, classes)),
            # Two classes by the difference of the logits, which does not saturate as probabilities do.
            "auc": metrics.roc_auc(self.labels, self.logits if classes == 2 else self.probabilities),
        }


def evaluate(
    model: Any, loader: Iterable[tuple[Array, Array]], loss: Loss | None = None, shards: Shards | None = None, *,
    views: int = 1,
) -> Evaluation:
    """Classify every batch (x, labels) of the loader. loss: also give its mean over the samples.

    The loss is of what the model gives; of probabilities, say, where it ends in Softmax.
    shards: the threads to use, within their with block; None: one a core. views: see `mean_logits`.
    A loss with class weights is averaged over the batches by their sizes. Raises ArgumentError for an empty loader.
    """
    if shards is None:
        with Shards() as own:
            return evaluate(model, loader, loss, own, views=views)
    logits, labels, total, count = [], [], 0.0, 0
    end = final_softmax(model)
    body = model if end is None else without_softmax(model)

    def answer(x: Array, y: Array) -> tuple[Array, Array, Any]:
        output = mean_logits(shards, body, x, views)
        return output, y, None if loss is None else asked(loss, output if end is None else end(output), y)[0]

    for output, y, value in fetched(answer(x, y) for x, y in transferred(loader, reference_array(model))):
        if loss is not None:
            total += float(value) * len(y)
        count += len(y)
        logits.append(output)
        labels.append(y)
    if not logits:
        raise ArgumentError("evaluate: expected at least one batch, got an empty loader")
    return Evaluation(np.concatenate(logits), np.concatenate(labels), total / count if loss and count else float("nan"))


def predict(model: Any, x: Any, batch_size: int = 64, *, views: int = 1) -> np.ndarray:
    """Class probabilities (N, C) on the host, of an array (N, 3, H, W) or a loader's batches (labels are ignored).

    views: see `mean_logits`. Raises ShapeError for a model whose output is not (N, classes), and ArgumentError for one that ends
    in Sigmoid.
    """
    integer("predict", "batch_size", batch_size, 1)
    model = without_softmax(model)
    reference = reference_array(model)
    batches: Iterable[Any] = x
    if hasattr(x, "shape"):
        batches = (x[i : i + batch_size] for i in range(0, len(x), batch_size))
    with Shards() as shards:
        inputs = transferred(((batch[0] if isinstance(batch, tuple) else batch,) for batch in batches), reference)
        logits = [output for output, in fetched((mean_logits(shards, model, x, views),) for x, in inputs)]
    if not logits:
        raise ArgumentError("predict: expected at least one image, got none")
    return probabilities(np.concatenate(logits))


def mean_logits(shards: Shards, model: Any, x: Array, views: int) -> Array:
    """The mean of the logits over several views of each picture (N, C, H, W).

    views 1: the picture. 2: and its mirror image. 10: the picture and four that are moved by a sixteenth of its size towards each
    corner (the border reflected), all five also in the mirror: the ten crops of Krizhevsky et al. 2012, section 4.1,
    and Zeiler & Fergus 2014.
    """
    if views not in (1, 2, 10):
        raise ArgumentError(f"expected 1, 2 or 10 views, got {views!r}")
    if views == 1:
        return shards.infer(model, x)
    seen = [x]
    if views == 10:
        height, width = x.shape[2:]
        down, right = height // 16, width // 16
        padded = pad(x, (right, right, down, down), mode="reflect")
        seen += [padded[:, :, i : i + height, j : j + width] for i in (0, 2 * down) for j in (0, 2 * right)]
    seen += [view[..., ::-1] for view in seen]
    contiguous = array_module(x).ascontiguousarray
    total = shards.infer(model, contiguous(seen[0]))
    for view in seen[1:]:
        total = total + shards.infer(model, contiguous(view))
    return total / views
