"""What arises at chosen layers when a batch runs through a model, and which layers an experiment looks at by default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..backend import Array, array_module, beside
from ..data.pinned import transferred
from ..distributed import Shards
from ..errors import ArgumentError, ShapeError
from ..nn import Dropout, Identity, Layer, Linear, split
from ..nn.activation import _Rectifier
from ..nn.containers import Container
from ..nn.conv import _Conv
from ..nn.layer import reference_array
from ..nn.norm import _BatchNorm
from ..nn.pool import _MaxPool
from .units import check_index

_CHANNELS_APART = (
    _Rectifier, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softmax, nn.LogSoftmax, _BatchNorm, _MaxPool, nn.AvgPool1d,
    nn.AdaptiveAvgPool2d, nn.Flatten, Dropout, Identity,
)


class Reached(Exception):
    """What a watch raises where nothing that comes after is wanted."""


class Observed(NamedTuple):
    """The output of a model, and those of the chosen layers by name."""

    output: Array
    layers: dict[str, Array]


def observe(model: Layer, x: Array, layers: Sequence[str], shards: Shards | None = None) -> Observed:
    """Run x (N, …) through the model and keep what the chosen layers give. shards: the threads, within their with block.

    Raises ArgumentError with the nearest names for a layer that is not there.
    """
    for layer in layers:
        model.layer(layer)
    if not layers:
        return Observed(model(x) if shards is None else shards.infer(model, x), {})

    def run(part: Array) -> Observed:
        found: dict[str, Array] = {}

        def watch(path: str, _: Layer, y: Array) -> None:
            if path in layers:
                found.setdefault(path, y)

        return Observed(model.infer(part, watch), found)

    parts = [run(x)] if shards is None else shards.apply(run, x, in_step=True)
    silent = [layer for layer in layers if layer not in parts[0].layers]
    if silent:
        raise ArgumentError(f"layer {silent[0]!r} has no output of its own; name a layer or a named container")
    if len(parts) == 1:
        return parts[0]
    xp = array_module(x)
    return Observed(
        xp.concatenate([part.output for part in parts]),
        {layer: xp.concatenate([part.layers[layer] for part in parts]) for layer in layers},
    )


def up_to(model: Layer, x: Array, layer: str, shards: Shards | None = None) -> Array:
    """What the layer gives for x (N, …), as observe does; what comes after it is not computed."""
    model.layer(layer)

    def run(part: Array) -> Array:
        found: list[Array] = []

        def watch(path: str, _: Layer, y: Array) -> None:
            if path == layer:
                found.append(y)
                raise Reached

        with suppress(Reached):
            model.infer(part, watch)
        if not found:
            raise ArgumentError(f"layer {layer!r} has no output of its own; name a layer or a named container")
        return found[0]

    parts = [run(x)] if shards is None else shards.apply(run, x, in_step=True)
    return parts[0] if len(parts) == 1 else array_module(x).concatenate(parts)


def stages(model: Layer) -> list[str]:
    """Where each convolution's rectified maps are: the ReLU behind it and before the next one. Where there is none, as before the
    sum of a residual block, they are those of its BatchNorm, or else its own.

    The paper's "layer 1", "layer 2", … are these.
    """
    found: list[str] = []
    rectified = False
    for path, layer in _leaves(model):
        if isinstance(layer, _Conv):
            found.append(path)
            rectified = False
        elif isinstance(layer, Linear):
            break
        elif found and (isinstance(layer, _Rectifier) or (isinstance(layer, _BatchNorm) and not rectified)):
            found[-1] = path
            rectified = isinstance(layer, _Rectifier)
    return found


def features(model: Layer) -> str:
    """The last layer of features: what the last linear layer classifies. (The paper's layer 7.)"""
    before: list[str] = []
    last = None
    for path, layer in _leaves(model):
        if isinstance(layer, Linear) and before:
            last = before[-1]
        if not isinstance(layer, (Dropout, Identity)):
            before.append(path)
    if last is None:
        return last_stage(model)
    return last


def tells_classes(model: Layer, layer: str) -> bool:
    """Whether nothing comes after the layer that mixes channels, so that its channels, if as many, are the model's classes."""
    try:
        head = split(model, layer)[1]
    except ArgumentError:                                       # in a branch
        return False
    return all(isinstance(inner, (*_CHANNELS_APART, Container)) for _, inner in head.layers())


def last_stage(model: Layer) -> str:
    """The last of `stages`. Raises ArgumentError for a model without a convolution."""
    found = stages(model)
    if not found:
        raise ArgumentError("the model has no convolution; name the layer")
    return found[-1]


def one_input(who: str, x: Array) -> Array:
    """x as (1, C, H, W), be it one input or a batch of one."""
    if x.ndim == 3:
        x = x[None]
    if x.ndim != 4 or len(x) != 1:
        raise ShapeError(f"{who}: expected one input (C, H, W), got {tuple(x.shape)}")
    return x


def beside_model(model: Layer, x: Array) -> Array:
    """x on the device that the model is on."""
    return beside(x, reference_array(model))


def inputs(model: Layer, batches: Iterable[Array | tuple[Array, Any]]) -> Iterator[Array]:
    """The inputs of batches, x or (x, labels), where the model is: a GPU fetches the next one while it computes with one."""
    like = reference_array(model)
    hosts = (batch[0] if isinstance(batch, tuple) else batch for batch in batches)
    if like is None or array_module(like) is np:
        yield from (beside(x, like) for x in hosts)
    else:
        yield from (x for x, in transferred(((x,) for x in hosts), like))


def unit_each(y: Array, channels: Sequence[int], positions: Sequence[Sequence[int]] | None = None) -> Array:
    """A mask of y's shape (N, C, …): 1 at unit `channels[i]` of image i, where it is strongest or at positions[i]."""
    xp = array_module(y)
    mask = xp.zeros_like(y)
    for i, channel in enumerate(channels):
        check_index(channel, y.shape[1], "the layer")
        if y.ndim == 2:
            mask[i, channel] = 1
        elif positions is None:
            mask[i, channel].reshape(-1)[y[i, channel].reshape(-1).argmax()] = 1
        else:
            mask[(i, channel, *positions[i])] = 1
    return mask


def _leaves(model: Layer) -> Iterable[tuple[str, Layer]]:
    return ((path, layer) for path, layer in model.layers() if path and not isinstance(layer, Container))


__all__ = [
    "Observed", "Reached", "beside_model", "features", "inputs", "last_stage", "observe", "one_input", "stages",
    "tells_classes", "unit_each", "up_to",
]
