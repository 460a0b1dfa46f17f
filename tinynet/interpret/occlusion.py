"""Occlusion: cover every part of a photo in turn and see what the network loses (Zeiler & Fergus 2014, section 4.2, figure 7)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, array_module, to_host
from ..distributed import Shards
from ..errors import ArgumentError, ShapeError
from ..functional._check import integers
from ..nn import Layer
from . import panels, touched
from .deconvnet import MEANING, deconvnet
from .observe import last_stage, observe, one_input, probabilities
from .pictures import Picture, centred, photo
from .scores import ssim


@dataclass(frozen=True)
class Occlusion:
    """What covering each part of one photo with a grey square does to the network.

    tops (R,), lefts (K,): the squares' upper and left edges, pixels; the last ones are moved to the border, so that every pixel
    is covered. patch: the squares' height and width. size: that of the input.
    logits: (R, K, classes). activation: (R, K), the sum over map `channel` of `layer`. Both also for the whole photo.
    target: the class that `probability` is of. projection: (3, H, W), the deconvnet's of that map's strongest activation.
    """

    tops: np.ndarray
    lefts: np.ndarray
    patch: tuple[int, int]
    stride: tuple[int, int]
    size: tuple[int, int]
    layer: str
    channel: int
    target: int
    logits: np.ndarray
    activation: np.ndarray
    whole_logits: np.ndarray
    whole_activation: float
    projection: np.ndarray

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

        of: "probability" of the target, its "logit" (Captum's Occlusion of the model), or the "activation" of the map.
        """
        drops = {
            "probability": lambda: self.whole_probability - self.probability,
            "logit": lambda: self.whole_logits[self.target] - self.logits[..., self.target],
            "activation": lambda: self.whole_activation - self.activation,
        }
        if of not in drops:
            raise ArgumentError(f"attribution: expected one of {', '.join(drops)}, got {of!r}")
        drop = drops[of]()
        rows, columns = (
            (np.arange(size)[:, None] >= edges) & (np.arange(size)[:, None] < edges + patch)
            for size, edges, patch in zip(self.size, (self.tops, self.lefts), self.patch, strict=True)
        )                                                       # (H, R) and (W, K): which squares cover a row, a column
        count = rows.sum(axis=1)[:, None] * columns.sum(axis=1)
        return rows.astype(float) @ drop @ columns.T.astype(float) / count


