"""Everything about one photo: which units answer to what, which pixels the class depends on, and how far either can be believed.

Beside each projection and each map stands its control, the same question put to the network with redrawn weights (from the top
down: the last layer, the upper half, all), and figures: likeness to the control, deletion and insertion, and, where a mask says
where the object is, the pointing game and the energy inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, to_host
from ..distributed.memory import MOST, KeptMemory
from ..errors import ArgumentError, ShapeError
from ..nn import Layer, without_softmax
from ..nn.classes import probabilities
from ..nn.receptive_field import receptive_field
from . import scores
from .control import Control, controls_of, controls_of_units, untrained
from .deconvnet import deconvnet, without_rule
from .deletion import Areas, blur_of, class_areas, unit_areas
from .family import Method, family
from .observe import last_stage, one_input, stages, tells_classes
from .occlusion import default_patch, default_stride
from .patches import Window, cut, seen, window
from .units import check_index, record

LAYERS = 5
"""At most so many layers are shown unless some are named."""
STEPS = 16
"""Of deletion and insertion, at cosine spacing. Of three photos, five maps each, boxed network, the areas differ from those
of 192 steps by 0.002 and 0.003 (at most 0.009); of 32 even steps, by 0.003 and 0.003 (at most 0.016)."""
METHODS = family(steps=25)
"""25 steps of integrated gradients: of four photos, the ranks of the map correlate 0.995 with those of 400 steps, structural
similarity 0.999; with 50 steps 0.998 and 1.000."""


class Likeness(NamedTuple):
    """What a method gives where the weights are redrawn down to a layer, (C, H, W), and how like the true picture it is.

    ranks, likeness: rank correlation and structural similarity, 1 where they are the same.
    """

    down_to: str
    attribution: np.ndarray
    ranks: float
    likeness: float


class UnitPicture(NamedTuple):
    """A unit's strongest activation in the photo.

    position: (y, x) in the map; empty for a layer without maps. where: the cells of the input that it sees. patch, projection:
    (C, h, w), the input and the deconvnet's projection there. controls: the same projection through the network redrawn down to
    the unit's own layer, and to the first.
    areas: under the unit's activation, as a share of its value, while pixels that it sees go or come in the order of the
    projection, and in random order. pointing, energy: as in ClassMap.
    """

    channel: int
    position: tuple[int, ...]
    value: float
    where: Window
    patch: np.ndarray
    projection: np.ndarray
    controls: list[Likeness]
    areas: Areas
    pointing: float | None
    energy: float | None
    of_class: bool
    """Whether the channel is a class: nothing comes after the layer that mixes channels."""


class ClassMap(NamedTuple):
    """A method's answer for the class. attribution: (C, H, W). importance: (H, W). deletion, insertion: areas, 0 … 1.

    pointing, energy: whether the strongest pixel is in the mask, and the share of the importance that is; None without a mask.
    """

    name: str
    signed: bool
    attribution: np.ndarray
    importance: np.ndarray
    controls: list[Likeness]
    deletion: float
    insertion: float
    pointing: float | None
    energy: float | None


@dataclass(frozen=True)
class Explanation:
    """What `explain` found of one photo. x: (C, H, W), as the model saw it. target: the class that was asked about.

    probabilities: (classes,). units: layer → its strongest units. random_order: deletion and insertion of pixels in random order.
    chance, centre: (pointing, energy) of a random point and of a guess at the centre; None without a mask.
    settings: what was chosen, for each method and for deletion and insertion. left_out: a line for each kind of thing that the
    model does not allow. warning: what a reader must know first, e.g. that nobody trained the model.
    """

    x: np.ndarray
    target: int
    probabilities: np.ndarray
    units: dict[str, list[UnitPicture]]
    maps: list[ClassMap]
    random_order: tuple[float, float]
    mask: np.ndarray | None
    chance: tuple[float, float] | None
    centre: tuple[float, float] | None
    settings: dict[str, dict[str, Any]]
    left_out: list[str]
    warning: str | None

    def to_dict(self) -> dict[str, Any]:
        """The figures alone, as plain JSON values."""
        return {
            "class": self.target, "probability": float(self.probabilities[self.target]), "warning": self.warning,
            "left_out": self.left_out, "settings": self.settings,
            "units": {layer: [
                {"channel": u.channel, "position": list(u.position), "value": u.value, "receptive_field": list(u.where),
                 **u.areas._asdict(), **_figures(u)} for u in units
            ] for layer, units in self.units.items()},
            "methods": {
                m.name: {"deletion": m.deletion, "insertion": m.insertion, **_figures(m)} for m in self.maps
            },
            "baselines": {
                "random_order": dict(zip(("deletion", "insertion"), self.random_order, strict=True)),
                **{name: dict(zip(("pointing", "energy_inside"), pair, strict=True))
                   for name, pair in (("chance", self.chance), ("centre_guess", self.centre)) if pair is not None},
            },
        }


def _figures(made: UnitPicture | ClassMap) -> dict[str, Any]:
    return {
        "pointing": made.pointing, "energy_inside": made.energy,
        "similarity_to_control": {c.down_to: {"rank_correlation": c.ranks, "ssim": c.likeness} for c in made.controls},
    }


def explain(
    model: Layer, x: Array, target: int | None = None, *, layers: Sequence[str] | None = None, units: int = 3,
    mask: Array | None = None, controls: Sequence[Control] | None = None, methods: Sequence[Method] = METHODS, steps: int = STEPS,
) -> Explanation:
    """The strongest units of each layer and the family of class maps for one photo, each with its control and its figures.

    x: one input (C, H, W), or a batch of one. target: a class (default: what the model says). layers: names, or "name:channel"
    for one unit; default: the rectified maps of at most LAYERS convolutions, evenly chosen. units: how many a layer. mask:
    (H, W), true where the object is. controls: what controls_of gave. steps: of deletion and insertion (of a unit's: half as
    many). A Softmax that comes last is left out: the maps begin with the class's logit. Projections that cannot pass a layer
    are left out, too, and so is guided backprop there; left_out says so.
    Raises ArgumentError that lists the nearest names for a layer, channel or class that is not there.
    """
    x, model = one_input("explain", x), without_softmax(model)
    if units < 1:
        raise ArgumentError(f"explain: expected at least one unit a layer, got {units}")
    if mask is not None and tuple(mask.shape) != tuple(x.shape[2:]):
        raise ShapeError(f"explain: expected a mask {tuple(x.shape[2:])}, got {tuple(mask.shape)}")
    wanted = _layers(model, layers)
    p = probabilities(model(x))[0]
    target = int(p.argmax()) if target is None else target
    check_index(target, len(p), "the model", "classes")
    controls = [c._replace(model=without_softmax(c.model)) for c in (controls_of(model) if controls is None else controls)]
    cam = last_stage(model) if stages(model) else None
    asked, seen_through, left_out = _possible(model, wanted, methods, cam)
    mask = None if mask is None else to_host(mask).astype(bool)
    with KeptMemory(MOST):
        shown = {
            layer: _units(model, controls_of_units(model, layer, controls[-1]), x, layer, channels, units, mask, steps, len(p))
            for layer, channels in wanted.items() if layer in seen_through
        }
        maps, random_order = _maps(model, controls, x, int(target), asked, cam, mask, steps)
    reason, even = untrained(model), None if mask is None else scores.chance(mask)
    return Explanation(
        to_host(x)[0], int(target), p, shown, maps, random_order, mask, None if even is None else (even, even),
        None if mask is None else _inside(scores.centre_guess(*mask.shape), mask), _settings(asked, x, cam, steps), left_out,
        None if reason is None else f"the model looks untrained: {reason}; what is shown was not learned",
    )


def _possible(
    model: Layer, layers: Iterable[str], methods: Sequence[Method], cam: str | None
) -> tuple[list[Method], list[str], list[str]]:
    """The methods that the model allows, the layers whose units have projections, and what is left out, in words."""
    barred = {layer: without_rule(model, layer) for layer in layers}
    at_top, named = without_rule(model), [method.name for method in methods]
    words, out = [], [name for name in named if at_top and name in ("guided backprop", "deconvnet")]
    units = [layer for layer, why in barred.items() if why]
    if out or units:
        what = [*out, *([f"units of {', '.join(units)}"] if units else [])]
        words.append(f"left out: {', '.join(what)}; the deconvnet has no rule for {at_top or barred[units[0]]}")
    without_cam = [name for name in named if cam is None and name in ("Grad-CAM", "occlusion")]
    if without_cam:
        words.append(f"left out: {', '.join(without_cam)}; the model has no convolution")
    left = [method for method in methods if method.name not in (*out, *without_cam)]
    return left, [layer for layer, why in barred.items() if not why], words


def _settings(methods: Sequence[Method], x: Array, cam: str | None, steps: int) -> dict[str, dict[str, Any]]:
    """What was chosen, in the units of the input and in pixels. Of methods with nothing to choose there is no entry."""
    chosen = {method.name: dict(method.settings) for method in methods}
    if "Grad-CAM" in chosen:
        chosen["Grad-CAM"]["layer"] = cam
    if "occlusion" in chosen:
        side = default_patch(*x.shape[2:])
        chosen["occlusion"] |= {"square": [side, side], "stride": list(default_stride(side, side)), "fill": 0.0}
    chosen["deletion"] = {"steps": steps, "steps_of_units": _of_units(steps), "baseline": 0.0}
    chosen["insertion"] = {"steps": steps, "steps_of_units": _of_units(steps), "baseline": f"blur of {blur_of(x):g} pixels"}
    return {name: settings for name, settings in chosen.items() if settings}


def _of_units(steps: int) -> int:
    return max(1, steps // 2)


def _layers(model: Layer, names: Sequence[str] | None) -> dict[str, list[int]]:
    """layer → the channels that were asked for (none: the strongest)."""
    if names is None:
        found = stages(model)
        chosen = found if len(found) <= LAYERS else [found[round(i)] for i in np.linspace(0, len(found) - 1, LAYERS)]
        return {layer: [] for layer in chosen}
    wanted: dict[str, list[int]] = {}
    for name in names:
        layer, colon, channel = name.partition(":")
        model.layer(layer)
        wanted.setdefault(layer, [])
        if colon:
            if not channel.isdecimal():
                raise ArgumentError(f"expected LAYER or LAYER:CHANNEL with a number, got {name!r}")
            wanted[layer].append(int(channel))
    return wanted


def _units(
    model: Layer, controls: Sequence[Control], x: Array, layer: str, channels: Sequence[int], count: int,
    mask: np.ndarray | None, steps: int, classes: int,
) -> list[UnitPicture]:
    taken = record(model, x, layer)
    redrawn = [(control.down_to, control.model, record(control.model, x, layer)) for control in controls]
    y = to_host(taken.output)[0]                                # (C, h, w) or (C,)
    flat = y.reshape(len(y), -1)
    for channel in channels:
        check_index(channel, len(y), f"layer {layer!r}")
    of_class = len(y) == classes and tells_classes(model, layer)
    chosen = channels or np.argsort(-flat.max(axis=1), kind="stable")[:count].tolist()
    field, found = receptive_field(model, layer), []
    for channel in chosen:
        place = tuple(int(i) for i in np.unravel_index(int(flat[channel].argmax()), y.shape[1:]))
        where, signal = window(field, place, x.shape[2:]), array_module(x).zeros_like(taken.output)
        signal[(0, channel, *place)] = 1
        value = float(taken.output[(0, channel, *place)])
        # From 1, then times the value: so a silent unit's control is not blank, and all walks begin with the same signal.
        whole = value * deconvnet(model).back(taken, signal)
        patch, projection = (to_host(cut(v[0], where)) for v in (x, whole))
        likeness = []
        for down_to, other, kept in redrawn:
            picture = to_host(cut(value * deconvnet(other).back(kept, signal)[0], where))
            ranks, ssim = scores.rank_correlation(projection, picture), scores.ssim(projection, picture)
            likeness.append(Likeness(down_to, picture, ranks, ssim))
        maps = scores.importance(whole, signed=False)
        areas = unit_areas(model, x, maps, layer, (channel, *place), seen(where, x.shape[2:]), _of_units(steps))
        pointing, energy = (None, None) if mask is None else _inside(to_host(maps)[0], mask)
        found.append(UnitPicture(channel, place, value, where, patch, projection, likeness, areas, pointing, energy, of_class))
    return found


def _maps(
    model: Layer, controls: Sequence[Control], x: Array, target: int, methods: Sequence[Method], cam: str | None,
    mask: np.ndarray | None, steps: int,
) -> tuple[list[ClassMap], tuple[float, float]]:
    """Each method's, and deletion and insertion in random order."""
    xp, classes = array_module(x), array_module(x).asarray(np.array([target]))
    networks = [model, *(control.model for control in controls)]
    attributions = [method.of_each(networks, x, classes, cam or "") for method in methods]
    maps = [method.importance(true) for method, (true, *_) in zip(methods, attributions, strict=True)]
    random = xp.asarray(np.random.default_rng(0).random((1, *x.shape[2:])))
    orders = xp.concatenate([*(m.astype("float64") for m in maps), random])
    *areas, random_order = zip(*(area.tolist() for area in class_areas(model, x, orders, target, steps)), strict=True)
    found = []
    for method, attribution, map, (deleted, inserted) in zip(methods, attributions, maps, areas, strict=True):
        true, *redrawn = (to_host(v)[0] for v in attribution)
        importance, likeness = to_host(map)[0], []
        for control, other in zip(controls, redrawn, strict=True):
            likeness.append(Likeness(control.down_to, other, scores.rank_correlation(true, other), scores.ssim(true, other)))
        pointing, energy = (None, None) if mask is None else _inside(importance, mask)
        found.append(
            ClassMap(method.name, method.signed, true, importance, likeness, deleted, inserted, pointing, energy)
        )
    return found, random_order


def _inside(importance: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    return scores.pointing(importance, mask), scores.energy_inside(importance, mask)


__all__ = ["LAYERS", "ClassMap", "Explanation", "Likeness", "UnitPicture", "explain"]
