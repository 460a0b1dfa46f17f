"""Units: which numbers of a network a question is about, and what a walk back begins with.

A unit is addressed by the dotted name of a layer, a channel of its output, and a position: "max" (where this image
excites the channel most), an index, or the whole map. Without a layer the question is about the model's output, and `target`
names a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..errors import ArgumentError, ShapeError
from ..functional._check import check_array
from ..nn import Layer
from ..nn.layer import Saved
from ..nn.split import below

Unit = int | Sequence[Any]
"""channel, (channel, "max"), (channel, y, x) or (channel, "all")."""


class Record(NamedTuple):
    """A forward pass, and the output of the layer in question."""

    model: Layer
    """What was run: the model, or what the layer is computed by."""
    saved: Saved
    output: Array
    layer: str | None


def record(model: Layer, x: Array, layer: str | None) -> Record:
    """Run x through the model, up to `layer` if it is given, and keep the output. Raises ArgumentError with the nearest names."""
    check_array("attribute", "x", x)
    if x.ndim < 2:
        raise ShapeError(f"expected a batch of inputs (N, C, …), got {tuple(x.shape)}")
    if layer is None:
        y, saved = model.forward(x)
        return Record(model, saved, y, None)
    model = below(model, layer)                                 # what lies above it or beside it has no part in its output
    found: list[Array] = []

    def watch(path: str, _: Layer, y: Array) -> None:
        if path == layer:
            found.append(y)

    _, saved = model.forward(x, watch=watch)                    # type: ignore[call-arg]
    if not found:
        raise ArgumentError(f"layer {layer!r} has no output of its own; name a layer or a named container")
    return Record(model, saved, found[0], layer)


def select(record: Record, target: Any, unit: Unit | None) -> Array:
    """A mask of the output's shape: 1 at the chosen unit of each image, 0 elsewhere."""
    y = record.output
    if record.layer is None:
        if unit is not None:
            raise ArgumentError("a unit needs the layer it is of: give layer= and unit=, or target= for a class")
        return _class_mask(y, target)
    if target is not None:
        raise ArgumentError("give either target= (a class, at the output) or layer= with unit=, not both")
    if unit is None:
        raise ArgumentError(f"layer {record.layer!r}: give unit=(channel, y, x), (channel, 'max'), (channel, 'all') or a channel")
    channel, *position = unit if isinstance(unit, (tuple, list)) else (unit,)
    check_index(channel, y.shape[1], f"layer {record.layer!r}")
    xp = array_module(y)
    mask = xp.zeros_like(y)
    if position == ["all"]:
        mask[:, channel] = 1
    elif position in ([], ["max"]):
        flat = y[:, channel].reshape(len(y), -1)
        mask.reshape(*y.shape[:2], -1)[xp.arange(len(y)), channel, flat.argmax(axis=1)] = 1
    else:
        _check_position(record.layer, y, position)
        mask[(slice(None), channel, *position)] = 1
    return mask


def check_index(index: Any, count: int, where: str, what: str = "channels") -> None:
    """Raises ArgumentError, such as "layer 'conv1' has channels 0 to 5, got 6", unless index is one of 0 … count − 1."""
    if not _whole(index) or not 0 <= index < count:
        raise ArgumentError(f"{where} has {what} 0 to {count - 1}, got {index!r}")


def targets(x: Array, target: Any) -> Array | None:
    """The class (N,) that is asked about in each image; None: what the model says. target: a class, or one an image."""
    check_array("attribute", "x", x)
    if target is None or x.ndim < 2:
        return None
    xp = array_module(x)
    chosen = xp.asarray(target)
    if chosen.dtype.kind not in "iu" or chosen.shape not in ((), (len(x),)):
        raise ArgumentError(f"expected target to be a class number or {len(x)} of them, got {target!r}")
    return xp.broadcast_to(chosen, (len(x),))


def _class_mask(y: Array, target: Any) -> Array:
    xp = array_module(y)
    mask = xp.zeros_like(y)
    if y.ndim != 2:
        raise ShapeError(f"expected an output (N, classes) for target=, got {tuple(y.shape)}; give layer= and unit=")
    if target is None:
        chosen = y.argmax(axis=1)                               # what the model says
    else:
        chosen = xp.asarray(targets(y, target))
        for bound in (int(chosen.min()), int(chosen.max())):
            check_index(bound, y.shape[1], "the model", "classes")
    mask[xp.arange(len(y)), chosen] = 1
    return mask


def _check_position(layer: str, y: Array, position: Sequence[Any]) -> None:
    size = tuple(y.shape[2:])
    fits = len(position) == len(size) and all(
        _whole(p) and 0 <= p < s for p, s in zip(position, size, strict=False)
    )
    if not fits:
        raise ArgumentError(f"layer {layer!r} has positions (0, 0) to {tuple(s - 1 for s in size)}, got {tuple(position)}")


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
