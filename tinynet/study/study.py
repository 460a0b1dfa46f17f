"""All experiments of the paper that a model and a folder of photos allow, with their pictures, figures and words."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import interpret
from ..backend import Array
from ..data import Dataset, Loader, Subset, balanced_sample, split, transforms
from ..errors import ArgumentError, FileError
from ..files import make_folder, write_text
from ..interpret.control import randomised, untrained
from ..interpret.evolution import EPOCHS
from ..interpret.invariance import KINDS
from ..interpret.observe import beside_model, observe, stages
from ..models import TrainedModel
from ..nn import Layer, Linear
from ..nn.conv import _Conv
from ..train import predict
from ..train.classifier import recipe_for
from .ablation import ablation, rebuilt
from .transfer import Transfer, frozen_features, plot_transfer, transfer
from .words import findings


@dataclass
class Study:
    """What was done. figures: plain JSON values by experiment. skipped: experiment → why. warnings, findings: sentences."""

    output: Path
    figures: dict[str, Any] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def run_study(
    trained: TrainedModel, photos: Dataset, output: str | os.PathLike[str], *, epochs: int = 0, quick: bool = False,
    boxes: Mapping[str, Any] | None = None, others: Dataset | None = None, seed: int = 0, workers: int | None = None,
    command: str = "", say: Callable[[str], None] = print,
) -> Study:
    """Do every experiment that can be done and write pictures, figures.json and findings.txt into the folder `output`.

    epochs: train variants of the model on the photos for that many epochs each, for evolution and ablation; 0: leave these out.
    quick: fewer photos, positions and steps, for a first look. boxes: {"photos": indices, "parts": {name: boxes (N, 4) in pixels
    of the input}}, for correspondence. others: photos of other classes, for transfer; None: the same photos.
    seed: of which photos are taken, and of what is drawn.
    """
    done = Study(make_folder(output))
    why = untrained(trained.model)
    if why:
        done.warnings.append(f"the model looks untrained ({why}): what follows shows what a random network gives")
        say(f"warning: {done.warnings[-1]}")
    job = _Job(trained, photos, done, quick, seed, workers, command)
    experiments: dict[str, Callable[[], None]] = {
        "filters": job.filters, "maximisation": job.maximisation, "occlusion": job.occlusion, "invariance": job.invariance,
        "correspondence": lambda: job.correspondence(boxes),
        "transfer": lambda: job.transfer(photos if others is None else others),
        "evolution and ablation": lambda: job.training(epochs, say),
    }
    for name, experiment in experiments.items():
        before = len(done.pictures)
        try:
            experiment()
        except _Skip as reason:
            done.skipped[name] = str(reason)
            say(f"{name}: left out, {reason}")
            continue
        for path in done.pictures[before:]:
            say(f"{name}: {path}")
    done.findings = findings(done.figures)
    record = {
        "command": command, "model": trained.name, "photos": len(photos), "warnings": done.warnings, "skipped": done.skipped,
        "findings": done.findings, **done.figures,
    }
    write_text(done.output / "figures.json", json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")
    write_text(done.output / "findings.txt", "\n\n".join([*done.warnings, *done.findings]) + "\n")
    return done


class _Skip(Exception):
    """Why an experiment is left out."""


class _Job:
    """One study: the model, the photos, and what all experiments share."""

    def __init__(
        self, trained: TrainedModel, photos: Dataset, done: Study, quick: bool, seed: int, workers: int | None, command: str
    ) -> None:
        self.trained, self.photos, self.done, self.quick = trained, photos, done, quick
        self.seed, self.workers, self.command = seed, workers, command
        self.model, self.pre = trained.model, trained.preprocessing
        self.size = (3, self.pre.crop, self.pre.crop)
        self.known = list(photos.classes) == list(trained.classes)
        self._view = transforms.Compose([transforms.Resize(self.pre.resize), transforms.CenterCrop(self.pre.crop)])

    # What the experiments share.

    def pictures(self, count: int) -> tuple[list[np.ndarray], list[int]]:
        """Photos as the model sees them, uint8, drawn by the seed, classes in turn; and their classes (the model's own answer
        where the folder's classes are not the model's).
        """
        rng = np.random.default_rng(self.seed)
        queues = [list(rng.permutation(np.flatnonzero(self.photos.labels == c))) for c in range(len(self.photos.classes))]
        order = [queue[i] for i in range(max(map(len, queues))) for queue in queues if i < len(queue)]
        found: list[np.ndarray] = []
        labels: list[int] = []
        for index in order:
            if len(found) == count:
                break
            try:
                picture, label = self.photos[int(index)]
            except FileError:
                continue
            found.append(self._view(picture, rng))
            labels.append(int(label))
        if not self.known:
            labels = predict(self.model, self.inputs(found)).argmax(axis=1).tolist()
        return found, labels

    def inputs(self, pictures: Sequence[np.ndarray]) -> Array:
        """The pictures as the model takes them, on its device."""
        to_input = self.pre.to_input()
        return beside_model(self.model, np.stack([to_input(picture, np.random.default_rng(0)) for picture in pictures]))

    def some(self, most: int) -> Dataset:
        """At most that many of the photos, evenly over them."""
        if len(self.photos) <= most:
            return self.photos
        return Subset(self.photos, np.unique(np.linspace(0, len(self.photos) - 1, most).round().astype(int)))

    def keep(self, path: Path) -> None:
        self.done.pictures.append(path)

    def path(self, name: str) -> Path:
        return self.done.output / f"{name}.png"

    # The experiments.

    def filters(self) -> None:
        convolutions = [path for path, layer in self.model.layers() if isinstance(layer, _Conv)]
        if not convolutions:
            raise _Skip("the model has no convolution")
        photos = self.some(100 if self.quick else 500)
        shares = interpret.active_shares(self.model, Loader(photos, 64, self.pre.transform()), workers=self.workers)
        first = interpret.filter_statistics(self.model)
        self.done.figures["filters"] = {
            "layer": first.layer, "count": len(first.rms), "rms": first.rms, "high_frequency": first.high_frequency.mean(),
            "aliased": first.aliased.mean(), "duplicates": len(first.duplicates), "photos": len(photos),
            "dead": {layer: int((share == 0).sum()) for layer, share in shares.items()},
            "units": {layer: len(share) for layer, share in shares.items()},
        }
        active = shares[stages(self.model)[0]]
        self.keep(interpret.plot_filters(self.model, self.path("filters"), active=active, command=self.command))

    def maximisation(self) -> None:
        known = stages(self.model)
        chosen: list[str | None] = [*dict.fromkeys([known[0], known[len(known) // 2], known[-1]]), None] if known else [None]
        mean, std = np.array(self.pre.mean), np.array(self.pre.std)
        results = []
        for layer in chosen:
            count = len(self.trained.classes) if layer is None else self._channels(layer)
            units = np.unique(np.linspace(0, count - 1, min(count, 6)).astype(int)).tolist()
            results.append(interpret.maximise(
                self.model, layer, units, self.size, steps=16 if self.quick else 128, bounds=(-mean / std, (1 - mean) / std),
                seed=self.seed, workers=self.workers,
            ))
        self.done.figures["maximisation"] = {"layers": [
            {"layer": r.layer or "classes", "units": r.channels, "activations": r.activations, "median": np.median(r.activations)}
            for r in results
        ]}
        self.keep(interpret.plot_maximisation(
            results, self.path("maximisation"), mean=self.pre.mean, std=self.pre.std, classes=self.trained.classes,
            command=self.command,
        ))

    def occlusion(self) -> None:
        pictures, labels = self.pictures(1 if self.quick else 3)
        side = self.pre.crop
        patch = max(1, side // 4)
        stride = max(1, patch // 3 if self.quick else side // 28)
        rows = []
        for i, (picture, label, x) in enumerate(zip(pictures, labels, self.inputs(pictures), strict=True)):
            found = interpret.occlusion(self.model, x, label, patch=patch, stride=stride, workers=self.workers)
            rows.append({
                "class": self.trained.classes[label], "whole": found.whole_probability, "lowest": found.probability.min(),
                "flipped": (found.predicted != found.whole_logits.argmax()).mean(), "patch": found.patch, "stride": found.stride,
                "agreement": _correlation(found.probability, found.activation), "layer": found.layer, "map": found.channel,
            })
            self.keep(interpret.plot_occlusion(
                found, picture, self.path(f"occlusion-{i + 1}"), self.trained.classes, command=self.command
            ))
        self.done.figures["occlusion"] = {"photos": rows}

    def invariance(self) -> None:
        pictures, labels = self.pictures(5)
        every = {} if not self.quick else {"scales": [1, 1.2, 1.5, 1.8], "angles": range(0, 360, 45)}
        found = interpret.invariance(
            self.model, pictures, labels, self.pre.to_input(), workers=self.workers, **every,  # type: ignore[arg-type]
        )
        curves = []
        for curve in found.curves:
            away = np.abs(curve.amounts - (curve.kind == "scale"))
            if curve.kind == "rotation":
                away = np.minimum(away, 360 - away)
            half = {
                name: float(away[values.mean(axis=0) >= values.mean(axis=0).max() / 2].min())
                for name, values in (("half_first", curve.first), ("half_last", curve.last))
            }
            plain = curve.probability[:, away.argmin()].mean()
            curves.append({
                "kind": curve.kind, "unit": "times more" if curve.kind == "scale" else KINDS[curve.kind].split()[-1], **half,
                "plain": plain, "mean": curve.probability[:, away > 0].mean(), "lowest": curve.probability.min(),
                "amounts": curve.amounts, "first": curve.first, "last": curve.last, "probability": curve.probability,
            })
        self.done.figures["invariance"] = {"photos": len(pictures), "layers": found.layers, "curves": curves}
        self.keep(interpret.plot_invariance(
            found, pictures, self.path("invariance"), self.trained.classes, command=self.command
        ))

    def correspondence(self, boxes: Mapping[str, Any] | None) -> None:
        if boxes is not None:
            pictures = [self._view(self.photos[int(i)][0], np.random.default_rng(0)) for i in boxes["photos"]]
            parts = boxes["parts"]
        else:
            pictures, labels = self.pictures(10)
            first = [p for p, label in zip(pictures, labels, strict=True) if label == labels[0]]
            pictures, side = first[:5], self.pre.crop
            third = max(1, side // 3)
            places = {"centre": (side - third) // 2, "top left": 0, "bottom right": side - third}
            parts = {name: np.array([[at, at, third, third]] * len(pictures)) for name, at in places.items()}
        if len(pictures) < 3:
            raise _Skip(f"it needs three photos of one class, here are {len(pictures)}")
        found = interpret.correspondence(
            self.model, self.inputs(pictures), parts, draws=3 if self.quick else 10, seed=self.seed, workers=self.workers
        )
        self.done.figures["correspondence"] = {
            "rows": [row._asdict() for row in found.rows], "photos": found.photos, "given": boxes is not None,
        }
        self.keep(interpret.plot_correspondence(found, self.path("correspondence"), command=self.command))

    def transfer(self, photos: Dataset) -> None:
        counts = np.bincount(photos.labels, minlength=len(photos.classes))
        sizes = [size for size in ((5,) if self.quick else (15, 30)) if counts.min() > size]
        if len(photos.classes) < 2 or not sizes:
            raise _Skip(f"it needs two classes with more than 15 photos each, the smallest here has {counts.min()}")
        photos = balanced_sample(photos, min(int(counts.min()), max(sizes) + 50), seed=self.seed)
        results: dict[str, Transfer] = {}
        for name, model in (
            ("trained", self.model), ("random weights", randomised(self.model, np.random.default_rng(self.seed))),
        ):
            frozen = frozen_features(model, photos, self.pre.transform(), workers=self.workers)
            results[name] = transfer(frozen, sizes, folds=2 if self.quick else 5, seed=self.seed)
        self.done.figures["transfer"] = {
            "classes": len(photos.classes), "folds": results["trained"].folds,
            "same_classes": list(photos.classes) == list(self.trained.classes),
            "trained": [row._asdict() for row in results["trained"].rows],
            "random": [row._asdict() for row in results["random weights"].rows],
        }
        self.keep(plot_transfer(results, self.path("transfer"), command=self.command))

    def training(self, epochs: int, say: Callable[[str], None]) -> None:
        if epochs < 1:
            raise _Skip("they train variants of the model; say for how many epochs")
        if len(self.photos.classes) < 2:
            raise _Skip("training needs two classes or more")
        try:
            recipe = replace(recipe_for(self.pre.crop), preprocessing=self.pre)
            train, validation = split(self.photos, (0.9, 0.1), seed=self.seed)
            count = len(self.photos.classes)
            variants = {
                name: rebuilt(self.model, self.size, classes=count, rng=np.random.default_rng(self.seed), **change)
                for name, change in default_variants(self.model).items()
            }
        except ArgumentError as error:
            raise _Skip(str(error)) from None
        known = stages(variants["as it is"])
        layers = dict.fromkeys([known[0], known[len(known) // 2], known[-1]])
        units = {layer: list(range(min(3, self._channels(layer, variants["as it is"])))) for layer in layers}
        wanted = sorted({*(epoch for epoch in EPOCHS if epoch <= epochs), epochs})
        watched = Subset(validation, np.arange(min(len(validation), 100 if self.quick else 300)))
        evolution = interpret.Evolution(
            Loader(watched, 64, self.pre.transform()), units, wanted, workers=self.workers
        )
        found = ablation(
            variants, train, validation, recipe, epochs, seed=self.seed, workers=self.workers, say=say,
            callbacks={"as it is": [evolution]},
        )
        self.done.figures["ablation"] = {
            "rows": [row._asdict() for row in found.rows], "epochs": epochs, "train": found.train, "validation": found.validation,
        }
        write_text(self.done.output / "ablation.txt", found.table() + "\n")
        at = {(f.layer, f.channel, f.epoch): f.image for f in evolution.frames}
        same = {
            layer: np.mean([at[layer, c, wanted[0]] == at[layer, c, wanted[-1]] for c in channels])
            for layer, channels in units.items()
        }
        self.done.figures["evolution"] = {"epochs": wanted, "photos": len(watched), "same_photo": same}
        self.keep(interpret.plot_evolution(evolution, self.path("evolution"), command=self.command))

    def _channels(self, layer: str, model: Layer | None = None) -> int:
        model = model or self.model
        x = beside_model(model, np.zeros((1, *self.size), np.float32))
        return int(observe(model, x, [layer]).layers[layer].shape[1])


def default_variants(model: Any) -> dict[str, dict[str, Any]]:
    """Name → arguments of `rebuilt`: as it is, without a middle and a late convolution and without both, the last one wider."""
    convolutions = [(path, layer) for path, layer in model.layers() if isinstance(layer, _Conv)]
    dense = [path for path, layer in model.layers() if isinstance(layer, Linear)][:-1]
    variants: dict[str, dict[str, Any]] = {"as it is": {}}
    if len(convolutions) >= 3:
        middle, late = convolutions[len(convolutions) // 2][0], convolutions[-1][0]
        for names in ([middle], [late], [middle, late]):
            variants[f"without {' and '.join(names)}"] = {"drop": names}
    if dense:
        variants[f"without {' and '.join(dense)}"] = {"drop": dense}
    if convolutions:
        path, layer = convolutions[-1]
        variants[f"{path} with {2 * layer.out_channels} maps"] = {"resize": {path: 2 * layer.out_channels}}
    return variants


def read_boxes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON file {"photos": [0, 5, …], "parts": {"left eye": [[top, left, height, width], …], …}}; pixels of the
    model's input.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        photos = [int(i) for i in record["photos"]]
        parts = {str(name): np.array(boxes, dtype=np.int64).reshape(len(photos), 4) for name, boxes in record["parts"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path}: expected boxes as {{'photos': [numbers], 'parts': {{name: [[top, left, height, width], …]}}}} "
                        f"({type(error).__name__}: {error})") from None
    return {"photos": photos, "parts": parts}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _plain(value: Any) -> Any:
    """Plain JSON values; null for nan."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (np.integer, int)) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, (np.floating, float)):
        return round(float(value), 6) if math.isfinite(value) else None
    return value


__all__ = ["Study", "default_variants", "read_boxes", "run_study"]
