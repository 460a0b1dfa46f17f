"""The strongest activations of every unit over a set of photos, found in one pass (Zeiler & Fergus 2014, section 4 and figure 2).

The watch of an inference walk sees each layer's maps as they arise; of each map only its strongest activation goes on, and of
each unit only the k strongest photos stay. So memory depends on the number of units, never on that of photos.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, to_host
from ..data.dataset import BrokenPhoto, Dataset, name
from ..data.transfer import fetched, transferred
from ..data.transforms import ToArray
from ..distributed import Shards
from ..distributed.blas import one_blas_thread
from ..errors import ArgumentError, FileError
from ..files import read_safetensors, write_safetensors
from ..nn import Layer
from ..nn.activation import _Rectifier
from .observe import stages

Transform = Callable[[Any, np.random.Generator], Any]
RANKINGS = ("max", "mean")
SAVE_EVERY = 30.0
"""Seconds between two savings of the state of a pass."""
PASS = 32
"""Photos that go through a model on a GPU together, at most: its memory is bounded, whatever batch_size is."""
_KEY = "tinynet.top"
_PROBES = 8                                                     # photos whose pixels tell one set of photos from another


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
    neither changes a bit of the result. On a GPU batch_size photos, at most PASS, go through the model together, which may change
    the last digits, and the threads only read them. progress: show a bar if the error stream is a terminal.
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
            for done, seen in _passes(top, model, dataset, layers, transform, batch_size, shards):
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


class _Seen(NamedTuple):
    """One photo's strongest activations: layer → (C, axes) positions and (C,) values."""

    image: int
    layers: dict[str, tuple[np.ndarray, np.ndarray]]


def _passes(
    top: TopActivations, model: Layer, dataset: Dataset, layers: list[str], transform: Transform, batch_size: int, shards: Shards
) -> Iterator[tuple[int, list[_Seen]]]:
    """From photo `top.done` on: what some photos gave, and how many are through then."""
    like = next((p for p in model.named_parameters().values() if p.dtype.kind == "f"), None)
    if like is None or array_module(like) is np:
        def look(part: np.ndarray) -> list[_Seen]:
            # One by one through the model; so no bit depends on which photos share a batch.
            read = ((index, read_photo(model, dataset, index, transform)) for index in part.tolist())
            given = (([index], x) for index, x in read if x is not None)
            return [one for seen in _look(model, dataset, given, layers, top.by) for one in seen]

        for begin in range(top.done, top.total, batch_size):
            batch = np.arange(begin, min(begin + batch_size, top.total))
            yield int(batch[-1]) + 1, [one for part in shards.apply(look, batch) for one in part]
        return

    waiting: deque[list[int]] = deque()                         # the photos of the batches on their way to the GPU

    def stacked() -> Iterator[tuple[np.ndarray]]:
        size = min(batch_size, PASS)
        begins = [top.done, *range((top.done // size + 1) * size, top.total, size), top.total]
        for begin, end in pairwise(begins):
            read = shards.each(lambda index: (index, read_photo(model, dataset, index, transform)), range(begin, end))
            for _, alike in groupby([one for one in read if one[1] is not None], key=lambda one: one[1].shape):
                indices, photos = zip(*alike, strict=True)
                waiting.append(list(indices))
                yield np.concatenate(photos),

    given = ((waiting.popleft(), x) for x, in transferred(stacked(), like))
    for seen in _look(model, dataset, given, layers, top.by):
        yield seen[-1].image + 1, seen
    yield top.total, []                                         # the last ones may be broken


def _look(
    model: Layer, dataset: Dataset, given: Iterable[tuple[list[int], Array]], layers: list[str], by: str
) -> Iterator[list[_Seen]]:
    """What the layers answer to batches: the photos' places in the dataset, and x (N, 3, H, W) where the model is."""
    wanted = set(layers)

    def answers() -> Iterator[tuple[Any, ...]]:
        for indices, x in given:
            found: dict[str, tuple[Any, Array, Array]] = {}

            def watch(path: str, _: Layer, y: Array, found: dict = found) -> None:
                if path in wanted:
                    found[path] = _strongest(y, by)

            model.infer(x, watch)
            for layer in layers:
                if layer not in found:
                    raise ArgumentError(f"layer {layer!r} has no output of its own; name a layer or a named container")
            yield indices, *(part for layer in layers for part in found[layer])

    for indices, *parts in fetched(answers()):                  # of a GPU when the next batch is queued: it need not wait
        seen: list[_Seen] = [_Seen(index, {}) for index in indices]
        for layer, size, at, values in zip(layers, parts[::3], parts[1::3], parts[2::3], strict=True):
            for one, cells, value in zip(seen, at, values, strict=True):
                if not np.isfinite(value).all():
                    raise ArgumentError(f"layer {layer!r}: its activations for {name(dataset, one.image)} are not finite")
                positions = np.stack(np.unravel_index(cells, size), axis=1) if size else np.zeros((len(value), 0))
                one.layers[layer] = positions.astype(np.int64), value
        yield seen


def read_photo(model: Layer, dataset: Dataset, index: int, transform: Transform) -> np.ndarray | None:
    """A photo as the model takes it, (1, 3, H, W) in its dtype, on the host; None: the photo is broken."""
    weight = next((p for p in model.named_parameters().values() if p.dtype.kind == "f"), None)
    try:
        image, _ = dataset[index]
    except BrokenPhoto:                                         # the dataset has reported it
        return None
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0, index)))
    x = transform(image, rng)[None]
    return x if weight is None else x.astype(weight.dtype, copy=False)


def _strongest(y: Array, by: str) -> tuple[tuple[int, ...], Array, Array]:
    """The size of the maps (N, C, …), where in them each is strongest, (N, C), flat, and what they are ranked by, (N, C)."""
    flat = y.reshape(*y.shape[:2], -1)                          # (N, C, cells)
    at = flat.argmax(axis=2)
    values = array_module(y).take_along_axis(flat, at[..., None], 2)[..., 0] if by == "max" else flat.mean(axis=2)
    return tuple(y.shape[2:]), at, values


def _merge(best: LayerTop | None, layer: str, seen: list[_Seen], k: int) -> LayerTop:
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


def model_fingerprint(model: Layer) -> str:
    """A hash of a model's structure and weights."""
    digest = hashlib.sha256(repr(model).encode())
    for key, x in model.state_dict().items():
        digest.update(f"{key} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(np.ascontiguousarray(to_host(x)).tobytes())
    return digest.hexdigest()[:16]


def photos_fingerprint(dataset: Dataset, transform: Transform) -> str:
    """A hash of a set of photos as a model gets them: number, labels, file names, and the pixels of a few."""
    digest = hashlib.sha256(json.dumps([len(dataset), list(dataset.classes)]).encode())
    digest.update(np.asarray(dataset.labels, dtype=np.int64).tobytes())
    digest.update("\n".join(Path(name(dataset, i)).name for i in range(len(dataset))).encode())
    for index in np.unique(np.linspace(0, len(dataset) - 1, _PROBES).round().astype(int)).tolist():
        try:
            digest.update(np.ascontiguousarray(transform(dataset[index][0], np.random.default_rng(0))).tobytes())
        except BrokenPhoto:
            digest.update(b"broken")
    return digest.hexdigest()[:16]


__all__ = ["LayerTop", "TopActivations", "default_layers", "top_activations"]
