"""What each layer contributes: models without it, or with more or fewer maps, trained alike (Zeiler & Fergus 2014, table 3).

    variants = {"as it is": rebuilt(model, size), "without conv3": without(model, size, "conv3"), …}
    print(ablation(variants, train, validation, recipe, epochs=10).table())
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..backend import device_of
from ..data import Dataset, Loader
from ..errors import ArgumentError, TinynetError, nearest
from ..nn import Flatten, Layer, Linear, Sequential, init
from ..nn.conv import _Conv, _ConvTranspose
from ..nn.layer import join, reference_array
from ..nn.norm import _BatchNorm
from ..train import Trainer, evaluate
from ..train.classifier import Recipe


def rebuilt(
    model: Layer, size: Sequence[int], *, drop: Sequence[str] = (), resize: Mapping[str, int] | None = None,
    classes: int | None = None, rng: np.random.Generator | None = None,
) -> Sequential:
    """A fresh copy of a Sequential model, without some layers and with other widths; all weights drawn anew.

    size: (C, H, W) of the input. drop: names of convolutions or linear layers; what follows them up to the next one
    goes with them, except pooling. resize: name → new number of maps or units. classes: of the last linear layer, and then
    what stands behind that goes too (a union of classes). Filters get He's weights, linear layers PyTorch's.
    The copy lives where the model does. Raises ArgumentError for unknown names (with the nearest), for the last linear layer,
    and for layers it cannot rebuild.
    """
    if not isinstance(model, Sequential):
        raise ArgumentError(f"ablation: expected a Sequential model, got {type(model).__name__}")
    resize, rng = dict(resize or {}), rng or np.random.default_rng(0)
    weighted = [path for path, layer in model.layers() if isinstance(layer, (_Conv, Linear))]
    linear = [path for path, layer in model.layers() if isinstance(layer, Linear)]
    for name in [*drop, *resize]:
        if name not in weighted:
            raise ArgumentError(f"ablation: no convolution or linear layer {name!r}; nearest: {nearest(name, weighted)}")
        if linear and name == linear[-1]:
            raise ArgumentError(f"ablation: {name!r} is the last linear layer, its units are the classes")
    if both := set(drop) & set(resize):
        raise ArgumentError(f"ablation: {min(both)!r} is to be removed and resized")
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in resize.values()):
        raise ArgumentError(f"ablation: expected numbers of maps of at least 1, got {resize}")
    if classes is not None:
        if not linear:
            raise ArgumentError("ablation: the model has no linear layer, whose units could be classes")
        resize[linear[-1]] = classes
    builder = _Builder(set(drop), resize, rng, linear[-1] if classes is not None else None)
    fresh, _ = builder.through(model, "", np.zeros((1, *size), np.float32))
    here = reference_array(model)
    if here is not None:
        fresh.to(device_of(here))
    return fresh


def without(model: Layer, size: Sequence[int], *names: str, classes: int | None = None, seed: int = 0) -> Sequential:
    """A fresh model without these layers: without(model, (3, 224, 224), "conv3", "conv4")."""
    return rebuilt(model, size, drop=names, classes=classes, rng=np.random.default_rng(seed))


def resized(
    model: Layer, size: Sequence[int], widths: Mapping[str, int], *, classes: int | None = None, seed: int = 0
) -> Sequential:
    """A fresh model with other numbers of maps or units: resized(model, (3, 224, 224), {"conv4": 512})."""
    return rebuilt(model, size, resize=widths, classes=classes, rng=np.random.default_rng(seed))


class AblationRow(NamedTuple):
    """Errors are shares of wrong answers on photos as they are, after the last epoch."""

    name: str
    parameters: int
    train_error: float
    validation_error: float
    seconds: float


@dataclass(frozen=True)
class Ablation:
    """One row a variant. train, validation: numbers of photos; the standard error of a share p of n photos is √(p(1−p)/n)."""

    rows: tuple[AblationRow, ...]
    epochs: int
    train: int
    validation: int

    def table(self) -> str:
        """As the paper's table 3: train and validation errors in per cent."""
        wide = max(len("model"), *(len(row.name) for row in self.rows))
        lines = [f"{'model':<{wide}}  parameters  train error  val error ± s.e."]
        for row in self.rows:
            p = row.validation_error
            error = 100 * np.sqrt(p * (1 - p) / self.validation)
            shares = f"{100 * row.train_error:>9.1f} %  {100 * p:>7.1f} ± {error:.1f} %"
            lines.append(f"{row.name:<{wide}}  {row.parameters:>10,}  {shares}")
        return "\n".join(lines)


