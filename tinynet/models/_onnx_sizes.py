"""How large the tensors of an ONNX file are, as far as an operator needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..nn import Concat, Layer, Pad, Upsample
from ..nn.conv import _Conv
from .graph import Node, Refused

_LARGEST = 1 << 26
"""Numbers of a tensor that is worked out to know its size."""


class Sizes:
    """Zeros go through the layers, as far as the tensor that is asked for; only where a file has an operator that asks."""

    def __init__(self, name: str, size: tuple[int | None, ...], dtype: Any) -> None:
        self._input, self._size, self._dtype = name, size, dtype
        self._known: dict[str, np.ndarray] = {}

    def of(self, value: str, nodes: Sequence[Node]) -> tuple[int, ...]:
        """Shape of a tensor for one input. Raises Refused if the file leaves the input's open, or it is too large."""
        if value not in self._known:
            size = [0 if n is None else n for n in self._size]
            if not size or not 0 < prod(size) <= _LARGEST:
                raise Refused("of unknown size, since the file leaves that of the input open")
            self._known.setdefault(self._input, np.zeros((1, *size), self._dtype))
            for node in nodes:                                  # in their order: everything before this value
                if node.name not in self._known and all(name in self._known for name in node.inputs):
                    self._known[node.name] = self._output(node.op, [self._known[name] for name in node.inputs])
                if node.name == value:
                    break
            if value not in self._known:
                raise Refused("behind something that is not supported")
        return tuple(self._known[value].shape)

    def _output(self, op: Any, inputs: list[np.ndarray]) -> np.ndarray:
        if sum(_most(op, x.shape) for x in inputs) > _LARGEST:
            raise Refused("of too large an input")
        if isinstance(op, Layer):
            return op(inputs[0])
        return np.concatenate(inputs, 1) if op is Concat else inputs[0]


def _most(op: Any, shape: tuple[int, ...]) -> float:
    """At most how many numbers a layer makes of an input of that shape."""
    if isinstance(op, Pad):
        grown = [n + sum(max(end, 0) for end in op.pad[2 * i : 2 * i + 2]) for i, n in enumerate(reversed(shape))]
        return prod(grown)
    if isinstance(op, Upsample):
        if op.size is not None:
            return prod(shape[:2]) * prod(op.size)              # type: ignore[arg-type]
        return prod(shape) * prod(op.scale_factor)              # type: ignore[arg-type]
    if isinstance(op, _Conv):
        spans = zip(shape[2:], op.stride, op.kernel_size, op.dilation, op.padding, strict=True)
        return shape[0] * op.out_channels * prod(n * s + k * d + 2 * p for n, s, k, d, p in spans)
    return prod(shape)
