"""What an answer depends on: what it does when the marked pixels go, or come, first (Petsiuk, Das & Saenko 2018).

The answer is a class's probability, or the activation of a unit inside as a share of what it is for the whole photo.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, to_host
from ..distributed import Shards
from ..errors import ArgumentError, ShapeError
from ..nn import Layer
from . import touched
from .observe import Reached, probabilities, up_to
from .scores import blur
from .touched import Touched
from .units import Record, Unit, select

Ask = Callable[[int, Touched], np.ndarray]
"""(a photo's number, it with B changed parts) → the answers (B,)."""


class Curve(NamedTuple):
    """How the answer moves while pixels go or come."""

    shares: np.ndarray
    """(S + 1,): the share of the pixels that was changed, 0 … 1."""
    answers: np.ndarray
    """(N, S + 1): for each image the class's probability, or the unit's activation as a share of that for x."""
    area: np.ndarray
    """(N,): the mean height of the curve, by the trapezium rule."""


def deletion(
    model: Layer, x: Array, maps: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None,
    within: Array | None = None, steps: int = 32, spacing: str = "even", baseline: str = "mean", batch_size: int = 32,
    workers: int | None = None,
) -> Curve:
    """Take pixels away, those of the largest `maps` first: the smaller the area, the sooner the answer goes.

    x: (N, C, H, W), or one photo (1, C, H, W) for all maps. maps: (N, H, W), larger is more important; ties go in random
    order, the same in each call. target: a class, or one a photo (default: the class the model says). layer, unit: instead, a
    unit inside, as for Attribution.attribute; its share of nothing is nothing, and only what it depends on is computed. within:
    (H, W), the pixels that take part (default: all), such as a unit's receptive field.
    steps, spacing: the shares of the pixels at which the answer is looked at. "even": k / steps. "cosine":
    (1 − cos(πk / steps)) / 2, as Clenshaw & Curtis have it: close where few pixels are changed or few are left, which is where
    a class goes and comes, so that fewer steps do (explain.STEPS has figures).
    baseline: what stands in for a pixel: "mean" (0, the mean colour of a normalised photo) or "blur" (the photo under a Gaussian
    whose σ is a tenth of its shorter side). workers: threads that share a batch (None: one a core).
    """
    with Shards(workers) as shards:
        ask = _asker(model, x, target, layer, unit, shards)
        return _curve(ask, x, x, _baseline(x, baseline), maps, within, steps, spacing, batch_size, shards)


def insertion(
    model: Layer, x: Array, maps: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None,
    within: Array | None = None, steps: int = 32, spacing: str = "even", baseline: str = "blur", batch_size: int = 32,
    workers: int | None = None,
) -> Curve:
    """Put pixels into the baseline, those of the largest `maps` first: the larger the area, the sooner the answer comes.

    Outside `within` stands the baseline, too.
    """
    with Shards(workers) as shards:
        ask = _asker(model, x, target, layer, unit, shards)
        return _curve(ask, x, _baseline(x, baseline), x, maps, within, steps, spacing, batch_size, shards)


class Areas(NamedTuple):
    """Deletion's and insertion's areas in the order of a map, and in random order."""

    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float


def unit_areas(
    model: Layer, x: Array, map: Array, layer: str, unit: Unit, within: Array, steps: int, workers: int | None = None
) -> Areas:
    """How far a map (1, H, W) shows what a unit of one photo x (1, C, H, W) depends on, over the pixels that it sees."""
    xp = array_module(x)
    random = xp.asarray(np.random.default_rng(0).random(map.shape).astype(str(map.dtype)))
    both = xp.concatenate([map, random])
    (gone, gone_random), (come, come_random) = (
        ask(model, x, both, layer=layer, unit=unit, within=within, steps=steps, workers=workers).area.tolist()
        for ask in (deletion, insertion)
    )
    return Areas(gone, come, gone_random, come_random)


def _asker(model: Layer, x: Array, target: Any, layer: str | None, unit: Unit | None, shards: Shards) -> Ask:
    if layer is None:
        if unit is not None:
            raise ArgumentError("a unit needs the layer it is of: give layer= and unit=, or target= for a class")
        xp = array_module(x)
        chosen = (
            probabilities(shards.infer(model, x)).argmax(axis=1) if target is None
            else np.broadcast_to(to_host(xp.asarray(target)), (len(x),))
        )

        def probability(photo: int, changed: Touched) -> np.ndarray:
            return probabilities(model(changed.whole()))[:, chosen[photo]]

        return probability
    whole = up_to(model, x, layer, shards)
    mask = select(Record((), whole, layer), target, unit)       # the unit that is strongest in x stays in question
    axes = tuple(range(1, whole.ndim))
    value = to_host((whole * mask).sum(axis=axes)).astype(np.float64)
    channel: Any = unit[0] if isinstance(unit, (tuple, list)) else unit
    clean: dict[int, dict[str, Array]] = {i: {} for i in range(len(x))}     # of each photo: what the layers give for it unchanged

    def share(photo: int, changed: Touched) -> np.ndarray:
        here: list[Array] = []

        def see(state: touched.State) -> None:
            here.append(state.map(channel) if isinstance(state, Touched) else state[:, channel])
            raise Reached

        with suppress(Reached):
            touched.run(model, changed, clean[photo], touched.Look(layer, see))
        found = to_host((here[0] * mask[photo, channel]).reshape(len(here[0]), -1).sum(axis=1)).astype(np.float64)
        return found / value[photo] if value[photo] else np.zeros_like(found)

    return share


def _curve(
    ask: Ask, x: Array, first: Array, then: Array, maps: Array, within: Array | None, steps: int, spacing: str, batch_size: int,
    shards: Shards,
) -> Curve:
    """From `first` to `then`, pixel by pixel."""
    xp, (n, _, h, w), count = array_module(x), x.shape, len(maps)
    if tuple(maps.shape[1:]) != (h, w) or (n != count and n != 1):
        raise ShapeError(f"expected maps {(n, h, w)}, one value a pixel of x, got {tuple(maps.shape)}")
    if steps < 1 or batch_size < 1:
        raise ArgumentError(f"expected steps and batch_size of at least 1, got {steps}, {batch_size}")
    if spacing not in ("even", "cosine"):
        raise ArgumentError(f'expected spacing "even" or "cosine", got {spacing!r}')
    taking = np.ones((h, w), bool) if within is None else np.asarray(to_host(within)).astype(bool)
    if taking.shape != (h, w) or not taking.any():
        raise ShapeError(f"expected within {(h, w)} with at least one pixel, got {taking.shape} with {int(taking.sum())}")
    pixels = int(taking.sum())
    even = np.linspace(0, 1, min(steps, pixels) + 1)
    gone = np.unique((pixels * (even if spacing == "even" else (1 - np.cos(np.pi * even)) / 2)).round().astype(int))
    steps = len(gone) - 1
    rows, columns = (slice(int(at.min()), int(at.max()) + 1) for at in taking.nonzero())
    place = xp.asarray(_places(to_host(maps), taking)[..., rows, columns])      # (M, 1, h', w'): 0 for the most important pixel
    found = np.empty((count, steps + 1))

    def answers(photo: int, part: np.ndarray) -> np.ndarray:
        """For each (map, step) of the part."""
        old, new = (images[photo, :, rows, columns] for images in (first, then))
        block = xp.stack([xp.where(place[i] < int(gone[s]), new, old) for i, s in part])
        return ask(photo, Touched(first[photo : photo + 1], block, np.tile([rows.start, columns.start], (len(part), 1))))

    for photo in range(n):
        own = range(count) if n == 1 else [photo]
        # Nothing changed, and all changed, are the same for all maps.
        todo = [(own[0], 0), (own[0], steps), *((i, s) for i in own for s in range(1, steps))]
        work = partial(answers, photo)
        for part in np.array_split(np.array(todo), -(-len(todo) // batch_size)):
            found[part[:, 0], part[:, 1]] = np.concatenate(shards.apply(work, part) if xp is np else [work(part)])
        found[own, 0], found[own, steps] = found[own[0], 0], found[own[0], steps]
    shares = gone / pixels
    return Curve(shares, found, np.asarray(np.trapezoid(found, shares, axis=1)))


def _places(maps: np.ndarray, taking: np.ndarray) -> np.ndarray:
    """(N, H, W) → (N, 1, H, W): the place of each pixel in the order of falling importance; those that do not take part last."""
    flat, out = maps.reshape(len(maps), -1), ~taking.ravel()
    ties = np.random.default_rng(0).random(flat.shape[1])
    order = np.stack([np.lexsort((ties, -row, out)) for row in flat.astype(np.float64)])
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(flat.shape[1])[None], axis=1)
    return place.reshape(len(maps), 1, *maps.shape[1:])


def _baseline(x: Array, kind: str) -> Array:
    if kind == "mean":
        return array_module(x).zeros_like(x)
    if kind == "blur":
        return blur(x, min(x.shape[2:]) / 10)
    raise ArgumentError(f'expected baseline "mean" or "blur", got {kind!r}')


__all__ = ["Areas", "Curve", "deletion", "insertion", "unit_areas"]
