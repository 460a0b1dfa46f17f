"""The family of maps that say where a class was seen, asked in one way, and held against a truth that is known (`localisation`).

Each method gives (N, C, H, W) or (N, 1, H, W) for a batch and one class an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, to_host
from ..errors import ArgumentError, ShapeError
from ..nn import Layer, without_softmax
from .attribution import Attribution
from .cam import grad_cam
from .deconvnet import deconvnet
from .gradients import input_x_gradient, integrated_gradients, saliency, smoothgrad
from .guided import guided_backprop
from .observe import last_stage
from .occlusion import covered
from .scores import centre_guess, chance, energy_inside, importance, pointing
from .units import record, select

Ask = Callable[[Layer, Array, Array, str], Array]
"""(model, x (N, C, H, W), classes (N,), the layer of Grad-CAM) → attribution."""


AskEach = Callable[[Sequence[Layer], Array, Array, str], list[Array]]
"""The same of several networks, which are asked about the same classes."""


class Method(NamedTuple):
    """One way to ask. signed: whether the sign says for or against the class; otherwise its magnitude alone is of interest.

    ask_each: of several networks at once, where that costs less than one after the other. settings: what else was chosen.
    """

    name: str
    signed: bool
    ask: Ask
    ask_each: AskEach | None = None
    settings: Mapping[str, Any] = MappingProxyType({})

    def of_each(self, models: Sequence[Layer], x: Array, target: Array, layer: str) -> list[Array]:
        """What `ask` gives for each of the networks. The lower layers that they share with the first are computed once."""
        if self.ask_each is not None:
            return self.ask_each(models, x, target, layer)
        return [self.ask(model, x, target, layer) for model in models]

    def importance(self, attribution: Array) -> Array:
        """(N, C, H, W) → (N, H, W): how much each pixel counts."""
        return importance(attribution, self.signed)


def _asked(way: Callable[[Layer], Attribution]) -> Ask:
    return lambda model, x, target, layer: way(model).attribute(x, target)


def _averaged(
    name: str, signed: bool, way: Callable[[Layer], integrated_gradients | smoothgrad], settings: Mapping[str, Any]
) -> Method:
    return Method(
        name, signed, _asked(way), lambda models, x, target, layer: way(models[0]).of_each(models[1:], x, target), settings
    )


def _deconvnet(model: Layer, x: Array, target: Array, layer: str) -> Array:
    """From 1 at the class, and not from its value: of a negative logit the picture would be of what speaks against."""
    taken = record(model, x, None)
    return deconvnet(model).back(taken, select(taken, target, None))


def _grad_cam(model: Layer, x: Array, target: Array, layer: str) -> Array:
    return grad_cam(model, layer).attribute(x, target)


def _occlusion(models: Sequence[Layer], x: Array, target: Array, layer: str) -> list[Array]:
    """What covering a pixel costs in probability, by squares of a quarter of the shorter side, one photo after the other."""
    photos = [[found.attribution() for found in covered(models, x[i], int(t))] for i, t in enumerate(to_host(target))]
    return [array_module(x).asarray(np.stack(maps)[:, None].astype(str(x.dtype))) for maps in zip(*photos, strict=True)]


def family(steps: int = 50, samples: int = 25, noise: float = 0.15) -> tuple[Method, ...]:
    """Every method that `tinynet explain` shows, those that pass the test of redrawn weights (Adebayo et al. 2018) first.

    steps: of integrated gradients, from 0. samples, noise: of SmoothGrad.
    """
    return (
        Method("saliency", False, _asked(saliency)),
        Method("input × gradient", True, _asked(input_x_gradient)),
        _averaged("integrated gradients", True, lambda model: integrated_gradients(model, steps),
                  {"steps": steps, "baseline": 0.0}),
        _averaged("SmoothGrad", False, lambda model: smoothgrad(model, samples, noise),
                  {"samples": samples, "noise": noise}),
        Method("Grad-CAM", True, _grad_cam),
        Method("occlusion", True, lambda model, x, target, layer: _occlusion([model], x, target, layer)[0], _occlusion),
        Method("guided backprop", False, _asked(guided_backprop)),
        Method("deconvnet", False, _deconvnet),
    )


FAMILY = family()


class Located(NamedTuple):
    """How well a method's maps lie in the masks of a set of photos: the means of the pointing game and of the energy inside.

    over_chance, over_centre: how much better it points than a random point, and than a guess at the centre.
    """

    name: str
    pointing: float
    energy: float
    over_chance: float
    over_centre: float


def localisation(
    model: Layer, x: Array, masks: Array, target: Any = None, *, methods: Sequence[Method] = FAMILY, layer: str | None = None,
    tolerance: float = 0, batch_size: int = 16,
) -> list[Located]:
    """The pointing game and the energy inside for each method, then for "centre guess" and "chance" (Zhang et al. 2016).

    x: (N, C, H, W). masks: (N, H, W), true where the evidence is. target: a class, or one an image (default: what the model
    says). layer: Grad-CAM's (default: the last convolution's, rectified). tolerance: pixels beside a mask that count as hits.
    """
    n, _, h, w = x.shape
    masks = np.asarray(to_host(masks)).astype(bool)
    if masks.shape != (n, h, w) or n == 0:
        raise ShapeError(f"localisation: expected masks {(n, h, w)} for at least one photo, got {masks.shape}")
    if batch_size < 1:
        raise ArgumentError(f"localisation: expected batch_size of at least 1, got {batch_size}")
    xp, model = array_module(x), without_softmax(model)
    layer = last_stage(model) if layer is None else layer
    maps: dict[str, list[np.ndarray]] = {method.name: [] for method in methods}
    for begin in range(0, n, batch_size):
        part = x[begin : begin + batch_size]
        if target is None:
            classes = model(part).argmax(axis=1)
        else:
            classes = xp.asarray(np.broadcast_to(to_host(xp.asarray(target)), (n,))[begin : begin + batch_size].copy())
        for method in methods:
            maps[method.name].extend(to_host(method.importance(method.ask(model, part, classes, layer))))
    maps["centre guess"] = [centre_guess(h, w)] * n
    random = float(np.mean([chance(mask, tolerance) for mask in masks]))
    hits = {name: float(np.mean([pointing(m, mask, tolerance) for m, mask in zip(found, masks, strict=True)]))
            for name, found in maps.items()}
    inside = {name: float(np.mean([energy_inside(m, mask) for m, mask in zip(found, masks, strict=True)]))
              for name, found in maps.items()}
    centre = hits["centre guess"]
    rows = [Located(name, hits[name], inside[name], hits[name] - random, hits[name] - centre) for name in maps]
    return [*rows, Located("chance", random, float(masks.mean()), 0.0, random - centre)]


def localisation_table(rows: Sequence[Located]) -> str:
    """The rows as lines of text, the best first, percentages."""
    width = max(len(row.name) for row in rows)
    head = f"{'':<{width}}  pointing game   over chance   over centre   energy inside"
    lines = [
        f"{row.name:<{width}}  {100 * row.pointing:>11.1f} %   {100 * row.over_chance:>+11.1f}   {100 * row.over_centre:>+11.1f}"
        f"   {100 * row.energy:>11.1f} %"
        for row in sorted(rows, key=lambda row: -row.pointing)
    ]
    return "\n".join([head, *lines])


__all__ = ["FAMILY", "Located", "Method", "family", "localisation", "localisation_table"]
