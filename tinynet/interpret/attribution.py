"""One walk back for all methods: they differ in the rule at a layer, and in what the walk begins with."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, Self

from ..backend import Array, array_module
from ..distributed import Shards
from ..nn import Layer
from ..nn.layer import Saved
from ..nn.split import below
from .units import Record, Unit, record, select, targets

AT_ONCE = 8 * 3 * 224**2
"""Numbers of the images that are on the way together."""


class Attribution:
    """A way of asking a model which pixels a unit answers to. Subclasses give the rule; the model is never changed.

    attribute(x, target=class) or attribute(x, layer="features.3", unit=(channel, y, x)); every image of the batch at once.
    workers: threads that share a batch; None: one a core.
    """

    name = "attribution"
    local = False
    """Whether the rule makes nothing of a signal of 0, and a cell's share from its window alone, wherever in the map that is.
    Then a walk from a unit may go over the part of the photo that it sees; a subclass with such a rule says so.
    """

    def __init__(self, model: Layer, workers: int | None = None) -> None:
        self.model, self.workers = model, workers

    def step(self, path: str, layer: Layer, saved: Saved, signal: Array) -> Array:
        """The rule: the signal at a layer's output → the signal at its input."""
        return layer.input_gradient(saved, signal)

    def seed(self, record: Record, mask: Array) -> Array:
        """What the walk begins with, of the output's shape; the gradient of the chosen unit begins with 1 there."""
        return mask

    def attribute(self, x: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None) -> Array:
        """The walk from the chosen unit of each image back to its pixels.

        x: (N, C, H, W). target: a class, or one an image (default: the class the model says). layer, unit: instead, a unit
        inside: (channel, y, x), (channel, "max"), (channel, "all") for the whole map, or a channel alone, which means "max".
        Returns x's shape. Raises ArgumentError for a layer, unit or class that is not there, or a layer without a rule.
        """

        def walk(x: Array, target: Any) -> Array:
            taken = record(self.model, x, layer)
            return self.back(taken, self.seed(taken, select(taken, target, unit)), keep=False)

        return self.share(walk, x, targets(x, target))

    def share(self, work: Callable[..., Array], x: Array, *others: Array | None) -> Array:
        """work(x, *others), the batch shared out over the workers, some images at a time.

        What works image by image needs no other parallelism; and what a large batch recorded would neither fit nor help.
        work: goes through the same layers in the same order, whatever the images are.
        """
        if x.ndim < 2 or len(x) < 2:
            return work(x, *others)
        parts: list[Array] = []
        with Shards(self.workers) as shards:
            at_once = max(shards.workers, AT_ONCE // max(1, x[0].size))
            for i in range(0, len(x), at_once):
                some = slice(i, i + at_once)
                parts += shards.apply(work, x[some], *(None if other is None else other[some] for other in others), in_step=True)
        return parts[0] if len(parts) == 1 else array_module(x).concatenate(parts)

    def below(self, layer: str) -> Self:
        """The same way through what that layer is computed by, and no more."""
        way = copy(self)
        way.model = below(self.model, layer)
        return way

    def back(self, taken: Record, signal: Array, keep: bool = True) -> Array:
        """Walk the signal, of the shape of the recorded layer's output, back to the pixels.

        keep: whether the record stays for another walk; else each layer's part is let go of when it is passed.
        """
        if taken.layer is None:
            return taken.model.reverse(taken.saved, signal, self.step, keep=keep)

        def put_in(path: str, layer: Layer, arrived: Any) -> Any:
            return signal if path == taken.layer else arrived

        # Nothing arrives from the top: what is recorded may be a container that computes more than the layer.
        return taken.model.reverse(taken.saved, None, self.step, put_in, keep=keep)
