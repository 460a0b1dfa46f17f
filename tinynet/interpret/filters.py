"""First-layer filters as pictures, and what tells good ones from bad (Zeiler & Fergus 2014, sections 3.1 and 4.1, figure 6).

The paper chose its architecture by looking: filters of one kind dominated, others were dead, high and low frequencies stood
without the middle ones, and a stride of 4 aliased. Here each of these is a figure.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, array_module, to_host
from ..callback import Callback
from ..data.pinned import fetched
from ..distributed import Shards
from ..errors import ArgumentError
from ..figures import BLUE, ORANGE, RED, new_figure, notes_below, save_figure
from ..nn import Layer
from ..nn.conv import _Conv, _ConvTranspose
from .observe import inputs, observe, stages
from .pictures import PERCENTILE, Picture, centred, magnitude

RADIUS = 0.1
"""The paper's: a filter whose RMS exceeds it is set back to it."""
HIGH = 0.25
"""Cycles per pixel; half of what a grid of pixels can carry."""


@dataclass(frozen=True)
class FilterStatistics:
    """Figures of the F filters of a convolution.

    rms: (F,), root mean square of each filter's weights.
    high_frequency: (F,), the share of its energy above a quarter of a cycle a pixel, in any direction.
    aliased: (F,), the share beyond what the layer's stride can carry, half a cycle a stride along either axis; it comes out as
    another, false frequency. 0 at stride 1.
    random_high_frequency, random_aliased: the same shares of random filters of that size, which no one has trained.
    duplicates: (i, j, cosine), pairs that are nearly the same, or nearly each other's negative.
    """

    layer: str
    rms: np.ndarray
    high_frequency: np.ndarray
    aliased: np.ndarray
    random_high_frequency: np.ndarray
    random_aliased: np.ndarray
    duplicates: tuple[tuple[int, int, float], ...]

    def table(self) -> str:
        """A line a figure."""
        over = int((self.rms > RADIUS).sum())
        return "\n".join([
            f"{self.layer}: {len(self.rms)} filters",
            f"  RMS                     median {np.median(self.rms):.4f}, {self.rms.min():.4f} to {self.rms.max():.4f}; "
            f"{over} above {RADIUS}",
            f"  energy above {HIGH} cycles/pixel   mean {100 * self.high_frequency.mean():.1f} %, "
            f"of random filters {100 * self.random_high_frequency.mean():.1f} %",
            f"  energy the stride aliases      mean {100 * self.aliased.mean():.1f} %, "
            f"of random filters {100 * self.random_aliased.mean():.1f} %",
            f"  near-duplicates         {len(self.duplicates)} pairs",
        ])


