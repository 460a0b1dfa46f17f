"""Which input cells a unit can see, from the layer arithmetic alone (Araujo, Norris & Sim, Distill 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import ArgumentError
from ..functional._check import integers
from .activation import LogSoftmax, Softmax
from .containers import Container, Sequential
from .conv import _Conv, _ConvTranspose
from .layer import Layer, join
from .linear import Linear
from .pool import AdaptiveAvgPool2d, AvgPool1d, _MaxPool
from .shape import Flatten, Pad, Upsample


class ReceptiveField(NamedTuple):
    """Along each axis the unit at output position i sees the input cells start + jump·i … start + jump·i + size − 1.

    Cells below 0 or beyond the input are padding. A jump is a fraction behind a transposed convolution or an upsampling.
    """

    size: tuple[float, ...]
    jump: tuple[float, ...]
    start: tuple[float, ...]


def receptive_field(model: Layer, path: str, axes: int = 2) -> ReceptiveField | None:
    """The field of the units of the layer at that path; None: they see the whole input (a Linear layer, a global pooling)."""
    for here, _, field in receptive_fields(model, axes):
        if here == path:
            return field
    model.layer(path)
    raise ArgumentError(f"receptive_field: {path!r} is not reached by a walk")


def receptive_fields(model: Layer, axes: int = 2) -> Iterator[tuple[str, Layer, ReceptiveField | None]]:
    """(path, layer, field) of every named layer in forward order."""
    unit = ReceptiveField((1,) * axes, (1,) * axes, (0,) * axes)
    found: list[tuple[str, Layer, ReceptiveField | None]] = []
    _through(model, unit, "", found)
    return iter(found)


def _through(layer: Layer, field: ReceptiveField | None, path: str, found: list) -> ReceptiveField | None:
    """The field behind this layer when `field` is the one before it; all layers inside are appended to `found`."""
    if not isinstance(layer, Container):
        after = None if field is None else _step(layer, field)
    elif isinstance(layer, Sequential):
        after = field
        for name, child in layer.children():
            after = _child(child, after, path, name, found)
    else:
        behind = [_child(child, field, path, name, found) for name, child in layer.children()]
        after = _union([*behind, field] if len(behind) == 1 else behind)
    return after


def _child(child: Layer, field: ReceptiveField | None, path: str, name: str, found: list) -> ReceptiveField | None:
    after = _through(child, field, join(path, name), found)
    if name:
        found.append((join(path, name), child, after))
    return after


def _union(fields: list[ReceptiveField | None]) -> ReceptiveField | None:
    """What parallel branches see together."""
    known = [field for field in fields if field is not None]
    if len(known) < len(fields):
        return None
    start = tuple(map(min, *(field.start for field in known))) if len(known) > 1 else known[0].start
    ends = [tuple(b + s for b, s in zip(field.start, field.size, strict=True)) for field in known]
    end = tuple(map(max, *ends)) if len(known) > 1 else ends[0]
    return ReceptiveField(tuple(e - b for b, e in zip(start, end, strict=True)), known[0].jump, start)


def _step(layer: Layer, field: ReceptiveField) -> ReceptiveField | None:
    n = len(field.size)
    if isinstance(layer, (Linear, Flatten, AdaptiveAvgPool2d, Softmax, LogSoftmax)):
        one_to_one = isinstance(layer, (Softmax, LogSoftmax)) and layer.dim == 1
        return field if one_to_one else None
    if isinstance(layer, Pad):
        low = [*(layer.pad[2 * i] for i in reversed(range(min(n, len(layer.pad) // 2))))]
        low = [0] * (n - len(low)) + low
        return field._replace(start=tuple(b - p * j for b, p, j in zip(field.start, low, field.jump, strict=True)))
    if isinstance(layer, Upsample):
        if layer.scale_factor is None:
            return None
        given: Any = layer.scale_factor
        factors = tuple(given) if isinstance(given, (tuple, list)) else (given,) * n
        jump = tuple(j / f for j, f in zip(field.jump, factors, strict=True))
        if layer.mode.startswith("nearest"):                    # output i sees the input ⌊i/f⌋, up to j − j/f before i·j/f
            reach = back = tuple(j - k for j, k in zip(field.jump, jump, strict=True))
        else:
            reach, back = field.jump, tuple(j / 2 for j in field.jump)
        size = tuple(s + r for s, r in zip(field.size, reach, strict=True))
        return ReceptiveField(size, jump, tuple(b - r for b, r in zip(field.start, back, strict=True)))
    if isinstance(layer, (_Conv, _MaxPool, AvgPool1d)):
        return _windowed(layer, field, n)
    return field


def _windowed(layer: Any, field: ReceptiveField, n: int) -> ReceptiveField:
    kernel, stride = (integers("receptive_field", name, getattr(layer, name), n) for name in ("kernel_size", "stride"))
    dilation = integers("receptive_field", "dilation", getattr(layer, "dilation", 1), n)
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if layer.padding == "valid":
        low: tuple[int, ...] = (0,) * n
    elif layer.padding == "same":
        low = tuple(span // 2 for span in spans)
    else:
        low = integers("receptive_field", "padding", layer.padding, n)
    if isinstance(layer, _ConvTranspose):                       # output q sees the inputs (q + padding − k·dilation) / stride
        jump = tuple(j / s for j, s in zip(field.jump, stride, strict=True))
        size = tuple(f + span // s * j for f, span, s, j in zip(field.size, spans, stride, field.jump, strict=True))
        start = tuple(b + (p - span) * j for b, p, span, j in zip(field.start, low, spans, jump, strict=True))
        return ReceptiveField(size, jump, start)
    size = tuple(f + span * j for f, span, j in zip(field.size, spans, field.jump, strict=True))
    start = tuple(b - p * j for b, p, j in zip(field.start, low, field.jump, strict=True))
    return ReceptiveField(size, tuple(j * s for j, s in zip(field.jump, stride, strict=True)), start)
