"""The deconvnet: unpool by the switches, rectify, filter with the transposed filters (Zeiler & Fergus 2014, section 2.1).

What it shows is image structure that is compatible with the route of this activation through the switches. It is not evidence
for a class: of a network with random weights it shows edges of the photo as well (Nie, Zhang & Patel 2018; Adebayo
et al. 2018), which is why a sheet of projections has its control beside it.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from .. import functional as F
from .. import nn
from ..backend import Array
from ..errors import ArgumentError
from ..nn import Layer
from ..nn.activation import _Rectifier
from ..nn.containers import Container
from ..nn.conv import _Conv
from ..nn.layer import Saved
from ..nn.norm import _BatchNorm
from ..nn.pool import _MaxPool
from ..nn.split import below
from .attribution import Attribution
from .units import Record

MEANING = (
    "A projection shows image structure that is compatible with this activation's route through the pooling switches. It is not "
    "evidence for a class, and not the cause of an answer."
)
"""What whoever looks at a projection is told."""


@singledispatch
def deconv(layer: Layer, saved: Saved, signal: Array) -> Array:
    """The deconvnet's rule for a layer: the signal at its output → the signal at its input, of the same shapes.

    A layer without a rule is an error, so that a picture is never silently something else. To add one:

        @deconv.register
        def _(layer: MyLayer, saved, signal):
            return …
    """
    kind = type(layer).__name__
    raise ArgumentError(
        f"{kind}: the deconvnet has no rule for it; add one with @tinynet.interpret.deconv.register on a function "
        f"(layer: {kind}, saved, signal) -> signal"
    )


def without_rule(model: Layer, layer: str | None = None) -> str | None:
    """What a projection from `layer` (None: the output) cannot pass: the first layer without a rule, as "LeakyReLU (act1)".

    None: it can pass all.
    """
    for path, inner in (model if layer is None else below(model, layer)).layers():
        refused = deconv.dispatch(object), deconv.dispatch(nn.Softmax)
        ruled = isinstance(inner, Container) or deconv.dispatch(type(inner)) not in refused
        if not ruled or (isinstance(inner, _BatchNorm) and not inner.track_running_stats):
            return f"{type(inner).__name__} ({path})" if path else type(inner).__name__
    return None


@deconv.register
def _(layer: _Rectifier, saved: Saved, signal: Array) -> Array:
    """Rectify what comes down. (The gradient would ask whether the unit was active. That, LocalResponseNorm and what the walk
    begins with are the whole difference.)

    A ceiling, as of ReLU6, does not come down: the size of a picture follows that of its activation.
    """
    return F.relu(signal)


@deconv.register
def _(layer: _MaxPool, saved: Saved, signal: Array) -> Array:
    """Unpool: each value goes to its switch; values of windows that share a cell add up, the exact adjoint."""
    return layer.input_gradient(saved, signal)


@deconv.register
def _(layer: _Conv, saved: Saved, signal: Array) -> Array:
    """The transposed convolution with the same filters, and no bias."""
    return layer.input_gradient(saved, signal)


@deconv.register(nn.Softmax)
@deconv.register(nn.LogSoftmax)
def _(layer: Layer, saved: Saved, signal: Array) -> Array:
    raise ArgumentError(f"{type(layer).__name__}: the deconvnet begins at the logits; give it tinynet.nn.without_softmax(model)")


@deconv.register
def _(layer: nn.Linear, saved: Saved, signal: Array) -> Array:
    """The transposed matrix, and no bias."""
    return layer.input_gradient(saved, signal)


@deconv.register
def _(layer: nn.LocalResponseNorm, saved: Saved, signal: Array) -> Array:
    """Passed through unchanged: a gain that varies slowly, without structure of its own to show."""
    return signal


@deconv.register
def _(layer: _BatchNorm, saved: Any, signal: Array) -> Array:
    """At inference a gain for each channel (a 1×1 filter); no shift, as no bias."""
    if saved.batch:
        raise ArgumentError(f"{type(layer).__name__}: the deconvnet needs fixed statistics, got those of a batch")
    return layer.input_gradient(saved, signal)


@deconv.register
def _(layer: nn.GroupLogSumExp, saved: Saved, signal: Array) -> Array:
    """Each class of a union gets its share, as a max-pooling with soft switches."""
    return layer.input_gradient(saved, signal)


@deconv.register(nn.AvgPool1d)
@deconv.register(nn.AdaptiveAvgPool2d)
@deconv.register(nn.Flatten)
@deconv.register(nn.Identity)
@deconv.register(nn.Dropout)
@deconv.register(nn.Pad)
@deconv.register(nn.Upsample)
def _(layer: Layer, saved: Saved, signal: Array) -> Array:
    """Linear layers without parameters: their adjoint."""
    return layer.input_gradient(saved, signal)


class deconvnet(Attribution):
    """Project an activation back to pixels: deconvnet(model).attribute(x, layer="conv5", unit=(12, "max")).

    The walk begins with the activation itself at the chosen unit, everything else in that layer zero; scaling an
    activation scales its picture. overlap: what happens where overlapping pooling windows share a switch: "sum" (the
    exact adjoint, default) or "max" (the strongest alone); the paper is silent.
    """

    name = "deconvnet"

    def __init__(self, model: Layer, overlap: str = "sum", workers: int | None = None) -> None:
        if overlap not in ("sum", "max"):
            raise ArgumentError(f'deconvnet: expected overlap "sum" or "max", got {overlap!r}')
        super().__init__(model, workers)
        self.overlap = overlap
        self.local = overlap == "sum"                           # with "max" a 0 from a window elsewhere may be a cell's largest

    def step(self, path: str, layer: Layer, saved: Any, signal: Array) -> Array:
        if self.overlap == "max" and isinstance(layer, _MaxPool):
            return layer.back(saved, signal, "largest")
        return deconv(layer, saved, signal)

    def seed(self, record: Record, mask: Array) -> Array:
        return record.output * mask
