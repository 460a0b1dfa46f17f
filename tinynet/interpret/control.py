"""The control of every picture: the same question asked of the same network with redrawn weights.

Cascading randomisation (Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim 2018, "Sanity checks for saliency maps", section 3.1):
from the top down to a layer all that was learned is replaced. A picture that hardly changes does not show what was learned.
"""

from __future__ import annotations

import copy
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, to_host
from ..errors import ArgumentError
from ..nn import Layer
from ..nn.containers import Container
from ..nn.init import fans
from ..nn.layer import join
from ..nn.norm import _BatchNorm
from .deconvnet import deconvnet
from .units import Unit, record, select


def randomised(model: Layer, rng: np.random.Generator, down_to: str | None = None, share: bool = False) -> Layer:
    """A copy of the model whose weights from the top down to `down_to` (included; None: all) are redrawn.

    Every layer gets weights as fresh ones, at the scale of the trained: filters and matrices are drawn from N(0, σ²), σ the root
    mean square of what stood there (He's σ, √(2 / fan_in), if all of it is zero), biases become zero, BatchNorm becomes the
    identity (mean 0, variance 1, gain 1, shift 0), any other vector is drawn with the mean and the deviation it had. So no layer
    dies, as happens when BatchNorm's statistics of another network stay; pictures are compared without regard to their scale.

    down_to: the dotted name of a layer or container; above it stands what comes later in the state dict. A layer that is used
    twice is redrawn if one of its places is. The model stays as it is. share: the layers that keep their weights are the model's
    own, not copies. Raises ArgumentError that lists the nearest names.
    """
    if down_to is not None:
        model.layer(down_to)
    fresh = copy.deepcopy(model, _kept(model, down_to) if share else None)
    seen: set[int] = set()
    for path, layer in _from_the_top(fresh, down_to):
        if id(layer) not in seen:
            seen.add(id(layer))
            _redraw(path, layer, rng)
    return fresh


class Control(NamedTuple):
    """A network with its weights redrawn from the top down to a layer. all: down to the first."""

    down_to: str
    model: Layer
    all: bool