def filter_statistics(model: Layer, layer: str | None = None, similarity: float = 0.95) -> FilterStatistics:
    """The figures of one convolution's filters. layer: None, the first. similarity: |cosine| from which two are duplicates."""
    layer, conv = _conv(model, layer)
    w = np.asarray(to_host(conv.weight), dtype=np.float64)      # (F, C, kh, kw)
    random = np.random.default_rng(0).standard_normal((max(16, 768 // w.shape[1]), *w.shape[1:]))
    flat = w.reshape(len(w), -1)
    norms = np.linalg.norm(flat, axis=1)
    cosines = flat @ flat.T / np.maximum(np.outer(norms, norms), np.finfo(float).tiny)
    pairs = [(int(i), int(j), float(cosines[i, j])) for i, j in np.argwhere(np.triu(np.abs(cosines) >= similarity, 1))]
    pairs.sort(key=lambda pair: -abs(pair[2]))
    (high, aliased), (random_high, random_aliased) = (_shares(filters, conv.stride) for filters in (w, random))
    rms = np.sqrt((flat**2).mean(axis=1))
    return FilterStatistics(layer, rms, high, aliased, random_high, random_aliased, tuple(pairs))


def _shares(w: np.ndarray, stride: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The shares (F,) of the energy of filters (F, C, kh, kw) above HIGH, and beyond what the stride can carry."""
    sides = [max(64, 8 * k) + 1 for k in w.shape[2:]]           # zeros around: the spectrum between the grid's frequencies
    energy = (np.abs(np.fft.fft2(w, s=sides)) ** 2).sum(axis=1)  # (F, sy, sx)
    fy, fx = (np.abs(np.fft.fftfreq(side)) for side in sides)   # cycles a pixel
    total = energy.sum(axis=(1, 2))
    above = np.hypot(fy[:, None], fx) > HIGH
    folded = (fy[:, None] > 0.5 / stride[0]) | (fx > 0.5 / stride[1])
    high, beyond = (energy[:, where].sum(axis=1) / np.where(total > 0, total, 1) for where in (above, folded))
    return high, beyond


def active_shares(
    model: Layer, batches: Iterable[Array | tuple[Array, Array]], layers: Sequence[str] | None = None, *,
    workers: int | None = None,
) -> dict[str, np.ndarray]:
    """For each unit of each layer, the share of the photos in which it is active (above 0) anywhere; 0: it is dead on this set.

    batches: x (N, 3, H, W), or (x, y) as a Loader gives them. layers: None, the rectified maps of every convolution.
    """
    layers = stages(model) if layers is None else list(layers)
    active: dict[str, np.ndarray] = {}
    count = 0
    with Shards(workers) as shards:
        def counts() -> Iterator[tuple[Any, ...]]:
            for x in inputs(model, batches):
                seen = observe(model, x, layers, shards).layers
                yield len(x), *((seen[layer].reshape(*seen[layer].shape[:2], -1) > 0).any(axis=2).sum(axis=0) for layer in layers)

        for n, *fired in fetched(counts()):
            for layer, number in zip(layers, fired, strict=True):
                active[layer] = active.get(layer, 0) + number
            count += n
    if not count:
        raise ArgumentError("active_shares: expected at least one photo, got none")
    return {layer: active[layer] / count for layer in layers}


def renormalise_filters(model: Layer, radius: float = RADIUS) -> dict[str, int]:
    """The paper's constraint, in place: each convolution's filter whose RMS exceeds the radius is scaled back to it.

    Returns how many were, by layer. In a training, once after each step: see FilterConstraint.
    """
    if not radius > 0:
        raise ArgumentError(f"renormalise_filters: expected a radius above 0, got {radius!r}")
    scaled: dict[str, int] = {}
    done: set[int] = set()
    for path, layer in model.layers():
        if not isinstance(layer, _Conv) or isinstance(layer, _ConvTranspose) or id(layer) in done:
            continue
        done.add(id(layer))
        w = layer.weight
        xp = array_module(w)
        rms = xp.sqrt((w * w).mean(axis=tuple(range(1, w.ndim)), keepdims=True))
        w *= xp.where(rms > radius, radius / xp.maximum(rms, radius), 1).astype(w.dtype)
        scaled[path] = int((rms > radius).sum())
    return scaled


class FilterConstraint(Callback):
    """A callback of a Trainer: renormalise_filters after every step."""

    def __init__(self, radius: float = RADIUS) -> None:
        self.radius = radius

    def on_batch_end(self, trainer: Any, loss: float) -> None:
        renormalise_filters(trainer.model, self.radius)


def filter_pictures(model: Layer, layer: str | None = None, common: bool = True, percentile: float = PERCENTILE) -> list[Picture]:
    """The first layer's filters as pictures (kh, kw, 3), mid grey for 0.

    common: one scale for all, so that weak filters look weak; otherwise each has its own. Filters of one channel become grey.
    Raises ArgumentError for filters of other than 1 or 3 channels, which have no colours.
    """
    layer, conv = _conv(model, layer)
    w = np.asarray(to_host(conv.weight), dtype=np.float64)
    if w.shape[1] not in (1, 3):
        raise ArgumentError(f"filter_pictures: filters of {layer!r} have {w.shape[1]} channels, no colours; use maximise instead")
    w = np.repeat(w, 3, axis=1) if w.shape[1] == 1 else w
    scale = magnitude(w, percentile) if common else None
    return [centred(f, percentile, scale) for f in w]


def plot_filters(
    model: Layer, path: str | os.PathLike[str], layer: str | None = None, *, active: np.ndarray | None = None, command: str = "",
) -> Path:
    """Filters on one scale and each on its own, and their figures. active: (F,), of active_shares. Writes a picture file."""
    statistics = filter_statistics(model, layer)
    layer, conv = _conv(model, layer)
    figure = new_figure(13.0, 4.6)
    left, middle, right = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1, 1, 1.15]})
    for axes, common, title in ((left, True, "one scale for all"), (middle, False, "each on its own scale")):
        axes.imshow(_mosaic(filter_pictures(model, layer, common)), interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(f"{len(statistics.rms)} filters of {conv.kernel_size[0]}×{conv.kernel_size[1]}, {title}", size=9.5)
    dead = np.zeros(len(statistics.rms), bool) if active is None else np.asarray(active) == 0
    double = np.zeros(len(statistics.rms), bool)
    for i, j, _ in statistics.duplicates:
        double[[i, j]] = True
    for chosen, colour, marker, label in (
        (~dead & ~double, BLUE, "o", "filter"), (double & ~dead, ORANGE, "s", "has a near-duplicate"), (dead, RED, "x", "dead"),
    ):
        if chosen.any():
            right.scatter(statistics.rms[chosen], 100 * statistics.high_frequency[chosen], s=26, c=colour, marker=marker,
                          label=f"{label} ({int(chosen.sum())})")
    right.axvline(RADIUS, color="0.5", linewidth=1, linestyle="--")
    right.text(RADIUS, 1.0, " the paper's limit", size=7.5, color="0.4", va="bottom", transform=right.get_xaxis_transform())
    random = 100 * float(statistics.random_high_frequency.mean())
    right.axhline(random, color="0.5", linewidth=1, linestyle=":")
    right.text(1.0, random, "random filters ", size=7.5, color="0.4", va="bottom", ha="right",
               transform=right.get_yaxis_transform())
    right.set(xlabel="RMS of the weights", ylabel=f"energy above {HIGH} cycles/pixel (%)", ylim=(0, None))
    right.set_xlim(0, 1.08 * max(float(statistics.rms.max()), RADIUS))
    right.grid(alpha=0.3)
    right.legend(fontsize=8, framealpha=0.8)
    figure.suptitle(f"First-layer filters: {layer}", size=11, weight="bold", parse_math=False)
    notes = (
        "On its own scale, a filter is the patch of a given length that excites it most, w/‖w‖. "
        f"Mid grey is 0; the ends of the scale are the {PERCENTILE:g}th percentile of the magnitudes. Of the energy, "
        f"{100 * statistics.aliased.mean():.1f} % is at frequencies that the stride, {conv.stride[0]}×{conv.stride[1]}, aliases "
        f"(of random filters {100 * statistics.random_aliased.mean():.1f} %). Random filters: the mean of as large ones, drawn "
        f"from a Gaussian. The paper's limit: in its training a filter whose RMS exceeds {RADIUS} is set back to it. "
        + ("Dead units were not looked for." if active is None else "Dead: never active on the photos." if dead.any() else
           "Each is active on some photo.")
    )
    notes_below(figure, notes, command)
    return save_figure(figure, path)


def _mosaic(pictures: Sequence[Picture]) -> Picture:
    """The pictures on a white grid, nearly square, row by row."""
    high, wide = pictures[0].shape[:2]
    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    out = np.full((rows * (high + 1) + 1, columns * (wide + 1) + 1, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (high + 1) + 1, (i % columns) * (wide + 1) + 1
        out[top : top + high, left : left + wide] = picture
    return out


def _conv(model: Layer, path: str | None) -> tuple[str, _Conv]:
    """The convolution at the path; None: the first one."""
    if path is not None:
        layer = model.layer(path)
        if not isinstance(layer, _Conv) or isinstance(layer, _ConvTranspose) or layer.axes != 2:
            known = [p for p, other in model.layers() if isinstance(other, _Conv)]
            raise ArgumentError(f"layer {path!r} is {type(layer).__name__}, no Conv2d; there is {', '.join(known[:6]) or 'none'}")
        return path, layer
    for path, layer in model.layers():
        if isinstance(layer, _Conv) and not isinstance(layer, _ConvTranspose) and layer.axes == 2:
            return path, layer
    raise ArgumentError("the model has no two-dimensional convolution")


__all__ = [
    "FilterConstraint", "FilterStatistics", "active_shares", "filter_pictures", "filter_statistics", "plot_filters",
    "renormalise_filters",
]
