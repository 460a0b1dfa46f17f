"""ONNX operators on constants alone: the arithmetic that exporters leave around shapes and paddings."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

_MOST = 1 << 20
"""Numbers that a constant made here may have: none is a weight."""


def _axes(given: Any, attributes: dict[str, Any]) -> Any:
    axes = given[0] if given else attributes.get("axes")
    return None if axes is None else tuple(int(a) for a in np.atleast_1d(axes))


def _slice(x: Any, attributes: dict[str, Any], *given: Any) -> Any:
    names = ("starts", "ends", "axes", "steps")
    starts, ends, axes, steps = ([int(v) for v in np.atleast_1d(p)] if p is not None else None for p in (
        given[i] if i < len(given) else attributes.get(name) for i, name in enumerate(names)))  # fmt: skip
    index: list[Any] = [slice(None)] * x.ndim
    for i, axis in enumerate(axes if axes is not None else range(len(starts or ()))):
        step = 1 if steps is None else steps[i]
        end: Any = ends[i]                                      # type: ignore[index]
        index[axis] = slice(starts[i], None if step < 0 and end < -x.shape[axis] else end, step)    # type: ignore[index]
    return x[tuple(index)]


def _few(count: int) -> None:
    """Before they are made: a short file could ask for any number of them."""
    if count > _MOST:
        raise ValueError(f"a constant of {count} numbers")


def _concat(attributes: dict[str, Any], *inputs: Any) -> Any:
    _few(sum(x.size for x in inputs))
    return np.concatenate(inputs, attributes["axis"])


def _gather(attributes: dict[str, Any], x: Any, places: Any) -> Any:
    _few(x.size * max(np.size(places), 1))
    return x.take(np.asarray(places, np.int64), attributes.get("axis", 0))


def _constant_of_shape(shape: Any, value: Any) -> Any:
    sizes = [int(n) for n in shape]
    _few(prod(sizes))
    return np.full(sizes, np.float32(0) if value is None else np.asarray(value).reshape(-1)[0])


CAST = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}

# operator → function of its attributes and inputs

FOLDED: dict[str, Callable[..., Any]] = {
    "Identity": lambda a, x: x,
    "Transpose": lambda a, x: x.transpose(a.get("perm")),
    "Unsqueeze": lambda a, x, *given: np.expand_dims(x, _axes(given, a)),
    "Squeeze": lambda a, x, *given: np.squeeze(x, _axes(given, a)),
    "Concat": _concat,
    "Gather": _gather,
    "Reshape": lambda a, x, shape: x.reshape([x.shape[i] if n == 0 else int(n) for i, n in enumerate(shape)]),
    "Slice": lambda a, x, *given: _slice(x, a, *given),
    "Cast": lambda a, x: x if x.dtype == object else x.astype(CAST[a["to"]]),
    "ConstantOfShape": lambda a, shape: _constant_of_shape(shape, a.get("value")),
}