def controls_of(model: Layer) -> list[Control]:
    """The model with its last layer with filters or a matrix redrawn, with the upper half of these, and with all."""
    weighted = _weighted(model)
    if not weighted:
        raise ArgumentError("the model has no filters and no matrix; there is nothing to redraw for a control")
    chosen = dict.fromkeys([weighted[-1], weighted[len(weighted) // 2], weighted[0]])
    return [_control(model, path, path == weighted[0]) for path in chosen]


def controls_of_units(model: Layer, layer: str, last: Control) -> list[Control]:
    """Of a unit of the layer: redrawn down to its own filters, and `last`, to the first. What is above has no part."""
    paths, weighted = [path for path, _ in model.layers()], _weighted(model)
    own = [path for path in weighted if paths.index(path) <= paths.index(layer) or path.startswith(f"{layer}.")]
    return [last] if not own or own[-1] == last.down_to else [_control(model, own[-1], False), last]


def _control(model: Layer, path: str, all: bool) -> Control:
    return Control(path, randomised(model, np.random.default_rng(0), path, share=True), all)


def _weighted(model: Layer) -> list[str]:
    """The layers with filters or a matrix, in forward order."""
    return [
        path for path, layer in model.layers()
        if not isinstance(layer, Container) and getattr(getattr(layer, "weight", None), "ndim", 0) >= 2
    ]


def control_projection(control: Layer, model: Layer, x: Array, layer: str, unit: Unit) -> Array:
    """What the deconvnet gives through the control for the unit's activation in the model: the walk begins with the same value at
    the same place. x: (N, C, H, W). Returns x's shape.
    """
    taken = record(model, x, layer)
    return deconvnet(control).back(record(control, x, layer), taken.output * select(taken, None, unit))


def cascade(model: Layer, rng: np.random.Generator) -> list[tuple[str, Layer]]:
    """(down_to, copy) for every layer with weights, from the last, which alone is redrawn, to the first: all are.

    Each layer's new weights are the same in all copies that have them, so that a step shows the effect of one layer.
    """
    paths = [path for path, layer in model.layers() if not isinstance(layer, Container) and _learned(layer)][::-1]
    copies: list[tuple[str, Layer]] = []
    seen: set[int] = set()
    last = model
    for path in dict.fromkeys(paths):
        if id(model.layer(path)) in seen:                       # used twice: its other place has it redrawn already
            continue
        seen.add(id(model.layer(path)))
        last = copy.deepcopy(last)
        _redraw(path, last.layer(path), rng)
        copies.append((path, last))
    return copies


def untrained(model: Layer) -> str | None:
    """Why the model looks as if nobody had trained it, or None.

    Its weights are all zero (init.no_draws), or its BatchNorms have never seen a batch, or every weight has the spread of a fresh
    one (He, Xavier, PyTorch's default, or the 0.01 of AlexNet's time) to within what chance allows. A few steps of training go
    unnoticed in the last case.
    """
    weights = [to_host(layer.weight) for _, layer in model.layers()                # type: ignore[attr-defined]
               if "weight" in layer.parameter_names and getattr(layer, "weight", None) is not None]
    weights = [w for w in weights if w.ndim >= 2]
    if weights and not any(w.any() for w in weights):
        return "its weights are all zero"
    norms = [layer for _, layer in model.layers() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if norms:
        return None if any(_has_seen(layer) for layer in norms) else "its BatchNorms have never seen a batch"
    if weights and all(_looks_fresh(w) for w in weights):
        return "its weights are spread as freshly drawn ones"
    return None


def _has_seen(layer: _BatchNorm) -> bool:
    """By its count, or, in a file from the time before that was kept, by its statistics."""
    return bool(int(layer.num_batches_tracked) or (layer.running_mean != 0).any() or (layer.running_var != 1).any())


def _looks_fresh(weight: np.ndarray) -> bool:
    """The root mean square is that of a usual initialisation, to within four standard errors (of N(0, σ²): σ/√(2n))."""
    fan_in, fan_out = fans(weight.shape)
    rms = sqrt(float(np.mean(np.square(weight, dtype=np.float64))))
    usual = [sqrt(1 / (3 * fan_in)), sqrt(2 / fan_in), sqrt(2 / fan_out), sqrt(1 / fan_in), sqrt(2 / (fan_in + fan_out)), 0.01]
    return any(abs(rms / sigma - 1) < 4 / sqrt(2 * weight.size) for sigma in usual)


def _from_the_top(model: Layer, down_to: str | None) -> list[tuple[str, Layer]]:
    """(path, leaf), last first, ending with the leaves of `down_to`."""
    leaves = [(path, layer) for path, layer in model.layers() if not isinstance(layer, Container)]
    if down_to:
        inside = [i for i, (path, _) in enumerate(leaves) if path == down_to or path.startswith(f"{down_to}.")]
        if not inside:
            raise ArgumentError(f"randomised: {down_to!r} holds no layer")
        leaves = leaves[inside[0] :]
    return leaves[::-1]


def _kept(model: Layer, down_to: str | None) -> dict[int, Any]:
    """What is not redrawn, by its id: the memory of a deepcopy that is to leave it as it is."""
    redrawn = {id(layer) for _, layer in _from_the_top(model, down_to) if _learned(layer)}
    return {id(layer): layer for _, layer in model.layers() if not any(id(inner) in redrawn for _, inner in layer.layers())}


def _learned(layer: Layer) -> bool:
    """Whether it holds something that is redrawn: parameters, or the statistics of a BatchNorm, which may have no parameters."""
    return bool(_arrays(layer)) or (isinstance(layer, _BatchNorm) and layer.track_running_stats)


def _arrays(layer: Layer) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in layer.parameter_names if getattr(layer, name) is not None}


def _redraw(path: str, layer: Layer, rng: np.random.Generator) -> None:
    """New weights for one layer, in place."""
    if isinstance(layer, _BatchNorm):
        neutral = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
        for name, value in neutral.items():
            if getattr(layer, name) is not None:
                getattr(layer, name)[...] = value
        return
    for name, array in _arrays(layer).items():
        if array.dtype.kind != "f":
            raise ArgumentError(f"randomised: {join(path, name)} holds {array.dtype}, expected floating-point weights")
        array[...] = array_module(array).asarray(_fresh(name, to_host(array), rng))


def _fresh(name: str, array: np.ndarray, rng: np.random.Generator) -> Array:
    if array.ndim >= 2:
        scale = sqrt(float(np.mean(np.square(array, dtype=np.float64)))) or sqrt(2 / max(fans(array.shape)[0], 1))
        return (scale * rng.standard_normal(array.shape)).astype(array.dtype)
    if name == "bias":
        return np.zeros_like(array)
    return (array.mean() + array.std() * rng.standard_normal(array.shape)).astype(array.dtype)


__all__ = ["Control", "cascade", "control_projection", "controls_of", "controls_of_units", "randomised", "untrained"]
