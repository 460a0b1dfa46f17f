"""An operator of an ONNX file: its attributes and constants, and what has no counterpart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .graph import Refused


class Op:
    """An operator with its attributes and constant inputs."""

    def __init__(
        self, kind: str, attributes: dict[str, Any], constants: Sequence[Any], opset: int, axes: int | None,
        sizes: Callable[[], tuple[int, ...]], batch: int | None,
    ) -> None:
        self.kind, self.opset = kind, opset
        self.constants = constants
        """For each input its array; None for a tensor and for what is left out."""
        self.axes = axes
        """How many axes the first input has, if that is known."""
        self.sizes = sizes
        """The first input's sizes; raises Refused if they are not known. The first of them is no more than an example."""
        self.batch = batch
        """The number of images, where the file fixes it."""
        self._attributes, self._asked = attributes, set[str]()

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        self._asked.add(name)
        return self._attributes.get(name, default)

    def expect(self, name: str, only: Any) -> None:
        """The attribute, if it is there, must have that value."""
        value = self.get(name, only)
        if value != only:
            raise Refused(f"with {name}={value}; expected {only}")

    def finish(self) -> None:
        unknown = sorted(set(self._attributes) - self._asked)
        if unknown:
            raise Refused(f"with {unknown[0]}={self._attributes[unknown[0]]}")

    def constant(self, index: int, name: str, default: Any = None) -> Any:
        """An input that must be a constant, or an attribute, as older opsets have it."""
        if len(self.constants) > index and self.constants[index] is not None:
            value = self.constants[index]
            return value if value.dtype == object or value.ndim else value.item()
        return self.get(name, default)

    def weight(self, index: int, *shape: Any) -> np.ndarray | None:
        """A constant input of floats; its shape is checked where that is given (None: any number)."""
        x = self.constants[index] if len(self.constants) > index else None
        if x is None:
            return None
        if x.dtype not in (np.float32, np.float64):
            raise Refused(f"with weights of {x.dtype}; expected float32 or float64")
        if shape and (x.ndim != len(shape) or any(s not in (None, n) for s, n in zip(shape, x.shape, strict=True))):
            raise Refused(f"with a weight {x.shape}; expected {shape}")
        return np.array(x, order="C")

    def needed(self, index: int, *shape: Any) -> np.ndarray:
        x = self.weight(index, *shape)
        if x is None:
            raise Refused("with a weight that is no constant")
        return x

    def windows(self, n: int) -> tuple[Any, Any, Any]:
        """strides, dilations and pads (before, after) of n axes."""
        return (
            numbers(self.get("strides", [1] * n), n), numbers(self.get("dilations", [1] * n), n),
            numbers(self.get("pads", [0] * 2 * n), 2 * n),
        )


def numbers(values: Any, count: int) -> tuple[int, ...]:
    if values is None or len(values) != count or min(values) < 0:
        raise Refused(f"with {values}; expected {count} numbers of at least 0")
    return tuple(int(v) for v in values)


def padding(
    op: Op, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], pads: Sequence[int]
) -> tuple[Sequence[int], Sequence[int]]:
    """The padding before and after each axis, worked out where auto_pad asks for it."""
    n = len(kernel)
    auto = op.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return pads[:n], pads[n:]
    if auto == "VALID":
        return (0,) * n, (0,) * n
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise Refused(f"with auto_pad={auto}")
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = op.sizes()[2:] if max(stride) > 1 else [1] * n      # with stride 1 the size does not matter
    total = [max((-(-size // s) - 1) * s + span - size, 0) for size, s, span in zip(sizes, stride, spans, strict=True)]
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return (less, more) if auto == "SAME_UPPER" else (more, less)


class Dim:
    """One number of a tensor's shape, which is known when the tensor is."""

    def __init__(self, axis: int) -> None:
        self.axis = axis
