"""Occlusion: cover every part of a photo in turn and see what the network loses (Zeiler & Fergus 2014, section 4.2, figure 7)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, to_host
from ..distributed import Shards
from ..errors import ArgumentError, ShapeError
from ..functional._check import integers
from ..nn import Layer, without_softmax
from ..nn.classes import probabilities
from . import panels, touched
from .deconvnet import MEANING, deconvnet, without_rule
from .fork import Fork
from .observe import last_stage, observe, one_input
from .pictures import Picture, centred, digits, photo
from .scores import ssim
from .touched import Touched
from .units import check_index


@dataclass(frozen=True)
class Covered:
    """What a network says of one photo while a grey square covers each part of it.

    tops (R,), lefts (K,): the squares' upper and left edges, pixels; the last ones are moved to the border, so that every pixel
    is covered. patch: the squares' height and width. size: that of the input.
    target: the class that `probability` is of. logits: (R, K, classes). whole_logits: (classes,), for the whole photo.
    """

    tops: np.ndarray
    lefts: np.ndarray
    patch: tuple[int, int]
    stride: tuple[int, int]
    size: tuple[int, int]
    target: int
    logits: np.ndarray
    whole_logits: np.ndarray

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(R, K, classes)."""
        return probabilities(self.logits.reshape(-1, self.logits.shape[-1])).reshape(self.logits.shape)

    @property
    def probability(self) -> np.ndarray:
        """(R, K): the probability of the target class (the paper's map d)."""
        return self.probabilities[..., self.target]

    @property
    def predicted(self) -> np.ndarray:
        """(R, K): the most probable class (the paper's map e)."""
        return self.logits.argmax(axis=-1)

    @property
    def whole_probability(self) -> float:
        """The probability of the target class for the whole photo."""
        return float(probabilities(self.whole_logits[None])[0, self.target])

    def at_pixels(self, values: np.ndarray) -> np.ndarray:
        """A map (R, K) at the photo's size (H, W): each pixel has the value of the square whose centre is nearest."""
        rows, columns = (
            np.abs(np.arange(size)[:, None] - (edges + (patch - 1) / 2)).argmin(axis=1)
            for size, edges, patch in zip(self.size, (self.tops, self.lefts), self.patch, strict=True)
        )
        return values[rows][:, columns]

    def attribution(self, of: str = "probability") -> np.ndarray:
        """(H, W): what covering each pixel costs, the mean drop over the squares that cover it.

        of: "probability" of the target, its "logit" (Captum's Occlusion of the model), or, where one was followed, the
        "activation" of the map.
        """
        drops = self._drops()
        if of not in drops:
            raise ArgumentError(f"attribution: expected one of {', '.join(drops)}, got {of!r}")
        drop = drops[of]()
        rows, columns = (
            (np.arange(size)[:, None] >= edges) & (np.arange(size)[:, None] < edges + patch)
            for size, edges, patch in zip(self.size, (self.tops, self.lefts), self.patch, strict=True)
        )                                                       # (H, R) and (W, K): which squares cover a row, a column
        count = rows.sum(axis=1)[:, None] * columns.sum(axis=1)
        return rows.astype(float) @ drop @ columns.T.astype(float) / count

    def _drops(self) -> dict[str, Callable[[], np.ndarray]]:
        """What covering costs at each position, (R, K)."""
        return {
            "probability": lambda: self.whole_probability - self.probability,
            "logit": lambda: self.whole_logits[self.target] - self.logits[..., self.target],
        }


@dataclass(frozen=True)
class Occlusion(Covered):
    """What covering does to the classes, and to one map.

    activation: (R, K), the sum over map `channel` of `layer`; whole_activation: for the whole photo. projection: (3, H, W), the
    deconvnet's of that map's strongest activation; None where the deconvnet cannot pass a layer, which is named in `barred`.
    """

    layer: str
    channel: int
    activation: np.ndarray
    whole_activation: float
    projection: np.ndarray | None
    barred: str | None = None

    def _drops(self) -> dict[str, Callable[[], np.ndarray]]:
        return {**super()._drops(), "activation": lambda: self.whole_activation - self.activation}


