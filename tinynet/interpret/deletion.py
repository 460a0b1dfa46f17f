"""What an answer depends on: what it does when the marked pixels go, or come, first (Petsiuk, Das & Saenko 2018).

The answer is a class's probability, or the activation of a unit inside as a share of what it is for the whole photo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, to_host
from ..distributed import Shards
from ..errors import ArgumentError, ShapeError
from ..nn import Layer, without_softmax
from ..nn.classes import probabilities
from . import part as parts
from . import touched
from .observe import Reached, up_to
from .scores import blur
from .touched import Touched
from .units import Record, Unit, select

_BATCH = 32

Ask = Callable[[int, Touched, dict[str, Array]], np.ndarray]
"""(a photo's number, it with B changed parts, what the layers give for it unchanged: see touched.run) → the answers (B,)."""


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
    within: Array | None = None, steps: int = 32, spacing: str = "even", baseline: str = "mean", batch_size: int = _BATCH,
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
    order = _order(x, maps, within, steps, spacing)
    with Shards(workers) as shards:
        return _curve(_asker(model, x, target, layer, unit, shards), x, _baseline(x, baseline), order, batch_size, shards)


def insertion(
    model: Layer, x: Array, maps: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None,
    within: Array | None = None, steps: int = 32, spacing: str = "even", baseline: str = "blur", batch_size: int = _BATCH,
    workers: int | None = None,
) -> Curve:
    """Put pixels into the baseline, those of the largest `maps` first: the larger the area, the sooner the answer comes.

    Outside `within` stands the baseline, too.
    """
    order = _order(x, maps, within, steps, spacing)
    with Shards(workers) as shards:
        return _curve(_asker(model, x, target, layer, unit, shards), _baseline(x, baseline), x, order, batch_size, shards)


class Areas(NamedTuple):
    """Deletion's and insertion's areas in the order of a map, and in random order."""

    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float


def class_areas(model: Layer, x: Array, maps: Array, target: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Deletion's and insertion's areas (M,) in the order of each map (M, H, W), for a class of one photo x (1, C, H, W)."""
    order = _order(x, maps, None, steps, "cosine")
    with Shards() as shards:
        ask = _asker(model, x, target, None, None, shards)
        gone, come = (_curve(ask, *way, order, _BATCH, shards) for way in ((x, _baseline(x, "mean")), (_baseline(x, "blur"), x)))
    return gone.area, come.area


def unit_areas(
    model: Layer, x: Array, map: Array, layer: str, unit: Sequence[int], within: np.ndarray, steps: int,
    workers: int | None = None,
) -> Areas:
    """How far a map (1, H, W) shows what a unit (channel, *position) of one photo x (1, C, H, W) depends on.

    within: (H, W), the pixels that the unit sees. The layers are computed for the part of the photo that holds them, no more.
    """
    xp, channel = array_module(x), unit[0]
    random = xp.asarray(np.random.default_rng(0).random(map.shape).astype(str(map.dtype)))
    order = _order(x, xp.concatenate([map, random]), within, steps, "even")
    grid, size = parts.grid(model, layer), x.shape[2:]
    least = (0, 0) if grid is None else parts.length(grid, size)
    rows, columns, position = parts.part(grid, order.rows, order.columns, unit[1:], size, least)
    order = order.moved(-rows.start, -columns.start)
    shown, mean, blurred = (v[..., rows, columns] for v in (x, _baseline(x, "mean"), _baseline(x, "blur")))
    with Shards(workers) as shards:
        ask = _asker(model, shown, None, layer, (channel, *position), shards)
        gone, come = (_curve(ask, *way, order, _BATCH, shards).area.tolist() for way in ((shown, mean), (blurred, shown)))
    return Areas(gone[0], come[0], gone[1], come[1])


def _asker(model: Layer, x: Array, target: Any, layer: str | None, unit: Unit | None, shards: Shards) -> Ask:
    if layer is None:
        if unit is not None:
            raise ArgumentError("a unit needs the layer it is of: give layer= and unit=, or target= for a class")
        xp, model = array_module(x), without_softmax(model)
        chosen = (
            probabilities(shards.infer(model, x)).argmax(axis=1) if target is None
            else np.broadcast_to(to_host(xp.asarray(target)), (len(x),))
        )

        def probability(photo: int, changed: Touched, clean: dict[str, Array]) -> np.ndarray:
            return probabilities(model(changed.whole()))[:, chosen[photo]]

        return probability
    whole = up_to(model, x, layer, shards)
    mask = select(Record(model, (), whole, layer), target, unit)       # the unit that is strongest in x stays in question
    axes = tuple(range(1, whole.ndim))
    value = to_host((whole * mask).sum(axis=axes)).astype(np.float64)
    channel: Any = unit[0] if isinstance(unit, (tuple, list)) else unit

    def share(photo: int, changed: Touched, clean: dict[str, Array]) -> np.ndarray:
        here: list[Array] = []

        def see(_: str, state: touched.State) -> None:
            here.append(state.map(channel) if isinstance(state, Touched) else state[:, channel])
            raise Reached

        with suppress(Reached):
            touched.run(model, changed, clean, touched.Look((layer,), see))
        found = to_host((here[0] * mask[photo, channel]).reshape(len(here[0]), -1).sum(axis=1)).astype(np.float64)
        return found / value[photo] if value[photo] else np.zeros_like(found)

    return share


class _Order(NamedTuple):
    """When each pixel changes."""

    rows: slice
    columns: slice
    """Of the box that holds all that take part."""
    place: Array
    """(M, 1, h, w): for each map, in the box, 0 for the most important pixel, and so on."""
    counts: np.ndarray
    """(S + 1,): how many are changed at each look."""

    def moved(self, down: int, right: int) -> _Order:
        rows, columns = self.rows, self.columns
        return self._replace(
            rows=slice(rows.start + down, rows.stop + down), columns=slice(columns.start + right, columns.stop + right)
        )


def _order(x: Array, maps: Array, within: Array | None, steps: int, spacing: str) -> _Order:
    n, _, h, w = x.shape
    if tuple(maps.shape[1:]) != (h, w) or (n != len(maps) and n != 1):
        raise ShapeError(f"expected maps {(n, h, w)}, one value a pixel of x, got {tuple(maps.shape)}")
    if steps < 1:
        raise ArgumentError(f"expected steps of at least 1, got {steps}")
    if spacing not in ("even", "cosine"):
        raise ArgumentError(f'expected spacing "even" or "cosine", got {spacing!r}')
    taking = np.ones((h, w), bool) if within is None else np.asarray(to_host(within)).astype(bool)
    if taking.shape != (h, w) or not taking.any():
        raise ShapeError(f"expected within {(h, w)} with at least one pixel, got {taking.shape} with {int(taking.sum())}")
    pixels = int(taking.sum())
    even = np.linspace(0, 1, min(steps, pixels) + 1)
    counts = np.unique((pixels * (even if spacing == "even" else (1 - np.cos(np.pi * even)) / 2)).round().astype(int))
    rows, columns = (slice(int(at.min()), int(at.max()) + 1) for at in taking.nonzero())
    return _Order(rows, columns, array_module(x).asarray(_places(to_host(maps), taking)[..., rows, columns]), counts)


def _places(maps: np.ndarray, taking: np.ndarray) -> np.ndarray:
    """(M, H, W) → (M, 1, H, W): the place of each pixel in the order of falling importance; those that do not take part last."""
    pixels = np.flatnonzero(taking)
    pixels = pixels[np.random.default_rng(0).random(taking.size)[pixels].argsort()]     # the order that equal ones go in
    flat = maps.reshape(len(maps), -1)[:, pixels]
    order = pixels[np.argsort(-flat, axis=1, kind="stable")]
    place = np.full((len(maps), taking.size), taking.size, np.int32)
    np.put_along_axis(place, order, np.arange(len(pixels), dtype=np.int32)[None], axis=1)
    return place.reshape(len(maps), 1, *maps.shape[1:])


def _curve(ask: Ask, first: Array, then: Array, order: _Order, batch_size: int, shards: Shards) -> Curve:
    """From `first` to `then`, pixel by pixel. (N, C, H, W), one for each map of the order, or one for all."""
    if batch_size < 1:
        raise ArgumentError(f"expected batch_size of at least 1, got {batch_size}")
    xp, n, count = array_module(first), len(first), len(order.place)
    rows, columns, place, counts = order
    found = np.empty((count, len(counts)))
    last = len(counts) - 1

    def answers(photo: int, clean: dict[str, Array], part: np.ndarray) -> np.ndarray:
        """For each (map, step) of the part."""
        old, new = (images[photo, :, rows, columns] for images in (first, then))
        block = xp.stack([xp.where(place[i] < int(counts[s]), new, old) for i, s in part])
        starts = np.tile([rows.start, columns.start], (len(part), 1))
        return ask(photo, Touched(first[photo : photo + 1], block, starts), clean)

    for photo in range(n):
        own = range(count) if n == 1 else [photo]
        # Nothing changed, and all changed, are the same for all maps.
        todo = [(own[0], 0), (own[0], last), *((i, s) for i in own for s in range(1, last))]
        work = partial(answers, photo, {})
        for part in np.array_split(np.array(todo), -(-len(todo) // batch_size)):
            found[part[:, 0], part[:, 1]] = np.concatenate(shards.apply(work, part) if xp is np else [work(part)])
        found[own, 0], found[own, last] = found[own[0], 0], found[own[0], last]
    shares = counts / counts[-1]
    return Curve(shares, found, np.asarray(np.trapezoid(found, shares, axis=1)))


def blur_of(x: Array) -> float:
    """Standard deviation of the baseline "blur", pixels."""
    return float(min(x.shape[2:]) / 10)


def _baseline(x: Array, kind: str) -> Array:
    if kind == "mean":
        return array_module(x).zeros_like(x)
    if kind == "blur":
        return blur(x, blur_of(x))
    raise ArgumentError(f'expected baseline "mean" or "blur", got {kind!r}')


__all__ = ["Areas", "Curve", "blur_of", "class_areas", "deletion", "insertion", "unit_areas"]
