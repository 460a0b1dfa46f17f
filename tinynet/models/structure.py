"""What a network is built of, as plain JSON values: so a network that has no name in the registry can be saved and read back."""

from __future__ import annotations

import copy
import inspect
import json
from typing import Any

import numpy as np

from .. import nn
from ..errors import ArgumentError, TinynetError
from ..nn import Layer, init
from ..nn.containers import Container

_KINDS = {
    name: kind for name in nn.__all__
    if inspect.isclass(kind := getattr(nn, name)) and issubclass(kind, Layer) and kind not in (Layer, Container)
}
_GIVEN = ("rng", "args", "kwargs", "layers", "named")           # parameters that say nothing of what is built
DEEPEST = 64
"""Containers within one another."""


def structure(model: Layer) -> dict[str, Any]:
    """The layers of a model and their options, without weights. A layer that stands in several places is one there, too.

    Raises ArgumentError, in one line, for a layer that is not of tinynet.nn, or whose options cannot be read off it.
    """
    record = _described(model, "", {})
    if _described(build(record), "", {}) != record:
        raise ArgumentError("options of its layers were changed after they were built")
    return record


def build(record: Any) -> Layer:
    """The network that `structure` described, its weights zero. Raises ArgumentError for a record that is none."""
    try:
        return _built(record, [], 0)
    except TinynetError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ArgumentError(f"no description of a network ({type(error).__name__}: {error})") from None


def with_classes(model: Layer, classes: int, rng: np.random.Generator | None = None) -> Layer:
    """A copy of a model whose last layer with weights, freshly drawn, tells that many classes apart; itself if it already does.

    Raises ArgumentError where that is no convolution and no linear layer.
    """
    path, last = last_weighted(model)
    name = {nn.Linear: "out_features", nn.Conv2d: "out_channels"}.get(type(last))
    if name is None:
        raise ArgumentError(f"{path}: {type(last).__name__} is the last layer with weights; expected Linear or Conv2d")
    if getattr(last, name) == classes:
        return model
    options = {**_options(last, path), name: classes}
    fresh = _tuples(options)
    changed = copy.deepcopy(model)
    kind: Any = type(last)
    _put(changed, path.split("."), kind(**fresh, rng=rng))
    return changed


def last_weighted(model: Layer) -> tuple[str, Any]:
    """Path and layer of the last with filters or a matrix: it tells the classes apart. Raises ArgumentError if there is none."""
    found = [(path, layer) for path, layer in model.layers() if "weight" in layer.parameter_names
             and getattr(getattr(layer, "weight", None), "ndim", 0) > 1]
    if not found:
        raise ArgumentError("a network without weights tells no classes")
    return found[-1]


def _described(layer: Layer, path: str, seen: dict[int, int]) -> dict[str, Any]:
    if id(layer) in seen:
        return {"same": seen[id(layer)]}
    seen[id(layer)] = len(seen)
    kind = type(layer).__name__
    if _KINDS.get(kind) is not type(layer):
        raise ArgumentError(f"{path or 'the model'} is a {kind}, which is no layer of tinynet.nn")
    if isinstance(layer, Container):
        children = [[name, _described(child, f"{path}.{name}".lstrip("."), seen)] for name, child in layer.named_children()]
        return {"kind": kind, "children": children}
    return {"kind": kind, "options": _options(layer, path)}


def _options(layer: Layer, path: str) -> dict[str, Any]:
    """The arguments that build such a layer."""
    found: dict[str, Any] = {}
    for name, parameter in _parameters(type(layer)).items():
        if name == "bias":
            found[name] = getattr(layer, "bias", None) is not None or getattr(layer, "weight", None) is None
        elif name == "dtype":
            arrays = (getattr(layer, a, None) for a in (*layer.parameter_names, *layer.buffer_names))
            found[name] = next((str(x.dtype) for x in arrays if x is not None and x.dtype.kind == "f"), "float32")
        elif hasattr(layer, name):
            found[name] = getattr(layer, name)
        elif parameter.default is inspect.Parameter.empty:
            raise ArgumentError(f"{path}: {type(layer).__name__} does not say its {name}")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(found))
    except (TypeError, ValueError):
        raise ArgumentError(f"{path}: {type(layer).__name__} has options that are no plain values") from None
    return plain


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    return {name: p for name, p in inspect.signature(kind).parameters.items() if name not in _GIVEN}


def _built(record: Any, seen: list[Layer | None], depth: int) -> Layer:
    if not isinstance(record, dict) or depth > DEEPEST:
        raise ArgumentError(f"no description of a network, or containers more than {DEEPEST} deep")
    if "same" in record:
        number = record["same"]
        found = seen[number] if isinstance(number, int) and 0 <= number < len(seen) else None
        if found is None:
            raise ArgumentError(f"a description that refers to layer {number!r}, which is not there")
        return found
    kind = _KINDS.get(str(record.get("kind")))
    if kind is None:
        raise ArgumentError(f"a description with the layer {str(record.get('kind'))[:60]!r}, which tinynet.nn does not have")
    place = len(seen)
    seen.append(None)
    if issubclass(kind, Container):
        made: Layer = kind({str(name): _built(child, seen, depth + 1) for name, child in record["children"]})
    else:
        options, known = _tuples(dict(record["options"])), _parameters(kind)
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ArgumentError(f"a description with {kind.__name__}({unknown[0][:60]}=…), which there is not")
        made = kind(**options, **({"rng": init.no_draws} if "rng" in inspect.signature(kind).parameters else {}))
    seen[place] = made
    return made


def _tuples(value: Any) -> Any:
    """Lists, as JSON has them, as tuples; names of dtypes as dtypes."""
    if isinstance(value, dict):
        return {name: np.dtype(v) if name == "dtype" else _tuples(v) for name, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _put(model: Layer, path: list[str], layer: Layer) -> None:
    """Let the layer stand at the path, in place of what does."""
    assert isinstance(model, Container)
    for name, child in model.named_children():
        hidden = name.startswith("_")
        if not hidden and [name] == path:
            model._children[name] = layer
            return
        rest = path if hidden else path[1:] if name == path[0] else None
        if rest and isinstance(child, Container) and any(here == ".".join(rest) for here, _ in child.layers()):
            _put(child, rest, layer)
            return
    raise ArgumentError(f"no layer {'.'.join(path)!r}")


__all__ = ["build", "structure", "with_classes"]
