"""Train a classifier of photos from beginning to end: recipe, data, training, figures, files."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Device, array_module
from ..data import Dataset, Loader, Relabelled, transforms
from ..data.preprocessing import Preprocessing
from ..errors import ArgumentError, nearest
from ..files import write_text
from ..functional import group_logsumexp
from ..models import TrainedModel, create, last_weighted, names, with_classes
from ..nn import CrossEntropyLoss, Layer, Sequential, split, summary, without_softmax
from ..optim import AdamW, OneCycleLR
from .callbacks import Callback
from .evaluation import Evaluation, evaluate
from .features import FrozenLoader
from .keeping import check_unused, kept_epochs
from .photos import Parts
from .plots import plot_confusion_matrix, plot_history, plot_predictions
from .progress import Mode
from .trainer import Trainer

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)     # of ImageNet's photos; near enough for any


@dataclass(frozen=True)
class Recipe:
    """How to train: which model, on what input, with which augmentation, for how long.

    augment: what is done to a training photo, uint8 (H, W, 3), before it becomes an input; it ends in the input's size.
    finish: what is done to the normalised input, float32 (3, H, W).
    cache: the shorter side at which decoded photos are kept in memory, pixels. cached_views: augmented views of each photo
    that are kept where a part of the network is frozen. AdamW with weight decay on all but
    biases and norms; one cycle of the learning rate (Smith & Topin 2017) up to `lr` in the first `rise` of the steps; smoothed
    labels.
    """

    model: str
    preprocessing: Preprocessing
    augment: tuple[Callable[..., Any], ...]
    finish: tuple[Callable[..., Any], ...]
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    rise: float = 0.25
    cache: int = 256
    cached_views: int = 4
    arguments: dict[str, Any] = field(default_factory=dict)

    def loader(self, train: Dataset, seed: int) -> Loader:
        """Batches of the augmented photos, in an order that the seed draws for each epoch."""
        transform = transforms.Compose([*self.augment, self.preprocessing.to_input(), *self.finish])
        return Loader(train, min(self.batch_size, len(train)), transform, shuffle=True, seed=seed, drop_last=True)

    def loss(self) -> CrossEntropyLoss:
        return CrossEntropyLoss(label_smoothing=self.label_smoothing)

    def optimizer(self, model: Layer) -> AdamW:
        """AdamW with weight decay on filters and matrices, none on biases and the scales of normalisations."""
        parameters = model.named_parameters()
        return AdamW([
            {"params": {name: p for name, p in parameters.items() if p.ndim > 1}, "weight_decay": self.weight_decay},
            {"params": {name: p for name, p in parameters.items() if p.ndim <= 1}, "weight_decay": 0.0},
        ], lr=self.lr)

    def schedule(self, epochs: int, batches: int) -> OneCycleLR:
        """Of so many epochs of so many batches."""
        return OneCycleLR(self.lr, total_steps=max(epochs * batches, 1), pct_start=self.rise)


def recipe_for(size: int) -> Recipe:
    """The recipe for inputs of size × size pixels: up to 48 that of the embedded photos, from 64 that of the 224 protocol."""
    if not 16 <= size <= 512 or 48 < size < 64:
        raise ArgumentError(f"expected a size from 16 to 48 or from 64 to 512 pixels, got {size}")
    if size <= 48:
        return Recipe(
            model="catnet", arguments={"size": size, "width": 48},
            preprocessing=Preprocessing(size, size, _MEAN, _STD, views=10),
            augment=(
                transforms.Resize(size), transforms.CenterCrop(size),
                transforms.RandomCrop(size, padding=size // 8, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.2, 0.2, 0.2),
            ),
            finish=(transforms.RandomErasing(1.0, scale=(1 / 16, 1 / 16), ratio=(1.0, 1.0)),),
            epochs=54, batch_size=32, lr=2e-3,
        )
    return Recipe(
        model="photonet", arguments={"stem": [7, 4] if size > 160 else [5, 2]},
        preprocessing=Preprocessing(round(size * 8 / 7), size, _MEAN, _STD, views=10),   # 256 → 224, as the paper
        augment=(
            transforms.RandomResizedCrop(size, scale=(0.35, 1.0)),
            transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.3, 0.3, 0.4),
        ),
        finish=(transforms.RandomErasing(0.3, scale=(0.02, 0.16), ratio=(1.0, 1.0)),),
        epochs=60, batch_size=16, lr=1e-3, cache=max(256, round(size * 8 / 7)),
    )


def fine_tuning(start: TrainedModel, freeze: str | None = None) -> Recipe:
    """The recipe for going on from a trained network: its own input, gentler augmentation, few epochs.

    freeze: the layer up to which nothing is trained; None: everything is, at a low learning rate.
    """
    size = start.preprocessing.crop
    return Recipe(
        model=start.name, arguments={k: v for k, v in start.arguments.items() if k != "classes"},
        preprocessing=replace(start.preprocessing, views=max(start.preprocessing.views, 2)),
        augment=(transforms.RandomResizedCrop(size, scale=(0.35, 1.0)), transforms.RandomHorizontalFlip()), finish=(),
        epochs=4 if freeze is None else 20, batch_size=16 if freeze is None else 32, lr=1e-4 if freeze is None else 1e-3,
        weight_decay=0.01, cache=max(256, start.preprocessing.resize),
    )


def take_over(start: TrainedModel, model: Layer) -> None:
    """Copy a trained network's weights into one of the same kind, all but those of a last layer with other classes.

    Raises ArgumentError if anything else does not fit.
    """
    mine, state = model.state_dict(), start.model.state_dict()
    last = last_weighted(model)[0] + "."
    other = [name for name in mine if name not in state or state[name].shape != mine[name].shape]
    if any(name not in state or not name.startswith(last) for name in other):
        raise ArgumentError(f"{start.name}: its weights do not fit the network to be trained at {other[0]}")
    model.load_state_dict({name: x for name, x in state.items() if name not in other}, strict=False)


class Classifier(NamedTuple):
    """What train_classifier gives: the trained model, and what it did on each part of the data."""

    trained: TrainedModel
    evaluations: dict[str, Evaluation]
    """"train", "validation" and, if there is one, "test"; training photos as they are, without augmentation and in one view."""
    files: dict[str, Path]


def train_classifier(
    photos: Parts, recipe: Recipe, output: str | os.PathLike[str],
    *, seed: int = 0, epochs: int | None = None, workers: int | None = None, resume: bool = False, overwrite: bool = False,
    positive: str | None = None, progress: Mode | None = None, say: Callable[[str], None] = print, command: str = "",
    callbacks: Sequence[Callback] = (), start: TrainedModel | None = None, freeze: str | None = None,
    device: str | Device = "cpu",
) -> Classifier:
    """Train by the recipe, evaluate on all parts, and write everything into the folder `output`.

    photos: from embedded_parts or folder_parts. Where classes are united (photos.unions), the network is taught the
    finer ones and a last layer unites them.

    epochs: instead of the recipe's, or of those that a run to be resumed was to have. resume: go on from output/last.safetensors.
    overwrite: begin anew whatever the folder holds; without, an unfinished run there, or one of another command, seed or number
    of epochs, is an ArgumentError. positive: the class that precision, recall and F1 are of (default: the mean over the classes).
    command: how a user calls this, for the files and the advice after Ctrl-C.
    callbacks: the Trainer's. start: a trained network to go on from instead of drawn weights. freeze: the layer up to which,
    itself included, it stays as it is; what that part gives is computed once for a few augmented views of every photo.
    device: where to compute, "cpu", "cuda", "cuda:1". A seed starts from the same weights and sees the same batches everywhere,
    and a run may be resumed on another device.
    The weights are those of the last epoch: with a cycle that ends at a learning rate of zero there is no better one to pick, and
    validation figures stay honest.
    """
    output, train = Path(output), photos.train
    arguments: dict[str, Any] = {"classes": len(train.classes), **recipe.arguments}
    classes, groups = train.classes, None
    if photos.unions is not None:
        classes = list(photos.unions)
        groups = [[train.classes.index(kind) for kind in kinds] for kinds in photos.unions.values()]
        arguments["groups"] = groups
    if positive is not None and positive not in classes:
        raise ArgumentError(f"train_classifier: no class {positive!r} to be positive; nearest: {nearest(positive, classes)}")
    if epochs is None:
        epochs = (kept_epochs(output) if resume else None) or recipe.epochs
    crop = recipe.preprocessing.crop
    config = {"recipe": recipe.model, "classes": classes, "size": crop, "command": command}
    if not resume and not overwrite:                            # before anything is computed
        check_unused(output, config, seed, epochs, *(("--{}", "--output") if command else ()))
    rng = np.random.default_rng(seed)
    if start is not None and recipe.model not in names():       # of ONNX, say: its own layers, with another end
        whole, arguments = copy.deepcopy(with_classes(without_softmax(start.model), len(classes), rng)), {}
    else:
        whole = create(recipe.model, rng=rng, **arguments)
    assert isinstance(whole, Sequential)
    if start is not None:
        take_over(start, whole)
    whole.to(device)                                            # before the optimiser: it changes the model's own arrays
    # The last layer, which unites classes, stays out of the training: what is taught are the finer classes.
    model = whole if groups is None else Sequential(dict(list(whole.named_children())[:-1]))
    base, head = (None, model) if freeze is None else split(model, freeze)
    if not head.named_parameters():
        raise ArgumentError(f"nothing is left to train with {freeze!r} and all before it frozen")
    table = summary(model, (recipe.preprocessing.channels, crop, crop))
    say(
        f"{recipe.model}: {table.parameters:,} parameters, {table.multiply_adds / 1e6:,.1f} million multiply-adds a photo "
        f"of {crop}×{crop}; {epochs} epochs on {len(train):,} photos, learning rate up to {recipe.lr:g}, seed {seed}"
    )
    if base is not None:
        trained_count = sum(p.size for p in head.named_parameters().values())
        say(f"frozen up to {freeze}; {trained_count:,} parameters are trained")
    finer = f"over {len(train.classes)} finer classes, " if groups is not None else ""
    accuracy = f"; its accuracy: over {', '.join(classes)}" if groups is not None else ""
    measure = f"each epoch's loss: {finer}labels smoothed by {recipe.label_smoothing:g}, one view of a photo{accuracy}"
    say(measure)                                                # the table at the end has another
    loader: Any = recipe.loader(train, seed)
    as_they_are = recipe.preprocessing.transform()
    validation: Any = Loader(photos.validation, 64, as_they_are)
    if base is not None:
        loader = FrozenLoader(base, loader, min(recipe.cached_views, epochs), workers=workers, say=say)
        validation = FrozenLoader(base, validation, workers=workers)
    trainer = Trainer(
        head, recipe.loss(), recipe.optimizer(head), loader, validation,
        epochs=epochs, schedule=recipe.schedule(epochs, len(loader)), output=output, seed=seed, workers=workers,
        progress=progress, right=None if groups is None else _right(groups), config=config,
        resume_hint=f"{command} --resume" if command else None, callbacks=callbacks,
    )
    history = trainer.fit(resume, overwrite=True)

    parts: dict[str, Dataset] = {"train": train, "validation": photos.validation}
    if photos.test is not None:
        parts["test"] = photos.test
    if groups is not None:
        mapping = [next(g for g, group in enumerate(groups) if kind in group) for kind in range(len(train.classes))]
        parts = {name: Relabelled(part, mapping, classes) for name, part in parts.items()}
    views = {name: 1 if name == "train" else recipe.preprocessing.views for name in parts}   # ten of 2,700 photos take 20 seconds
    evaluations = {
        name: evaluate(whole, Loader(part, 64, as_they_are), CrossEntropyLoss(), views=views[name])
        for name, part in parts.items()
    }
    which = None if positive is None else classes.index(positive)
    figures = {name: evaluation.metrics(which) for name, evaluation in evaluations.items()}
    say(figures_table(figures, {name: len(part) for name, part in parts.items()}, views, positive))
    trained = TrainedModel(
        whole, recipe.model, arguments, classes, recipe.preprocessing,
        {"figures": _rounded(figures), "command": command, "seed": seed, "epochs": len(history)},
    )
    files = {
        "model": output / "model.safetensors", "curves": output / "curves.png", "confusion matrix": output / "confusion.png",
        "predictions": output / "predictions.png", "figures": output / "figures.json",
    }
    trained.save(files["model"])
    plot_history(history, files["curves"], measure)
    last = list(evaluations)[-1]
    plot_confusion_matrix(evaluations[last].confusion_matrix, classes, files["confusion matrix"])
    plot_predictions(parts[last], evaluations[last].labels, evaluations[last].probabilities, classes, files["predictions"],
                     of=f"{len(parts[last]):,} {last} photos")
    write_text(files["figures"], json.dumps(_rounded(figures), indent=2) + "\n")
    say("\n".join(f"{what:<16}  {path}" for what, path in files.items()))
    return Classifier(trained, evaluations, files)


def _right(groups: list[list[int]]) -> Callable[[Array, Array], Array]:
    """Counts what is right once classes are united."""
    union = np.empty(sum(map(len, groups)), np.int64)
    for g, group in enumerate(groups):
        union[group] = g

    def right(logits: Array, target: Array) -> Array:
        said = group_logsumexp(logits, groups).argmax(axis=1)
        return (said == array_module(target).asarray(union)[target]).sum()

    return right


def figures_table(
    figures: dict[str, dict[str, float]], counts: dict[str, int], views: dict[str, int], positive: str | None
) -> str:
    """The figures of each part as lines of text: of how many photos, each answered by the mean over how many views."""
    of = f" of {positive}" if positive else " (mean over the classes)"
    lines = [f"{'':<12}photos  views   loss  accuracy  precision  recall     F1    AUC    precision, recall and F1{of}"]
    for name, row in figures.items():
        lines.append(
            f"{name:<12}{counts[name]:>6,}  {views[name]:>5}  {row['loss']:.3f}   {100 * row['accuracy']:5.1f} %    "
            f"{100 * row['precision']:5.1f} % {100 * row['recall']:5.1f} %  {row['f1']:.3f}  {row['auc']:.3f}"
        )
    return "\n".join(lines)


def _rounded(figures: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {key: round(value, 6) for key, value in row.items()} for name, row in figures.items()}
