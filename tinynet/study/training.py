"""The experiments of the paper that train something: transfer, ablation, and the evolution of features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .. import interpret
from ..data import Dataset, Loader, Subset, split
from ..errors import ArgumentError
from ..files import write_text
from ..interpret.deconvnet import without_rule
from ..interpret.evolution import EPOCHS
from ..interpret.observe import stages
from ..nn import Linear
from ..nn.conv import _Conv
from ..train.classifier import recipe_for
from .ablation import Ablation, AblationRow, ablation, rebuilt
from .transfer import Features, Transfer, TransferRow, default_layers, frozen_features, plot_transfer
from .transfer import transfer as train_transfer
from .workbench import Skip, Workbench


def transfer(bench: Workbench, photos: Dataset) -> dict[str, Any]:
    """A softmax on the frozen features of each layer, and on those of the network with redrawn weights (table 4)."""
    counts = np.bincount(photos.labels, minlength=len(photos.classes))
    sizes = [size for size in ((5,) if bench.quick else (15, 30)) if counts.min() > size]
    if len(photos.classes) < 2 or not sizes:
        least = 5 if bench.quick else 15
        raise Skip(f"it needs two classes with more than {least} photos each, the smallest here has {counts.min()}")
    chosen = _at_most(photos, max(sizes) + 50, bench.seed)
    folds = 2 if bench.quick else 5
    results: dict[str, Transfer] = {}
    for name in ("trained", "random weights"):
        found: list[Features] = []

        def rows(layer: str, name: str = name, found: list[Features] = found) -> list[dict[str, Any]]:
            if not found:                                       # once for all layers that are left to do
                redrawn = name != "trained"
                model = interpret.randomised(bench.model, np.random.default_rng(bench.seed)) if redrawn else bench.model
                found.append(frozen_features(model, chosen, bench.pre.transform(), workers=bench.workers))
            one = replace(found[0], layers={layer: found[0].layers[layer]})
            return [row._asdict() for row in train_transfer(one, sizes, folds, seed=bench.seed, workers=bench.workers).rows]

        kept = [
            row for layer in default_layers(bench.model)
            for row in bench.once(f"transfer: {name}, {layer}", partial(rows, layer))
        ]
        results[name] = Transfer(tuple(TransferRow(**row) for row in kept), len(photos.classes), folds)
    bench.keep(plot_transfer(results, bench.path("transfer"), command=bench.command))
    return {
        "classes": len(photos.classes), "folds": folds, "same_classes": list(photos.classes) == list(bench.trained.classes),
        "trained": [row._asdict() for row in results["trained"].rows],
        "random": [row._asdict() for row in results["random weights"].rows],
    }


def _at_most(photos: Dataset, most: int, seed: int) -> Dataset:
    """At most so many photos of each class, drawn by the seed."""
    rng, labels = np.random.default_rng(seed), np.asarray(photos.labels)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:most] for label in range(len(photos.classes))]
    return Subset(photos, np.sort(np.concatenate(chosen)))


def training(bench: Workbench, epochs: int, say: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ablation: variants of the model, trained alike (table 3); and the evolution of the one that is as it is (figure 4)."""
    if epochs < 1:
        raise Skip("they train variants of the model; say for how many epochs")
    if len(bench.photos.classes) < 2:
        raise Skip("training needs two classes or more")
    try:
        recipe = replace(recipe_for(bench.pre.crop), preprocessing=bench.pre)
        train, validation = split(bench.photos, (0.9, 0.1), seed=bench.seed)
        count = len(bench.photos.classes)
        variants = {
            name: rebuilt(bench.model, bench.size, classes=count, rng=np.random.default_rng(bench.seed), **change)
            for name, change in default_variants(bench.model).items()
        }
    except ArgumentError as error:
        raise Skip(str(error)) from None
    known = [layer for layer in stages(variants["as it is"]) if without_rule(variants["as it is"], layer) is None]
    if not known:
        raise Skip("the deconvnet has no rule for what comes before the first maps")
    layers = dict.fromkeys([known[0], known[len(known) // 2], known[-1]])
    units = {layer: list(range(min(3, bench.channels(layer, variants["as it is"])))) for layer in layers}
    wanted = sorted({*(epoch for epoch in EPOCHS if epoch <= epochs), epochs})
    watched = Subset(validation, np.arange(min(len(validation), 100 if bench.quick else 300)))
    evolution = interpret.Evolution(Loader(watched, 64, bench.pre.transform()), units, wanted, workers=bench.workers)
    rows = []
    for name, model in variants.items():

        def one(name: str = name, model: Any = model) -> dict[str, Any]:
            found = ablation(
                {name: model}, train, validation, recipe, epochs, seed=bench.seed, workers=bench.workers, say=say,
                callbacks={"as it is": [evolution]},
            )
            frames = evolution.state_dict() if name == "as it is" else None
            return {"row": found.rows[0]._asdict(), "frames": frames}

        kept = bench.once(f"ablation: {name}", one)
        rows.append(AblationRow(**kept["row"]))
        if kept["frames"] is not None:
            evolution.load_state_dict(kept["frames"])
    found = Ablation(tuple(rows), epochs, len(train), len(validation))
    write_text(bench.output / "ablation.txt", found.table() + "\n")
    at = {(f.layer, f.channel, f.epoch): f.image for f in evolution.frames}
    same = {
        layer: np.mean([at[layer, c, wanted[0]] == at[layer, c, wanted[-1]] for c in channels])
        for layer, channels in units.items()
    }
    bench.keep(interpret.plot_evolution(evolution, bench.path("evolution"), command=bench.command))
    return (
        {"rows": [row._asdict() for row in rows], "epochs": epochs, "train": found.train, "validation": found.validation},
        {"epochs": wanted, "photos": len(watched), "same_photo": same},
    )


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


__all__ = ["default_variants", "training", "transfer"]
