"""A model as a table: output shapes, parameters, memory, multiply-adds, receptive fields."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..errors import ArgumentError
from .containers import Container, Sequential
from .conv import _Conv, _ConvTranspose
from .layer import Layer
from .linear import Linear
from .receptive_field import receptive_fields


class Row(NamedTuple):
    """One layer, for one input (N = 1)."""

    path: str
    kind: str
    output: tuple[int, ...]
    """Shape of its output, without the batch axis."""
    parameters: int
    """Trained numbers; 0 where the layer stands for the second time."""
    memory: int
    """Bytes of its output."""
    multiply_adds: int
    """Multiplications with an addition, of convolutions and linear layers (the others' are not worth counting)."""
    field: tuple[float, ...] | None
    """Size of the receptive field along each axis; None: the whole input."""


class Summary(NamedTuple):
    """The rows of a model; print it for the table."""

    input: tuple[int, ...]
    rows: list[Row]

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        return sum(row.multiply_adds for row in self.rows)

    @property
    def memory(self) -> int:
        return sum(row.memory for row in self.rows)

    def __str__(self) -> str:
        head = ("layer", "type", "output", "parameters", "memory", "multiply-adds", "field")
        body = [("input", "", _size(self.input), "", "", "", "")]
        for row in self.rows:
            field = "all" if row.field is None else _size([f"{f:g}" for f in row.field])
            body.append((
                row.path, row.kind, _size(row.output), f"{row.parameters:,}" if row.parameters else "",
                _bytes(row.memory), f"{row.multiply_adds:,}" if row.multiply_adds else "", field,
            ))
        total = ("total", "", "", f"{self.parameters:,}", _bytes(self.memory), f"{self.multiply_adds:,}", "")
        widths = [max(len(line[i]) for line in (head, *body, total)) for i in range(len(head))]

        def line(cells: Sequence[str]) -> str:
            parts = [c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
            return "  ".join(parts).rstrip()

        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([line(head), rule, *map(line, body), rule, line(total)])


def summary(model: Layer, input_size: Sequence[int]) -> Summary:
    """The table of a model for one input of `input_size`, (C, H, W) say. Figures are for one image.

    A batch of no images goes through the model, which costs nothing. Raises the model's own ShapeError where the size does
    not fit.
    """
    if not input_size or min(input_size) < 1:
        raise ArgumentError(f"summary: expected input_size like (3, 224, 224), got {tuple(input_size)}")
    outputs: dict[str, Array] = {}
    parameters = model.named_parameters()
    x = np.zeros((0, *input_size), dtype=np.float32)
    if parameters:                                              # where the model is, and as exact
        first = next(iter(parameters.values()))
        x = array_module(first).zeros((0, *input_size), dtype=first.dtype)
    alone = not isinstance(model, Container)
    whole: Any = Sequential(layer=model) if alone else model
    whole.forward(x, watch=lambda path, layer, y: outputs.__setitem__(path, y))
    fields = [entry for entry in receptive_fields(whole, len(input_size) - 1) if not isinstance(entry[1], Container)]
    rows, seen = [], set()
    for path, layer, field in fields:
        y, path = outputs[path], "" if alone else path
        size = prod(y.shape[1:])
        arrays = [getattr(layer, name) for name in layer.parameter_names]
        count = 0 if id(layer) in seen else sum(p.size for p in arrays if p is not None)
        seen.add(id(layer))
        rows.append(Row(
            path, type(layer).__name__, tuple(y.shape[1:]), count, size * y.dtype.itemsize, _multiply_adds(layer, size),
            None if field is None else field.size,
        ))
    return Summary(tuple(input_size), rows)


def _multiply_adds(layer: Layer, size: int) -> int:
    """For an output of `size` numbers."""
    if isinstance(layer, _ConvTranspose):                       # counted as if no window left the output
        return size // prod(layer.stride) * prod(layer.weight.shape) // layer.out_channels
    if isinstance(layer, _Conv):
        return size * prod(layer.weight.shape[1:])
    return size * layer.in_features if isinstance(layer, Linear) else 0


def _size(numbers: Sequence) -> str:
    return "×".join(map(str, numbers))


def _bytes(count: int) -> str:
    return f"{count / 1024:,.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):,.1f} MiB"
