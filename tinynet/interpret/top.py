"""The strongest activations of every unit over a set of photos, found in one pass (Zeiler & Fergus 2014, section 4 and figure 2).

The watch of an inference walk sees each layer's maps as they arise; of each map only its strongest activation goes on, and of
each unit only the k strongest photos stay. So memory depends on the number of units, never on that of photos.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.dataset import Dataset, name
from ..data.loader import Transform
from ..data.transforms import ToArray
from ..distributed import Shards
from ..distributed.blas import one_blas_thread
from ..errors import ArgumentError, FileError
from ..files import read_safetensors, write_safetensors
from ..nn import Layer
from ..nn.activation import _Rectifier
from .fingerprints import model_fingerprint, photos_fingerprint
from .observe import stages
from .strongest import Seen, strongest

RANKINGS = ("max", "mean")
SAVE_EVERY = 30.0
"""Seconds between two savings of the state of a pass."""
_KEY = "tinynet.top"


class LayerTop(NamedTuple):
    """The strongest activations of the C units of a layer, the strongest first; one a photo. k is less where photos are fewer.

    images: (C, k), the photos' places in the dataset. positions: (C, k, axes), where in the map the photo excites the unit most
    (the first such place); a layer of (N, C) has no axes. values: (C, k), what the photos are ranked by.
    """

    images: np.ndarray
    positions: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class TopActivations:
    """What `top_activations` found, or has found so far: `done` of `total` photos are through."""

    layers: dict[str, LayerTop]
    k: int
    by: str
    done: int
    total: int
    fingerprint: dict[str, str]
    """Of the model, the photos and the question: what a state must agree in to be gone on from."""

    def __getitem__(self, layer: str) -> LayerTop:
        if layer not in self.layers:
            raise ArgumentError(f"no top activations of layer {layer!r}; there are those of {', '.join(self.layers)}")
        return self.layers[layer]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all. Raises FileError."""
        record = {"layers": list(self.layers), "k": self.k, "by": self.by, "done": self.done, "total": self.total,
                  "fingerprint": self.fingerprint}
        arrays = {f"{layer}.{part}": x for layer, top in self.layers.items() for part, x in top._asdict().items()}
        write_safetensors(path, arrays, {_KEY: json.dumps(record)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TopActivations:
        """Read what `save` wrote. Raises FileError if it is missing, damaged, or something else."""
        arrays, metadata = read_safetensors(path, "expected top activations")
        try:
            record = json.loads(metadata[_KEY])
            parts = LayerTop._fields
            layers = {layer: LayerTop(*(arrays[f"{layer}.{part}"] for part in parts)) for layer in record.pop("layers")}
            return cls(layers, **record)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{path}: not top activations that tinynet saved ({error})") from None


def top_activations(
    model: Layer, dataset: Dataset, layers: Sequence[str] | None = None, k: int = 9, *, transform: Transform | None = None,
    batch_size: int = 64, workers: int | None = None, by: str = "max", resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TopActivations:
    """For every unit (channel) of every chosen layer, the k photos that excite it most: photo, position, value.

    layers: dotted names; None: the rectified maps of every convolution (`default_layers`). transform: (image, rng) → float32
    (3, H, W), as for a Loader. by: rank photos by a unit's strongest activation ("max", the paper's) or by the mean of its map.
    Of equal values the earlier photo is the stronger; a photo found broken is passed over.
    batch_size: photos between two updates of the result. workers: threads (None: one a core), which take the photos one by one;
    neither changes a bit of the result. On a GPU batch_size photos, at most strongest.PASS, go through the model together, which
    may change the last digits, and the threads only read them. progress: show a bar if the error stream is a terminal.
    resume: a file for the state, written every half minute, at Ctrl-C and at the end. If it is there, the pass goes on from
    it, to the same result bit for bit, on a GPU with the same batch_size.
    Raises ArgumentError for an unknown layer or ranking, an empty dataset, activations that are not finite; FileError for a
    state of another model, other photos or another question.
    """
    if by not in RANKINGS:
        raise ArgumentError(f'top_activations: expected by "max" or "mean", got {by!r}')
    for what, value in (("k", k), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ArgumentError(f"top_activations: expected {what} of at least 1, got {value!r}")
    if len(dataset) == 0:
        raise ArgumentError("top_activations: expected photos, got none")
    transform = ToArray() if transform is None else transform
    chosen = default_layers(model) if layers is None else list(dict.fromkeys(layers))
    for layer in chosen:
        model.layer(layer)
    if not chosen:
        raise ArgumentError("top_activations: expected at least one layer")
    fingerprint = {
        "model": model_fingerprint(model), "photos": photos_fingerprint(dataset, transform),
        "question": f"{k} by {by} of {' '.join(chosen)}",
    }
    top = TopActivations({}, int(k), by, 0, len(dataset), fingerprint)
    if resume is not None and Path(resume).exists():
        top = _continued(TopActivations.load(resume), fingerprint, resume)
    if top.done == top.total:
        return top
    top = _run(top, model, dataset, chosen, transform, batch_size, workers, resume, progress)
    if resume is not None:
        top.save(resume)
    return top


def default_layers(model: Layer) -> list[str]:
    """The rectified maps of every convolution; without a convolution, every ReLU. Raises ArgumentError if there is none."""
    found = stages(model) or [path for path, layer in model.layers() if path and isinstance(layer, _Rectifier)]
    if not found:
        raise ArgumentError("the model has neither a convolution nor a ReLU; name the layers")
    return list(dict.fromkeys(found))


def _run(
    top: TopActivations, model: Layer, dataset: Dataset, layers: list[str], transform: Transform, batch_size: int,
    workers: int | None, resume: Any, progress: bool,
) -> TopActivations:
    """The pass from photo `top.done` on."""
    from tqdm import tqdm

    bar = tqdm(total=top.total, initial=top.done, unit="photo", desc="strongest activations", leave=False,
               disable=not (progress and sys.stderr.isatty()))
    saved = time.monotonic()

    # One BLAS thread whatever the number of workers: its number may change the last bits.
    with bar, one_blas_thread(), Shards(workers) as shards:
        try:
            for done, seen in strongest(model, dataset, layers, top.by, transform, top.done, batch_size, shards):
                bar.update(done - top.done)
                merged = {layer: _merge(top.layers.get(layer), layer, seen, top.k) for layer in layers} if seen else top.layers
                top = replace(top, layers=merged, done=done)    # at once: Ctrl-C finds the one or the other
                if resume is not None and time.monotonic() - saved > SAVE_EVERY:
                    top.save(resume)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if resume is None:
                raise KeyboardInterrupt(f"interrupted after {top.done} of {top.total} photos; nothing was saved") from None
            top.save(resume)
            raise KeyboardInterrupt(
                f"interrupted after {top.done} of {top.total} photos; what was found is in {resume}: resume (--resume) to go on "
                "from it"
            ) from None
    if not top.layers:
        raise FileError(f"{name(dataset, 0)}: broken, as every photo; give photos that can be read")
    return top


def _merge(best: LayerTop | None, layer: str, seen: list[Seen], k: int) -> LayerTop:
    """The k strongest of those so far and of the photos seen since, which all come later in the dataset."""
    values = np.stack([one.layers[layer][1] for one in seen], axis=1)            # (C, photos)
    positions = np.stack([one.layers[layer][0] for one in seen], axis=1)         # (C, photos, axes)
    images = np.broadcast_to([one.image for one in seen], values.shape).astype(np.int64)
    if best is not None:
        values = np.concatenate([best.values, values], axis=1)
        positions = np.concatenate([best.positions, positions], axis=1)
        images = np.concatenate([best.images, images], axis=1)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]   # stable: of equal ones the earlier photo first
    return LayerTop(
        np.take_along_axis(images, order, 1), np.take_along_axis(positions, order[..., None], 1),
        np.take_along_axis(values, order, 1),
    )


def _continued(state: TopActivations, fingerprint: dict[str, str], path: Any) -> TopActivations:
    for what, value in fingerprint.items():
        if state.fingerprint.get(what) != value:
            kind = {"model": "another model", "photos": "other photos"}.get(what)
            kind = kind or f"another question ({state.fingerprint.get(what)}, not {value})"
            raise FileError(f"{path}: the state of a pass with {kind}; remove it, or begin anew without resuming")
    return state


__all__ = ["LayerTop", "TopActivations", "default_layers", "top_activations"]
