"""A network in two: what comes up to a layer, and the rest; or the former alone. The layers are the same, by the same names."""

from __future__ import annotations

from typing import TypeGuard

from ..errors import ArgumentError
from .containers import Concat, Container, Residual, Sequential, visible
from .layer import Layer, join


def split(model: Layer, last: str) -> tuple[Sequential, Sequential]:
    """(base, head) with head(base(x)) = model(x): the base ends with the layer at the dotted path `last`.

    Nothing is copied: a step of learning on the head is one on the model, and the names of its parameters are the model's.
    Raises ArgumentError with the nearest names for a layer that is not there, for one that stands in a branch (Concat, Residual),
    and where a layer would be in both.
    """
    model.layer(last)
    base, head = _halves(model, last, "")
    shared = {id(layer) for _, layer in base.layers()} & {id(layer) for _, layer in head.layers() if layer.parameter_names}
    if shared:
        raise ArgumentError(f"split: a layer before {last!r} is used again behind it")
    return base, head


def below(model: Layer, last: str) -> Layer:
    """What the layer at the dotted path `last` is computed by: nothing that comes after it, or stands in a branch beside it.

    Nothing is copied, and all paths stay as they are. Raises ArgumentError with the nearest names for a layer that is not there.
    """
    model.layer(last)
    return _below(model, last, "")


def routes_plainly(model: Layer) -> TypeGuard[Sequential | Concat | Residual]:
    """Whether it is a Sequential, Concat or Residual, or a subclass that leaves all walks to them."""
    kind = next((kind for kind in (Sequential, Concat, Residual) if isinstance(model, kind)), None)
    walks = ("forward", "__call__", "walk", "infer", "reverse")
    return kind is not None and all(getattr(type(model), walk) is getattr(kind, walk) for walk in walks)


def _below(model: Layer, last: str, path: str) -> Layer:
    if not routes_plainly(model):
        return model
    before: dict[str, Layer] = {}
    for name, child in model.named_children():
        here = join(path, visible(name))
        if visible(name) and here == last:
            return Sequential({**before, name: child})
        if any(inner == last for inner, layer in child.layers(here) if layer is not child):
            return Sequential({**before, name: _below(child, last, here)})
        if isinstance(model, Sequential):                       # in the others a branch has no part in the next
            before[name] = child
    return model


def _halves(model: Layer, last: str, path: str) -> tuple[Sequential, Sequential]:
    if not isinstance(model, Sequential) or not routes_plainly(model):
        raise ArgumentError(f"split: {last!r} stands in a branch or is no layer of its own; name a layer that all signals pass")
    base: dict[str, Layer] = {}
    head: dict[str, Layer] = {}
    found = False
    for name, child in model.named_children():
        here = join(path, visible(name))
        if found:
            head[name] = child
        elif here == last and visible(name):
            base[name], found = child, True
        elif any(inner == last for inner, _ in child.layers(here) if inner != path) and isinstance(child, Container):
            base[name], head[name] = _halves(child, last, here)
            found = True
        else:
            base[name] = child
    return Sequential(base), Sequential({name: child for name, child in head.items() if not _empty(child)})


def _empty(layer: Layer) -> bool:
    return isinstance(layer, Sequential) and not len(layer)
