"""The input that excites a unit most: in closed form for a first layer, by regularised ascent for the others.

First layer: of all patches of length 1, the filter itself, w/‖w‖, excites it most (Cauchy and Schwarz). Deeper there is no such
formula. The ascent climbs the gradient of the unit from noise (Erhan et al. 2009); jitter, a slight blur and decay keep it from
high-frequency patterns that excite the unit and look like nothing (Yosinski et al. 2015, Mordvintsev et al. 2015).
What it finds is one local maximum, shaped by these regularisers: what the unit *can* answer to, not what it answers to in photos.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, beside, to_host
from ..distributed import Shards
from ..errors import ArgumentError
from ..nn import Layer, without_softmax
from ..nn.activation import _Rectifier
from ..nn.layer import Saved, reference_array
from ..nn.receptive_field import receptive_field
from .attribution import Attribution
from .filters import _conv
from .observe import unit_each
from .patches import Window, cut, window
from .pictures import PERCENTILE, Tile, centred, digits, photo, sheet
from .scores import blur as smoothed
from .units import record


class FirstLayer(NamedTuple):
    """pictures: (F, C, kh, kw), each of length 1. activations: (F,), the filters' lengths: what they answer, without bias."""

    pictures: np.ndarray
    activations: np.ndarray


def first_layer_optimum(model: Layer, layer: str | None = None) -> FirstLayer:
    """x = w/‖w‖ for every filter of the first convolution; a filter of zeros has a picture of zeros."""
    w = np.asarray(to_host(_conv(model, layer)[1].weight))
    norms = np.sqrt((w.astype(np.float64) ** 2).sum(axis=(1, 2, 3)))
    return FirstLayer((w / np.where(norms > 0, norms, 1)[:, None, None, None]).astype(w.dtype), norms)


@dataclass(frozen=True)
class Maximisation:
    """What an ascent found. pictures: (U, C, H, W) in the units of the input. history: (steps + 1, U), the objective on the way,
    the last entry that of the pictures. layer None: the units are classes. where: the part of the pictures that was climbed, what
    the units see and the jitter beside it; the rest is left of the noise.
    """

    layer: str | None
    channels: tuple[int, ...]
    pictures: np.ndarray
    history: np.ndarray
    where: Window

    @property
    def activations(self) -> np.ndarray:
        """(U,): what the units answer to their pictures."""
        return self.history[-1]