def occlusion(
    model: Layer, x: Array, target: int | None = None, *, layer: str | None = None, channel: int | None = None,
    patch: int | Sequence[int] | None = None, stride: int | Sequence[int] | None = None, fill: float | Sequence[float] = 0.0,
    batch_size: int = 64, workers: int | None = None,
) -> Occlusion:
    """Slide a square of one colour over a photo, and record the class probabilities and one map's activation for each position.

    x: one input (3, H, W), or a batch of one. target: a class; None: what the model says of the whole photo.
    layer: whose strongest map is followed; None: the last convolution's, rectified. channel: which map; None: the one with the
    strongest activation for the whole photo.
    patch: height and width of the square, pixels; None: a quarter of the shorter side. stride: None: a quarter of the patch.
    fill: its value in the units of x, one number or one a channel; 0 is the mean colour.
    workers: threads that share the positions. A Softmax that comes last is left out: logits are what comes before it.
    Raises ArgumentError for a layer, map, class, patch or stride that does not fit.
    """
    x, model = one_input("occlusion", x), without_softmax(model)
    squares = _squares(x, patch, stride, fill)
    layer = last_stage(model) if layer is None else layer
    whole = observe(model, x, [layer])
    maps, logits = to_host(whole.layers[layer])[0], to_host(whole.output)[0]
    if maps.ndim < 1:
        raise ShapeError(f"occlusion: expected a layer with maps (N, C, …), {layer!r} has none")
    channel = int(maps.reshape(len(maps), -1).max(axis=1).argmax()) if channel is None else channel
    check_index(channel, len(maps), f"layer {layer!r}")
    target = _target(logits, target)
    clean: dict[str, Array] = {}

    def ask(state: Touched) -> tuple[Array, Array]:
        """Logits (B, classes) and the map's sum (B,)."""
        there: dict[str, touched.State] = {}
        output = touched.run(model, state, clean, touched.Look((layer,), there.__setitem__))
        maps = there[layer]
        return output, maps.total(channel) if isinstance(maps, Touched) else _total(maps[:, channel])

    found, activation = _slide(x, squares, ask, batch_size, workers)
    barred = without_rule(model, layer)
    projection = None if barred else to_host(deconvnet(model).attribute(x, layer=layer, unit=(channel, "max")))[0]
    return Occlusion(
        *squares[:4], tuple(x.shape[2:]), target, found, logits, layer, channel, activation,
        float(to_host(_total(maps[channel][None]))[0]), projection, barred,
    )


def covered(
    models: Sequence[Layer], x: Array, target: int | None = None, *, patch: int | Sequence[int] | None = None,
    stride: int | Sequence[int] | None = None, fill: float | Sequence[float] = 0.0, batch_size: int = 64,
    workers: int | None = None,
) -> list[Covered]:
    """As occlusion, but the classes alone, and of several networks at once; the lower layers that they share with the first are
    computed once (Fork). target: None: what the first says.
    """
    x, models = one_input("occlusion", x), [without_softmax(model) for model in models]
    squares, fork = _squares(x, patch, stride, fill), Fork(models[0], models[1:])
    whole = [to_host(model(x))[0] for model in models]
    target = _target(whole[0], target)
    clean: list[dict[str, Array]] = [{} for _ in models]

    def ask(state: Touched) -> tuple[Array, ...]:
        there: dict[str, touched.State] = {}
        first = touched.run(fork.model, state, clean[0], touched.Look(fork.places, there.__setitem__))
        behind = zip(fork.places, fork.heads, clean[1:], strict=True)
        return first, *(touched.run(head, there.get(place, state), kept) for place, head, kept in behind)

    found = _slide(x, squares, ask, batch_size, workers)
    size = tuple(x.shape[2:])
    return [Covered(*squares[:4], size, target, *both) for both in zip(found, whole, strict=True)]


def plot_occlusion(
    result: Occlusion, x: Array | Picture, path: str | os.PathLike[str], classes: Sequence[str] = (), *,
    mean: Sequence[float] = (0.0, 0.0, 0.0), std: Sequence[float] = (1.0, 1.0, 1.0), control: Array | None = None,
    title: str = "", command: str = "",
) -> Path:
    """The panels of the paper's figure 7: photo, activation, projection (if there is one), probability, class. A picture file.

    x: the input (3, H, W) with the mean and std that it was normalised by, or the photo itself, uint8 (H, W, 3).
    control: (3, H, W), the projection through redrawn weights, to stand beside the projection (`control_projection`).
    """
    picture = x if getattr(x, "dtype", None) == np.uint8 else photo(one_input("plot_occlusion", x)[0], mean, std)
    if picture.shape[:2] != result.size:
        raise ShapeError(f"plot_occlusion: expected a photo of {result.size[0]}×{result.size[1]}, got {picture.shape[:2]}")
    names = list(classes) or [f"class {i}" for i in range(len(result.whole_logits))]
    name = names[result.target]
    worst = np.unravel_index(result.probability.argmin(), result.probability.shape)
    top, left = int(result.tops[worst[0]]), int(result.lefts[worst[1]])
    lowest, whole = 100 * float(result.probability.min()), 100 * result.whole_probability
    ph, pw = result.patch

    title = title or "Occlusion: what the network loses when a part of the photo is covered"
    projection = result.projection
    if projection is None and control is not None:
        raise ArgumentError("plot_occlusion: a control for a projection that is not there")
    board = panels.Board(4 + (projection is not None) + (control is not None), result.size, title)
    caption = f"here the square costs most:\n{name} {whole:.1f} % → {lowest:.1f} %"
    board.picture("(a) photo", picture, caption, box=(top, left, ph, pw))
    board.map(
        f"(b) map {result.channel} of {result.layer}", result.at_pixels(result.activation),
        f"summed activation; {digits(result.whole_activation)} uncovered", least=0.2 * abs(result.whole_activation),
    )
    if projection is not None:
        board.picture("(c) projection of that map", centred(projection), "deconvnet, strongest activation;\nmid grey is 0")
    if projection is not None and control is not None:
        likeness = ssim(projection, control)
        board.picture("its control", centred(control), f"the same, all weights redrawn;\nstructural similarity {likeness:.2f}")
    board.map(
        f"(d) probability of {name}", result.at_pixels(100 * result.probability), f"%; {whole:.1f} % uncovered",
        least=5.0, bounds=(0.0, 100.0),
    )
    board.classes("(e) most probable class", result.at_pixels(result.predicted), names)
    rows, columns = result.probability.shape
    notes = (
        f"Each point of (b), (d), (e) is the centre of a grey square of {ph}×{pw} pixels (stride {result.stride[0]}×"
        f"{result.stride[1]}, {rows}×{columns} positions); at the border, of the nearest one. "
        f"The photo has {result.size[0]}×{result.size[1]} pixels.\n"
        + (f"(c): {MEANING}" if projection is not None else
           f"There is no projection (c): the deconvnet has no rule for {result.barred}.")
    )
    return board.save(path, notes, command)