def ablation(
    variants: Mapping[str, Layer], train: Dataset, validation: Dataset, recipe: Recipe, epochs: int, *, seed: int = 0,
    workers: int | None = None, progress: Any = "none", say: Callable[[str], None] = lambda line: None,
    callbacks: Mapping[str, Sequence[Any]] | None = None,
) -> Ablation:
    """Train every variant under one budget: the same recipe, epochs, photos in the same order. The models are trained in place.

    recipe: as train.classifier.recipe_for gives it (its model is not used). say: gets a line a variant.
    callbacks: name of a variant → those of its Trainer.
    """
    if not variants:
        raise ArgumentError("ablation: expected at least one variant")
    rows = []
    plain = recipe.preprocessing.transform()
    for name, model in variants.items():
        started = time.perf_counter()
        loader = recipe.loader(train, seed)
        Trainer(
            model, recipe.loss(), recipe.optimizer(model), loader, epochs=epochs, schedule=recipe.schedule(epochs, len(loader)),
            seed=seed, workers=workers, progress=progress, callbacks=(callbacks or {}).get(name, ()),
        ).fit()
        errors = [1 - evaluate(model, Loader(part, 64, plain)).accuracy for part in (train, validation)]
        parameters = sum(p.size for p in model.named_parameters().values())
        rows.append(AblationRow(name, parameters, errors[0], errors[1], time.perf_counter() - started))
        say(f"{name}: train error {100 * errors[0]:.1f} %, validation error {100 * errors[1]:.1f} %, {rows[-1].seconds:.0f} s")
    return Ablation(tuple(rows), epochs, len(train), len(validation))


class _Builder:
    """Goes through a Sequential, layer by layer, with an input of zeros that says what sizes each gets."""

    def __init__(self, drop: set[str], resize: Mapping[str, int], rng: np.random.Generator, last: str | None) -> None:
        self.drop, self.resize, self.rng, self.last = drop, resize, rng, last
        self.dropping = self.ended = False

    def through(self, model: Sequential, path: str, x: np.ndarray) -> tuple[Sequential, np.ndarray]:
        children: dict[str, Layer] = {}
        for name, layer in model.named_children():
            here = join(path, "" if name.startswith("_") else name)
            if self.ended:
                break
            if isinstance(layer, Sequential):
                children[name], x = self.through(layer, here, x)
                continue
            if isinstance(layer, (_Conv, Linear)):
                self.dropping = here in self.drop
            if isinstance(layer, Flatten):                      # dropout behind it belongs to the linear layer to come
                self.dropping = False
            if self.dropping and (isinstance(layer, (_Conv, Linear)) or layer.each_cell):
                continue                                        # pooling stays, since it decides the sizes of what comes behind
            children[name] = fresh = self.fresh(here, layer, x)
            try:
                x = fresh(x)
            except TinynetError as error:
                raise ArgumentError(f"ablation: {here} does not fit what is left before it: {error}") from None
            self.ended = here == self.last
        return Sequential(children), x

    def fresh(self, path: str, layer: Any, x: np.ndarray) -> Layer:
        if isinstance(layer, _ConvTranspose) or (layer.parameter_names and not isinstance(layer, (_Conv, Linear, _BatchNorm))):
            raise ArgumentError(f"ablation: {path}: cannot rebuild {type(layer).__name__} for other sizes")
        if isinstance(layer, _Conv):
            conv = type(layer)(
                x.shape[1], self.resize.get(path, layer.out_channels), layer.kernel_size, layer.stride, layer.padding,
                layer.dilation, layer.groups, layer.bias is not None, rng=self.rng,
            )
            conv.weight = init.kaiming_normal(self.rng, conv.weight.shape)
            return conv
        if isinstance(layer, Linear):
            return Linear(x.shape[-1], self.resize.get(path, layer.out_features), layer.bias is not None, rng=self.rng)
        if isinstance(layer, _BatchNorm):
            return type(layer)(
                x.shape[1], layer.eps, layer.momentum, layer.affine, layer.track_running_stats, bias=layer.bias is not None
            )
        if list(layer.children()):
            raise ArgumentError(f"ablation: {path}: expected a sequence of layers, got {type(layer).__name__}")
        return copy.copy(layer)


__all__ = ["Ablation", "AblationRow", "ablation", "rebuilt", "resized", "without"]