def maximise(
    model: Layer, layer: str | None, channels: Sequence[int], size: Sequence[int], *, whole: bool = False, steps: int = 128,
    rate: float = 0.1, decay: float = 0.01, blur: float = 0.5, blur_every: int = 4, jitter: int = 2,
    bounds: tuple[Any, Any] | None = None, seed: int = 0, workers: int | None = None,
) -> Maximisation:
    """Climb from noise towards what excites each of the units, all of them at once.

    layer: None, the output (channels are classes, their logits climbed). size: (C, H, W) of the input.
    whole: the mean of the whole map; otherwise its central unit. Each step adds `rate` times the gradient over its own RMS, then
    takes off the share `decay`; every `blur_every` steps a Gaussian of `blur` pixels (standard deviation) smooths; each step sees
    the picture moved by up to `jitter` pixels, the same for all units. 0 turns a regulariser off.
    bounds: (lowest, highest) values of a pixel, numbers or one a channel. seed: of the noise and the jitter. A unit's picture
    does not depend on which others are climbed with it.
    """
    if steps < 1 or not rate > 0 or not 0 <= decay < 1 or blur < 0 or blur_every < 1 or jitter < 0:
        raise ArgumentError(
            "maximise: expected steps and blur_every of at least 1, rate above 0, decay from 0 to 1, blur and jitter not below 0"
        )
    if len(size) != 3:
        raise ArgumentError(f"maximise: expected size (C, H, W), got {tuple(size)}")
    model, channels = without_softmax(model) if layer is None else model, tuple(channels)
    if not channels:
        raise ArgumentError("maximise: expected at least one channel")
    rng = np.random.default_rng(seed)
    noise = 0.1 * rng.standard_normal((1, *size))
    like = reference_array(model)
    dtype = np.float32 if like is None else np.dtype(str(like.dtype))
    x = beside(np.repeat(noise, len(channels), axis=0).astype(dtype), like)
    xp = array_module(x)
    limits = None if bounds is None else [xp.asarray(np.reshape(np.asarray(b, dtype), (-1, 1, 1))) for b in bounds]
    walk, history = _Climb(model, layer), np.empty((steps + 1, len(channels)))

    with Shards(workers) as shards:
        def climb(x: Array, units: np.ndarray) -> tuple[np.ndarray, Array, Sequence[int]]:
            """The objective of these units, its gradient, and the size of their maps."""
            taken = record(model, x, layer)
            y = taken.output
            mask = _objective(y, units.tolist(), whole)
            return to_host((y * mask).reshape(len(x), -1).sum(axis=1)), walk.back(taken, mask), y.shape[2:]

        def parts(x: Array) -> list[tuple[np.ndarray, Array, Sequence[int]]]:
            return shards.apply(climb, x, np.array(channels))

        for step in range(steps):
            dy, dx = rng.integers(-jitter, jitter + 1, 2).tolist()
            found = parts(xp.roll(x, (dy, dx), axis=(2, 3)))
            history[step] = np.concatenate([value for value, _, _ in found])
            gradient = xp.roll(xp.concatenate([g for _, g, _ in found]), (-dy, -dx), axis=(2, 3))
            rms = xp.sqrt((gradient * gradient).mean(axis=(1, 2, 3), keepdims=True))
            x = (1 - decay) * (x + rate * gradient / xp.maximum(rms, 1e-12))
            if blur and (step + 1) % blur_every == 0:
                x = smoothed(x, blur)
            if limits is not None:
                x = xp.minimum(xp.maximum(x, limits[0]), limits[1])
            x = x.astype(dtype, copy=False)
        history[-1] = np.concatenate([value for value, _, _ in parts(x)])
    field = None if layer is None or whole else receptive_field(model, layer)
    where = window(field, [side // 2 for side in found[0][2]], size[1:])
    return Maximisation(layer, channels, to_host(x), history, _wider(where, jitter, size[1:]))


def plot_maximisation(
    results: Sequence[Maximisation], path: str | os.PathLike[str], *, mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None, classes: Sequence[str] = (), command: str = "",
) -> Path:
    """A row a layer, a column a unit. With the mean and std of the input the pictures have the colours a photo would have;
    without they are zero-centred.
    """
    rows: list[list[Tile | None]] = []
    names = []
    for result in results:
        names.append("classes" if result.layer is None else result.layer)
        shown = [
            centred(x) if mean is None or std is None else photo(x / max(1.0, float(np.abs(x).std()) or 1.0), mean, std)
            for x in cut(result.pictures, result.where)
        ]
        said = [classes[c] if result.layer is None and len(classes) else f"map {c}" for c in result.channels]
        rows.append([
            Tile(picture, f"{name}: {digits(value)}")
            for picture, name, value in zip(shown, said, result.activations, strict=True)
        ])
    grey = f"Mid grey is 0, the ends of the scale are the {PERCENTILE:g}th percentile of each picture's magnitude. "
    notes = (
        "Each picture was climbed from noise towards one unit; below it, what the unit answers to it. Shown is the part that "
        "the unit sees. " + (grey if mean is None else "Colours as of photos. ")
        + "What a unit can answer to, shaped by the regularisers; not what it answers to in photos."
    )
    return sheet(rows, path, title="Activation maximisation", row_names=names, tile=1.4,
                 notes=notes, command=command)


class _Climb(Attribution):
    """The gradient, but what is climbed of a rectified unit is what it rectifies: a silent unit has no gradient of its own."""

    def __init__(self, model: Layer, layer: str | None) -> None:
        super().__init__(model)
        self.layer = layer

    def step(self, path: str, layer: Layer, saved: Saved, signal: Array) -> Array:
        if path == self.layer and isinstance(layer, _Rectifier):
            return signal
        return layer.input_gradient(saved, signal)


def _wider(where: Window, by: int, size: Sequence[int]) -> Window:
    """The window with a margin, as far as the picture goes."""
    top, left = max(0, where.top - by), max(0, where.left - by)
    bottom, right = min(size[0], where.top + where.height + by), min(size[1], where.left + where.width + by)
    return Window(top, left, bottom - top, right - left)


def _objective(y: Array, channels: Sequence[int], whole: bool) -> Array:
    """A mask of y's shape whose inner product with y is the objective of each image's unit."""
    if y.ndim == 2 or not whole:
        centre = [tuple(s // 2 for s in y.shape[2:])] * len(y)
        return unit_each(y, channels, centre)
    mask = unit_each(y, channels, [(0,) * (y.ndim - 2)] * len(y)).max(axis=tuple(range(2, y.ndim)), keepdims=True)
    return array_module(y).zeros_like(y) + mask / float(np.prod(y.shape[2:]))


__all__ = ["FirstLayer", "Maximisation", "first_layer_optimum", "maximise", "plot_maximisation"]
