"""The experiments of the paper that look at a network as it is; each writes its pictures and gives its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import interpret
from ..data import Dataset, Loader
from ..interpret.atlas import LayerAtlas
from ..interpret.deconvnet import without_rule
from ..interpret.invariance import KINDS
from ..interpret.observe import stages
from ..nn.conv import _Conv
from .workbench import Skip, Workbench

Figures = dict[str, Any]


def activations(bench: Workbench) -> Figures:
    """The strongest activations of every unit, and the projections of some of them (figure 2)."""
    known = stages(bench.model)
    if not known:
        raise Skip("the model has no convolution")
    layers = [layer for layer in known if without_rule(bench.model, layer) is None]
    if not layers:
        raise Skip(f"the deconvnet has no rule for {without_rule(bench.model, known[0])}")
    photos, model = bench.some(100 if bench.quick else 1000), bench.model
    top = interpret.top_activations(
        model, photos, layers, transform=bench.pre.transform(), workers=bench.workers, resume=bench.output / "top.safetensors",
    )
    control = interpret.randomised(model, np.random.default_rng(0))
    rows = []
    for layer in layers:
        atlas = interpret.layer_atlas(
            model, photos, top, layer, bench.pre, units=4 if bench.quick else 8, control=control, workers=bench.workers,
        )
        bench.keep(interpret.layer_sheet(
            atlas, bench.path(f"activations-{layer}"), classes=bench.trained.classes, command=bench.command))
        areas = np.mean([unit.areas for unit in atlas.units if unit.areas is not None], axis=0)
        rows.append({
            "layer": layer, "units": atlas.count, "silent": len(atlas.silent), "shown": len(atlas.units),
            "likeness": np.mean([unit.likeness for unit in atlas.units]),
            "deletion": areas[0], "insertion": areas[1], "random_deletion": areas[2], "random_insertion": areas[3],
            "one_class": _one_class(atlas, photos, top[layer].images),
        })
    labels = np.asarray(photos.labels)
    rng, k = np.random.default_rng(0), top[layers[0]].images.shape[1]
    drawn = [np.bincount(rng.choice(labels, k, replace=False)).max() / k for _ in range(1000)]
    return {
        "rows": rows, "photos": len(photos), "k": k, "one_class_by_chance": np.mean(drawn),
        "classes": len(photos.classes),
    }


def _one_class(atlas: LayerAtlas, photos: Dataset, images: np.ndarray) -> float:
    """The mean share of a unit's strongest photos that are of its commonest class, over the units that are ever active."""
    labels = np.asarray(photos.labels)
    active = [channel for channel in range(len(images)) if channel not in atlas.silent] or range(len(images))
    return float(np.mean([np.bincount(labels[images[channel]]).max() / images.shape[1] for channel in active]))


def filters(bench: Workbench) -> Figures:
    """First-layer filters, and how many units of each layer are dead (section 4.1 and figure 6)."""
    convolutions = [path for path, layer in bench.model.layers() if isinstance(layer, _Conv)]
    if not convolutions:
        raise Skip("the model has no convolution")
    photos = bench.some(100 if bench.quick else 500)
    shares = interpret.active_shares(bench.model, Loader(photos, 64, bench.pre.transform()), workers=bench.workers)
    first = interpret.filter_statistics(bench.model)
    active = shares[stages(bench.model)[0]]
    bench.keep(interpret.plot_filters(bench.model, bench.path("filters"), active=active, command=bench.command))
    return {
        "layer": first.layer, "count": len(first.rms), "rms": first.rms, "high_frequency": first.high_frequency.mean(),
        "random_high_frequency": first.random_high_frequency.mean(),
        "random_error": first.random_high_frequency.std() / len(first.rms) ** 0.5,
        "aliased": first.aliased.mean(), "random_aliased": first.random_aliased.mean(),
        "duplicates": len(first.duplicates), "photos": len(photos),
        "dead": {layer: int((share == 0).sum()) for layer, share in shares.items()},
        "units": {layer: len(share) for layer, share in shares.items()},
    }