def default_patch(height: int, width: int) -> int:
    """The square's side for a photo of that size: a quarter of its shorter side."""
    return max(1, min(height, width) // 4)


def default_stride(height: int, width: int) -> tuple[int, int]:
    """How far it moves: a quarter of its own size."""
    return max(1, height // 4), max(1, width // 4)


class _Squares(NamedTuple):
    """Where they are, and their colour (C, *patch)."""

    tops: np.ndarray
    lefts: np.ndarray
    patch: tuple[int, int]
    stride: tuple[int, int]
    colour: Array


def _squares(
    x: Array, patch: int | Sequence[int] | None, stride: int | Sequence[int] | None, fill: float | Sequence[float]
) -> _Squares:
    xp, (height, width) = array_module(x), x.shape[2:]
    ph, pw = _pair("patch", default_patch(height, width) if patch is None else patch)
    sh, sw = _pair("stride", default_stride(ph, pw) if stride is None else stride)
    if ph > height or pw > width:
        raise ArgumentError(f"occlusion: expected a patch of at most {height}×{width} pixels, got {ph}×{pw}")
    if sh > ph or sw > pw:
        raise ArgumentError(f"occlusion: expected a stride of at most the patch, {ph}×{pw}, got {sh}×{sw}; it would leave gaps")
    colour = xp.asarray(np.broadcast_to(np.reshape(np.asarray(fill, dtype=str(x.dtype)), (-1, 1, 1)), (x.shape[1], ph, pw)))
    tops, lefts = (np.array([*range(0, n - p, s), n - p]) for n, p, s in ((height, ph, sh), (width, pw, sw)))
    return _Squares(tops, lefts, (ph, pw), (sh, sw), colour)


def _slide(
    x: Array, squares: _Squares, ask: Callable[[Touched], tuple[Array, ...]], batch_size: int, workers: int | None
) -> list[np.ndarray]:
    """What `ask` gives for the photo with the square at each place: arrays (B, …), of which are made (R, K, …)."""
    if batch_size < 1:
        raise ArgumentError(f"occlusion: expected batch_size of at least 1, got {batch_size}")
    places = np.array(list(product(squares.tops, squares.lefts)))

    def part(places: np.ndarray) -> tuple[np.ndarray, ...]:
        square = array_module(x).repeat(squares.colour[None], len(places), axis=0)
        return tuple(to_host(values) for values in ask(Touched(x, square, places)))

    found = [part(places[:1])]                                  # and what the layers give without a square
    with Shards(workers) as shards:
        for begin in range(1, len(places), batch_size):
            found += shards.apply(part, places[begin : begin + batch_size], in_step=True)
    grid = len(squares.tops), len(squares.lefts)
    return [np.concatenate(parts).reshape(*grid, *parts[0].shape[1:]) for parts in zip(*found, strict=True)]


def _target(logits: np.ndarray, target: int | None) -> int:
    if logits.ndim != 1:
        raise ShapeError(f"occlusion: expected a model with an output (N, classes), got {(1, *logits.shape)}")
    target = int(logits.argmax()) if target is None else target
    check_index(target, len(logits), "the model", "classes")
    return target


def _pair(name: str, value: Any) -> tuple[int, int]:
    high, wide = integers("occlusion", name, value, 2, 1)
    return high, wide


def _total(maps: Array) -> Array:
    """(N, h, w) or (N,) → (N,)."""
    return maps.reshape(len(maps), -1).sum(axis=1)


__all__ = ["Covered", "Occlusion", "covered", "default_patch", "default_stride", "occlusion", "plot_occlusion"]
