"""Train a classifier of photos from beginning to end: recipe, data, training, figures, files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data import Dataset, Loader, transforms
from ..data.preprocessing import Preprocessing
from ..errors import ArgumentError
from ..files import write_text
from ..models import TrainedModel, create
from ..nn import CrossEntropyLoss, Layer, summary
from ..optim import AdamW, OneCycleLR
from .evaluation import Evaluation, evaluate
from .plots import plot_confusion_matrix, plot_history, plot_predictions
from .progress import Mode
from .trainer import Trainer

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)     # of ImageNet's photos; near enough for any


@dataclass(frozen=True)
class Recipe:
    """How to train: which model, on what input, with which augmentation, for how long.

    augment: what is done to a training photo, uint8 (H, W, 3), before it becomes an input; it ends in the input's size.
    cache: the shorter side at which decoded photos are kept in memory, pixels. AdamW with weight decay on all but
    biases and norms; one
    cycle of the learning rate (Smith & Topin 2017) up to `lr` in the first `rise` of the steps; smoothed labels.
    """

    model: str
    preprocessing: Preprocessing
    augment: tuple[Callable[..., Any], ...]
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    rise: float = 0.25
    cache: int = 256
    arguments: dict[str, Any] = field(default_factory=dict)


def recipe_for(size: int) -> Recipe:
    """The recipe for inputs of size × size pixels: up to 48 that of the embedded photos, from 64 that of the 224 protocol."""
    if not 16 <= size <= 512 or 48 < size < 64:
        raise ArgumentError(f"expected a size from 16 to 48 or from 64 to 512 pixels, got {size}")
    if size <= 48:
        return Recipe(
            model="catnet", arguments={"size": size},
            preprocessing=Preprocessing(size, size, _MEAN, _STD),
            augment=(
                transforms.Resize(size), transforms.CenterCrop(size),
                transforms.RandomCrop(size, padding=size // 8, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.2, 0.2, 0.2),
            ),
            epochs=40, batch_size=32, lr=3e-3,
        )
    return Recipe(
        model="photonet", arguments={"stem": [7, 4] if size > 160 else [5, 2]},
        preprocessing=Preprocessing(size, size, _MEAN, _STD),
        augment=(
            transforms.RandomResizedCrop(size, scale=(0.35, 1.0)),
            transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.3, 0.3, 0.4),
        ),
        epochs=60, batch_size=16, lr=1e-3,
    )


class Classifier(NamedTuple):
    """What train_classifier gives: the trained model, and what it did on each part of the data."""

    trained: TrainedModel
    evaluations: dict[str, Evaluation]
    """"train", "validation" and, if there is one, "test"; training photos as they are, without augmentation."""
    files: dict[str, Path]


def train_classifier(
    train: Dataset, validation: Dataset, test: Dataset | None, recipe: Recipe, output: str | os.PathLike[str],
    *, seed: int = 0, epochs: int | None = None, workers: int | None = None, resume: bool = False, positive: str | None = None,
    progress: Mode | None = None, say: Callable[[str], None] = print, command: str = "",
) -> Classifier:
    """Train by the recipe, evaluate on all parts, and write everything into the folder `output`.

    epochs: instead of the recipe's. resume: go on from output/last.safetensors. positive: the class that precision, recall and F1
    are of (default: the mean over the classes). command: how a user calls this, for the files and the advice after Ctrl-C.
    The weights are those of the last epoch: with a cycle that ends at a learning rate of zero there is no better one to pick, and
    validation figures stay honest.
    """
    output, classes = Path(output), train.classes
    model = create(recipe.model, classes=len(classes), rng=np.random.default_rng(seed), **recipe.arguments)
    epochs = recipe.epochs if epochs is None else epochs
    crop, to_input = recipe.preprocessing.crop, recipe.preprocessing.to_input()
    table = summary(model, (3, crop, crop))
    say(
        f"{recipe.model}: {table.parameters:,} parameters, {table.multiply_adds / 1e6:,.1f} million multiply-adds a photo "
        f"of {crop}×{crop}; {epochs} epochs on {len(train):,} photos, learning rate up to {recipe.lr:g}, seed {seed}"
    )
    batch_size = min(recipe.batch_size, len(train))
    loader = Loader(
        train, batch_size, transforms.Compose([*recipe.augment, to_input]), shuffle=True, seed=seed, drop_last=True
    )
    parts = {"train": train, "validation": validation, **({} if test is None else {"test": test})}
    plain = {name: Loader(part, 64, recipe.preprocessing.transform()) for name, part in parts.items()}
    trainer = Trainer(
        model, CrossEntropyLoss(label_smoothing=recipe.label_smoothing), _optimizer(model, recipe), loader, plain["validation"],
        epochs=epochs, schedule=OneCycleLR(recipe.lr, total_steps=max(epochs * len(loader), 1), pct_start=recipe.rise),
        output=output, seed=seed, workers=workers, progress=progress,
        config={"recipe": recipe.model, "classes": classes, "size": crop, "command": command},
        resume_hint=f"{command} --resume" if command else None,
    )
    history = trainer.fit(resume=resume)

    evaluations = {name: evaluate(model, batches, CrossEntropyLoss()) for name, batches in plain.items()}
    which = None if positive is None else classes.index(positive)
    figures = {name: evaluation.metrics(which) for name, evaluation in evaluations.items()}
    say(figures_table(figures, {name: len(part) for name, part in parts.items()}, positive))
    trained = TrainedModel(
        model, recipe.model, {"classes": len(classes), **recipe.arguments}, classes, recipe.preprocessing,
        {"figures": _rounded(figures), "command": command, "seed": seed, "epochs": epochs},
    )
    files = {
        "model": output / "model.safetensors", "curves": output / "curves.png", "confusion matrix": output / "confusion.png",
        "predictions": output / "predictions.png", "figures": output / "figures.json",
    }
    trained.save(files["model"])
    plot_history(history, files["curves"])
    last = list(evaluations)[-1]
    plot_confusion_matrix(evaluations[last].confusion_matrix, classes, files["confusion matrix"])
    plot_predictions(parts[last], evaluations[last].labels, evaluations[last].probabilities, classes, files["predictions"])
    write_text(files["figures"], json.dumps(_rounded(figures), indent=2) + "\n")
    say("\n".join(f"{what:<16}  {path}" for what, path in files.items()))
    return Classifier(trained, evaluations, files)


def _optimizer(model: Layer, recipe: Recipe) -> AdamW:
    """AdamW with weight decay on filters and matrices, none on biases and the scales of normalisations."""
    parameters = model.named_parameters()
    return AdamW([
        {"params": {name: p for name, p in parameters.items() if p.ndim > 1}, "weight_decay": recipe.weight_decay},
        {"params": {name: p for name, p in parameters.items() if p.ndim <= 1}, "weight_decay": 0.0},
    ], lr=recipe.lr)


def figures_table(figures: dict[str, dict[str, float]], counts: dict[str, int], positive: str | None) -> str:
    """The figures of each part as lines of text."""
    of = f" of {positive}" if positive else " (mean over the classes)"
    lines = [f"{'':<12}photos   loss  accuracy  precision  recall     F1    AUC    precision, recall and F1{of}"]
    for name, row in figures.items():
        lines.append(
            f"{name:<12}{counts[name]:>6,}  {row['loss']:.3f}   {100 * row['accuracy']:5.1f} %    "
            f"{100 * row['precision']:5.1f} % {100 * row['recall']:5.1f} %  {row['f1']:.3f}  {row['auc']:.3f}"
        )
    return "\n".join(lines)


def _rounded(figures: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {key: round(value, 6) for key, value in row.items()} for name, row in figures.items()}
