"""Which input cells a unit can see, from the layer arithmetic alone (Araujo, Norris & Sim, Distill 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, floor
from typing import Any, NamedTuple

from ..errors import ArgumentError
from ..functional._check import integers
from .activation import LogSoftmax, Softmax
from .containers import Container, Residual, Sequential
from .conv import _Conv, _ConvTranspose
from .layer import Layer, computes_plainly, join
from .pool import AvgPool1d, _MaxPool
from .shape import Pad, Upsample
from .split import routes_plainly


class ReceptiveField(NamedTuple):
    """Along each axis the unit at output position i sees the input cells start + jump·i … start + jump·i + size − 1.

    Cells below 0 or beyond the input are padding. Behind a transposed convolution or a resizing the numbers may be fractions: the
    unit sees whole cells between these ends, which are as near as they can be if they are to hold for all positions.
    """

    size: tuple[float, ...]
    jump: tuple[float, ...]
    start: tuple[float, ...]


def receptive_field(model: Layer, path: str, axes: int = 2) -> ReceptiveField | None:
    """The field of the units of the layer at that path.

    None: they see the whole input (a Linear layer, a global pooling), or nobody knows: a layer of your own, unless it says
    `each_cell`, or a container with walks of its own.
    """
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
    elif not routes_plainly(layer):
        for name, child in layer.children():
            _child(child, None, path, name, found)
        after = None
    elif isinstance(layer, Sequential):
        after = field
        for name, child in layer.children():
            after = _child(child, after, path, name, found)
    else:
        behind = [_child(child, field, path, name, found) for name, child in layer.children()]
        beside = [field] if isinstance(layer, Residual) and len(behind) == 1 else []      # the identity
        after = _union([*behind, *beside])
    return after


def _child(child: Layer, field: ReceptiveField | None, path: str, name: str, found: list) -> ReceptiveField | None:
    after = _through(child, field, join(path, name), found)
    if name:
        found.append((join(path, name), child, after))
    return after


def _union(fields: list[ReceptiveField | None]) -> ReceptiveField | None:
    """What parallel branches see together; None also where they step at different distances, and fit for one size alone."""
    known = [field for field in fields if field is not None]
    if len(known) < len(fields) or any(field.jump != known[0].jump for field in known):
        return None
    start = tuple(map(min, *(field.start for field in known))) if len(known) > 1 else known[0].start
    ends = [tuple(b + s for b, s in zip(field.start, field.size, strict=True)) for field in known]
    end = tuple(map(max, *ends)) if len(known) > 1 else ends[0]
    return ReceptiveField(tuple(e - b for b, e in zip(start, end, strict=True)), known[0].jump, start)


def _step(layer: Layer, field: ReceptiveField) -> ReceptiveField | None:
    n = len(field.size)
    if layer.each_cell:
        return field
    if not computes_plainly(layer):
        return None
    if isinstance(layer, (Softmax, LogSoftmax)):
        return field if layer.dim == 1 else None                # across the channels
    if isinstance(layer, Pad):
        low = [*(layer.pad[2 * i] for i in reversed(range(min(n, len(layer.pad) // 2))))]
        low = [0] * (n - len(low)) + low
        return field._replace(start=tuple(b - p * j for b, p, j in zip(field.start, low, field.jump, strict=True)))
    if isinstance(layer, Upsample):
        return _resized(layer, field, n)
    if isinstance(layer, (_Conv, _MaxPool, AvgPool1d)):
        return _windowed(layer, field, n)
    return None                                                 # Linear, Flatten, a global pooling


def _resized(layer: Upsample, field: ReceptiveField, n: int) -> ReceptiveField | None:
    """None where an output's place depends on the input's size."""
    if layer.scale_factor is None or layer.align_corners:
        return None
    given: Any = layer.scale_factor
    factors = [Fraction(f).limit_denominator(1000) for f in (given if isinstance(given, (tuple, list)) else (given,) * n)]
    if layer.recompute_scale_factor and any(f.denominator > 1 for f in factors):
        return None
    reach = [_reach(f, layer.mode) for f in factors]
    return ReceptiveField(
        tuple(s + _real(last - first) * j for s, (first, last), j in zip(field.size, reach, field.jump, strict=True)),
        tuple(_real(j / f) for j, f in zip(map(Fraction, field.jump), factors, strict=True)),
        tuple(b + _real(first) * j for b, (first, _), j in zip(field.start, reach, field.jump, strict=True)),
    )


def _reach(factor: Fraction, mode: str) -> tuple[Fraction, Fraction]:
    """How far before and behind i / factor the first and the last cell lie that output i of a resizing is made of.

    The distances come again and again, with the numerator of the factor as their period.
    """
    before, behind = [], []
    for i in range(factor.numerator):
        middle = (i + Fraction(1, 2)) / factor
        place = i / factor if mode == "nearest" else middle if mode == "nearest-exact" else middle - Fraction(1, 2)
        last = floor(place) if mode.startswith("nearest") else ceil(place)
        before.append(floor(place) - i / factor)
        behind.append(last - i / factor)
    return min(before), max(behind)


def _real(value: Fraction) -> float:
    """A whole number where it is one."""
    return int(value) if value.denominator == 1 else float(value)


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
        # Where the stride does not divide the kernel's span the outputs see ⌊span/s⌋ or one more, not all at one distance.
        reach = [_real(Fraction(span, s)) for span, s in zip(spans, stride, strict=True)]
        size = tuple(f + r * j for f, r, j in zip(field.size, reach, field.jump, strict=True))
        start = tuple(b + (p - span) * j for b, p, span, j in zip(field.start, low, spans, jump, strict=True))
        return ReceptiveField(size, jump, start)
    size = tuple(f + span * j for f, span, j in zip(field.size, spans, field.jump, strict=True))
    start = tuple(b - p * j for b, p, j in zip(field.start, low, field.jump, strict=True))
    return ReceptiveField(size, tuple(j * s for j, s in zip(field.jump, stride, strict=True)), start)
