"""What a network says of classes: its logits, which a Softmax at the end hides, and the probabilities that they stand for.

Losses, class maps and everything else that tinynet computes of classes goes by logits, so a softmax is taken once and no more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, to_host
from ..errors import ArgumentError, ShapeError
from ..functional import softmax
from .activation import LogSoftmax, Sigmoid, Softmax
from .containers import Sequential
from .layer import Layer
from .shape import Identity
from .split import routes_plainly


def without_softmax(model: Layer) -> Layer:
    """The network that gives the logits (N, classes): without the Softmax or LogSoftmax over the classes that it ends in.

    It is the model itself where there is none. Nothing is copied, and all other layers keep their paths. A probability also
    rises where what speaks for the other classes falls; what speaks for one class is in its logit, so class maps are of this
    network (Simonyan, Vedaldi & Zisserman 2014, section 2).
    Raises ArgumentError for a network that ends in Sigmoid: its classes do not exclude each other.
    """
    if isinstance(_end(model), Sigmoid):
        raise ArgumentError("expected a network that says which class it is, got one that ends in Sigmoid: a yes or no for each")
    if final_softmax(model) is None:
        return model
    return _less(model) if isinstance(model, Sequential) else Identity()


def final_softmax(model: Layer) -> Softmax | LogSoftmax | None:
    """The Softmax or LogSoftmax over the classes that a network ends in; None: it ends in something else."""
    end = _end(model)
    return end if isinstance(end, (Softmax, LogSoftmax)) and end.dim in (1, -1) else None


def _end(model: Layer) -> Layer:
    while routes_plainly(model) and isinstance(model, Sequential) and len(model):
        model = model[_last(model)]
    return model


def _last(model: Sequential) -> str:
    """The name of the child that gives the output; an Identity does so only if nothing else does."""
    names = [name for name, _ in model.named_children()]
    return next((name for name in reversed(names) if not isinstance(model[name], Identity)), names[-1])


def _less(model: Sequential) -> Sequential:
    last, children = _last(model), dict(model.named_children())
    inner = children[last]
    if isinstance(inner, Sequential):
        children[last] = _less(inner)
    else:
        del children[last]
    return Sequential(children)


def probabilities(logits: Array) -> np.ndarray:
    """Class probabilities (N, classes) of logits, on the host: their softmax.

    In float64, so that the most confident ones still differ. Raises ShapeError if the model gives no classes.
    """
    values: Any = np.asarray(to_host(logits), dtype=np.float64)
    if values.ndim != 2:
        raise ShapeError(f"expected a model with an output (N, classes), got {values.shape}")
    return softmax(values, 1)
