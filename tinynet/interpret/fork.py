"""Networks that go the same way up to some layer, as a model and its controls do: that way is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..backend import Array
from ..errors import ArgumentError
from ..nn import Layer, Sequential, split
from ..nn.containers import visible
from ..nn.layer import join
from .units import Record

if TYPE_CHECKING:
    from .attribution import Attribution


class Fork:
    """A model and others beside it, from `control.randomised(…, share=True)` say, whose lower layers are the model's own.

    places: for each of the others the path of the last layer that it has in common with the model; "": none. heads: for each,
    what comes behind that place.
    """

    def __init__(self, model: Layer, others: Sequence[Layer] = ()) -> None:
        self.model, self.others = model, list(others)
        self.places: list[str] = []
        self.heads: list[Layer] = []
        for other in others:
            place = _in_common(model, other)
            head = other
            if place:
                try:
                    head = split(other, place)[1]
                except ArgumentError:                           # a layer below the place is used again behind it
                    place = ""
            self.places.append(place)
            self.heads.append(head)

    def back(self, way: Attribution, x: Array, mask: Array) -> list[Array]:
        """The walk by the way's rule from the mask at the output back to the pixels: through the model, and through each other.

        x: (N, …). mask: of the output's shape, what every walk begins with. Returns arrays of x's shape, the model's first.
        """
        kept: dict[str, Array] = {}

        def watch(path: str, _: Layer, y: Array) -> None:
            if path in self.places:
                kept[path] = y

        # A model that is one layer shows nothing, and has nothing in common.
        y, saved = self.model.forward(x, watch=watch) if any(self.places) else self.model.forward(x)  # type: ignore[call-arg]
        found = [way.back(Record(self.model, saved, y, None), mask)]
        for place, head in zip(self.places, self.heads, strict=True):
            _, own = head.forward(kept[place] if place else x)
            signal = head.reverse(own, mask, way.step)
            found.append(way.back(Record(self.model, saved, kept[place], place), signal) if place else signal)
        return found


def _in_common(model: Layer, other: Layer, path: str = "") -> str:
    """The last layer, of those that all signals pass, up to which the two networks consist of the same layers."""
    last = ""
    if isinstance(model, Sequential) and isinstance(other, Sequential):
        for (name, mine), (its, theirs) in zip(model.named_children(), other.named_children(), strict=False):
            here = join(path, visible(name))
            if name != its:
                break
            if mine is not theirs:
                return _in_common(mine, theirs, here) or last
            last = here if visible(name) else last
    return last


__all__ = ["Fork"]