def occlusion(
    model: Layer, x: Array, target: int | None = None, *, layer: str | None = None, channel: int | None = None,
    patch: int | Sequence[int] | None = None, stride: int | Sequence[int] | None = None, fill: float | Sequence[float] = 0.0,
    batch_size: int = 32, workers: int | None = None,
) -> Occlusion:
    """Slide a square of one colour over a photo, and record the class probabilities and one map's activation for each position.

    x: one input (3, H, W), or a batch of one. target: a class; None: what the model says of the whole photo.
    layer: whose strongest map is followed; None: the last convolution's, rectified. channel: which map; None: the one with the
    strongest activation for the whole photo.
    patch: height and width of the square, pixels; None: a quarter of the shorter side. stride: None: a quarter of the patch.
    fill: its value in the units of x, one number or one a channel; 0 is the mean colour.
    workers: threads that share the positions.
    Raises ArgumentError for a layer, map, class, patch or stride that does not fit.
    """
    x = one_input("occlusion", x)
    height, width = x.shape[2:]
    ph, pw = _pair("patch", max(1, min(height, width) // 4) if patch is None else patch)
    sh, sw = _pair("stride", (max(1, ph // 4), max(1, pw // 4)) if stride is None else stride)
    if ph > height or pw > width:
        raise ArgumentError(f"occlusion: expected a patch of at most {height}×{width} pixels, got {ph}×{pw}")
    if sh > ph or sw > pw:
        raise ArgumentError(f"occlusion: expected a stride of at most the patch, {ph}×{pw}, got {sh}×{sw}; it would leave gaps")
    if batch_size < 1:
        raise ArgumentError(f"occlusion: expected batch_size of at least 1, got {batch_size}")
    xp = array_module(x)
    colour = xp.asarray(np.broadcast_to(np.reshape(np.asarray(fill, dtype=str(x.dtype)), (-1, 1, 1)), (x.shape[1], ph, pw)))
    layer = last_stage(model) if layer is None else layer

    whole = observe(model, x, [layer])
    maps, logits = to_host(whole.layers[layer])[0], to_host(whole.output)[0]
    if maps.ndim < 1 or logits.ndim != 1:
        raise ShapeError(f"occlusion: expected a model with an output (N, classes), got {tuple(whole.output.shape)}")
    channel = int(maps.reshape(len(maps), -1).max(axis=1).argmax()) if channel is None else channel
    _check("map", f"layer {layer!r}", channel, len(maps))
    target = int(logits.argmax()) if target is None else target
    _check("class", "the model", target, len(logits))

    tops, lefts = _edges(height, ph, sh), _edges(width, pw, sw)
    places = np.array(list(product(tops, lefts)))                # (P, 2)
    clean: dict[str, Array] = {}

    def covered(part: np.ndarray) -> tuple[Array, Array]:
        """Logits (B, classes) and the map's sum (B,) with the square at each of these places."""
        sums: list[Array] = []

        def see(state: touched.State) -> None:
            if not sums:
                sums.append(state.total(channel) if isinstance(state, touched.Touched) else _total(state[:, channel]))

        square = xp.repeat(colour[None], len(part), axis=0)
        output = touched.run(model, touched.Touched(x, square, part), clean, touched.Look(layer, see))
        return to_host(output), to_host(sums[0])

    first = covered(places[:1])                                 # and what the layers give without a square
    found = []
    with Shards(workers) as shards:
        for begin in range(1, len(places), batch_size):
            found += shards.apply(covered, places[begin : begin + batch_size])
    all_logits, activation = (np.concatenate(parts) for parts in zip(first, *found, strict=True))
    grid = len(tops), len(lefts)
    return Occlusion(
        np.array(tops), np.array(lefts), (ph, pw), (sh, sw), (height, width), layer, channel, target,
        all_logits.reshape(*grid, -1), activation.reshape(grid), logits, float(to_host(_total(maps[channel][None]))[0]),
        to_host(deconvnet(model).attribute(x, layer=layer, unit=(channel, "max")))[0],
    )


def plot_occlusion(
    result: Occlusion, x: Array | Picture, path: str | os.PathLike[str], classes: Sequence[str] = (), *,
    mean: Sequence[float] = (0.0, 0.0, 0.0), std: Sequence[float] = (1.0, 1.0, 1.0), control: Array | None = None,
    title: str = "", command: str = "",
) -> Path:
    """The panels of the paper's figure 7: photo, activation, projection, probability, class. Writes a picture file.

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
    board = panels.Board(5 + (control is not None), result.size, title)
    caption = f"here the square costs most:\n{name} {whole:.1f} % → {lowest:.1f} %"
    board.picture("(a) photo", picture, caption, box=(top, left, ph, pw))
    board.map(
        f"(b) map {result.channel} of {result.layer}", result.at_pixels(result.activation),
        f"summed activation; {result.whole_activation:.3g} uncovered", least=0.2 * abs(result.whole_activation),
    )
    board.picture("(c) projection of that map", centred(result.projection), "deconvnet, strongest activation;\nmid grey is 0")
    if control is not None:
        likeness = ssim(result.projection, control)
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
        f"The photo has {result.size[0]}×{result.size[1]} pixels.\n(c): {MEANING}"
    )
    return board.save(path, notes, command)


def _pair(name: str, value: Any) -> tuple[int, int]:
    high, wide = integers("occlusion", name, value, 2, 1)
    return high, wide


def _edges(size: int, patch: int, stride: int) -> list[int]:
    return [*range(0, size - patch, stride), size - patch]


def _total(maps: Array) -> Array:
    """(N, h, w) or (N,) → (N,)."""
    return maps.reshape(len(maps), -1).sum(axis=1)


def _check(what: str, where: str, index: Any, count: int) -> None:
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or not 0 <= index < count:
        raise ArgumentError(f"occlusion: {where} has {what} 0 to {count - 1}, got {index!r}")


__all__ = ["Occlusion", "occlusion", "plot_occlusion"]