def maximisation(bench: Workbench) -> Figures:
    """What some units of three layers and the classes can be made to answer to."""
    known = stages(bench.model)
    chosen: list[str | None] = [*dict.fromkeys([known[0], known[len(known) // 2], known[-1]]), None] if known else [None]
    mean, std = np.array(bench.pre.mean), np.array(bench.pre.std)
    results = []
    for layer in chosen:
        count = len(bench.trained.classes) if layer is None else bench.channels(layer)
        units = np.unique(np.linspace(0, count - 1, min(count, 6)).astype(int)).tolist()
        results.append(interpret.maximise(
            bench.model, layer, units, bench.size, steps=16 if bench.quick else 128, bounds=(-mean / std, (1 - mean) / std),
            seed=bench.seed, workers=bench.workers,
        ))
    bench.keep(interpret.plot_maximisation(
        results, bench.path("maximisation"), mean=bench.pre.mean, std=bench.pre.std, classes=bench.trained.classes,
        command=bench.command,
    ))
    return {"layers": [
        {"layer": r.layer or "classes", "units": r.channels, "activations": r.activations, "median": np.median(r.activations)}
        for r in results
    ]}


def occlusion(bench: Workbench) -> Figures:
    """Cover each part of some photos (figure 7)."""
    pictures, labels = bench.shown(1 if bench.quick else 3)
    side = bench.pre.crop
    patch = max(1, side // 4)
    stride = max(1, patch // 3 if bench.quick else side // 28)
    redrawn = interpret.randomised(bench.model, np.random.default_rng(0))
    rows = []
    for i, (picture, label, x) in enumerate(zip(pictures, labels, bench.inputs(pictures), strict=True)):
        found = interpret.occlusion(bench.model, x, label, patch=patch, stride=stride, workers=bench.workers)
        control = None if found.projection is None else interpret.control_projection(
            redrawn, bench.model, x[None], found.layer, (found.channel, "max"))[0]
        rows.append({
            "class": bench.trained.classes[label], "whole": found.whole_probability, "lowest": found.probability.min(),
            "flipped": (found.predicted != found.whole_logits.argmax()).mean(), "patch": found.patch, "stride": found.stride,
            "agreement": _correlation(found.probability, found.activation), "layer": found.layer, "map": found.channel,
        })
        bench.keep(interpret.plot_occlusion(
            found, picture, bench.path(f"occlusion-{i + 1}"), bench.trained.classes, control=control, command=bench.command
        ))
    return {"photos": rows}


def invariance(bench: Workbench) -> Figures:
    """Move, enlarge and turn five photos (figure 5)."""
    pictures, labels = bench.shown(5)
    every = {} if not bench.quick else {"scales": [1, 1.2, 1.5, 1.8], "angles": range(0, 360, 45)}
    found = interpret.invariance(
        bench.model, pictures, labels, bench.pre.to_input(), workers=bench.workers, **every,  # type: ignore[arg-type]
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
        curves.append({
            "kind": curve.kind, "unit": "times more" if curve.kind == "scale" else KINDS[curve.kind].split()[-1], **half,
            "plain": curve.probability[:, away.argmin()].mean(), "mean": curve.probability[:, away > 0].mean(),
            "lowest": curve.probability.min(), "amounts": curve.amounts, "first": curve.first, "last": curve.last,
            "probability": curve.probability,
        })
    bench.keep(interpret.plot_invariance(
        found, pictures, bench.path("invariance"), bench.trained.classes, command=bench.command
    ))
    return {"photos": len(pictures), "known": bench.known, "layers": found.layers, "curves": curves}


def correspondence(bench: Workbench, boxes: Mapping[str, Any] | None) -> Figures:
    """Mask the same parts in some photos of one class (table 1). boxes: as run_study has them."""
    if boxes is not None:
        pictures = [bench.view(bench.photos[int(i)][0]) for i in boxes["photos"]]
        parts = boxes["parts"]
    else:
        pictures, labels = bench.shown(10)
        first = [p for p, label in zip(pictures, labels, strict=True) if label == labels[0]]
        pictures, side = first[:5], bench.pre.crop
        third = max(1, side // 3)
        places = {"centre": (side - third) // 2, "top left": 0, "bottom right": side - third}
        parts = {name: np.array([[at, at, third, third]] * len(pictures)) for name, at in places.items()}
    if len(pictures) < 3:
        raise Skip(f"it needs three photos of one class, here {'is' if len(pictures) == 1 else 'are'} {len(pictures)}")
    found = interpret.correspondence(
        bench.model, bench.inputs(pictures), parts, draws=3 if bench.quick else 10, seed=bench.seed, workers=bench.workers
    )
    bench.keep(interpret.plot_correspondence(found, bench.path("correspondence"), command=bench.command))
    return {"rows": [row._asdict() for row in found.rows], "photos": found.photos, "given": boxes is not None}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


__all__ = ["activations", "correspondence", "filters", "invariance", "maximisation", "occlusion"]
