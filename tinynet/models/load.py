"""Networks that somebody trained: from the box, from a file of tinynet's, from PyTorch's weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, FileError, ShapeError
from ..files import read_safetensors
from ..nn import Layer, init
from .file import TrainedModel, check_finite, is_model, trained_model
from .registry import create, entry, names
from .state import Weights, load_weights

BOXED = ("squeezenet1_1",)
"""Networks whose weights are in the package."""
WEIGHT_SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".ckpt", ".bin")
PREFIXES = ("model", "net", "module", "network", "_orig_mod", "backbone", "encoder")
"""What programs put before a network's names, as in "model.features.0.weight"."""
_BOX = Path(__file__).parent / "weights"


def load(
    path: str | os.PathLike[str], model: str | Layer | None = None, *, key: str | None = None, strict: bool = True
) -> TrainedModel | Weights:
    """Read a file of weights: safetensors, .npz, or what torch.save wrote. Nothing in it is ever executed.

    A model file of tinynet's gives its TrainedModel. Other weights give a state dict, name → array (Weights); its `trained()` is the
    network, ready to use, where names and shapes tell which one it is.
    model: the name of a network, or a layer to put the weights into: the answer is a TrainedModel. strict False: what is missing stays
    as it was, and what is left over is passed over. key: the entry of a checkpoint that holds the weights.
    Raises FileError for the file (see load_weights), ShapeError that lists all missing, unexpected and wrongly shaped names at once.
    """
    weights = load_weights(path, key)
    if model is not None:
        return weights_into(weights, model, strict)
    return trained_model(weights.path, weights, weights.metadata) if is_model(weights.metadata) else weights


def load_model(what: str | os.PathLike[str]) -> TrainedModel:
    """A trained network: one of the box by name ("squeezenet1_1"), a model file, or the weights of a network that is known.

    Raises FileError if the file is missing, damaged, something else, or of no network that can be told.
    """
    path = Path(what)
    if str(what) in BOXED:
        return boxed(str(what))
    if str(what) in names():
        raise FileError(f"{what}: a network whose weights are not in the box ({', '.join(BOXED)} is); give a file of weights")
    if path.is_dir():
        raise FileError(f"{path}: a folder; expected a model file, such as {path / 'model.safetensors'}")
    if not path.is_file():
        raise FileError(f"{path}: no such file; train a model first, e.g. with: tinynet train")
    weights = load_weights(path)
    if is_model(weights.metadata):
        return trained_model(path, weights, weights.metadata)
    if "tinynet.checkpoint" in weights.metadata:
        raise FileError(f"{path}: a checkpoint; its model is model.safetensors beside it")
    return trained(weights)


def boxed(name: str = BOXED[0]) -> TrainedModel:
    """A network of the box, with its ImageNet classes. Raises ArgumentError for a name that is not in it."""
    if name not in BOXED:
        raise ArgumentError(f"no network {name!r} in the box; there is {', '.join(BOXED)}")
    path = _BOX / f"{name}.safetensors"
    return trained_model(path, *read_safetensors(path, "install tinynet again"))


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes in their usual order."""
    return tuple(boxed().classes)


def recognise(weights: Mapping[str, np.ndarray]) -> list[tuple[str, dict[str, Any]]]:
    """(name, arguments) of the published networks whose names and shapes these are, whatever their number of classes."""
    found = []
    for name in names():
        if entry(name).preprocessing is None:
            continue
        model = create(name, rng=init.no_draws)
        state = _renamed(weights, model)
        wrong = [n for n, x in model.state_dict().items() if n not in state or state[n].shape != x.shape]
        if not wrong and len(state) == len(model.state_dict()):
            found.append((name, {}))
        elif 1 <= len(wrong) <= 2 and all(n in state and state[n].shape[1:] == model.state_dict()[n].shape[1:] for n in wrong):
            arguments = {"classes": len(state[wrong[0]])}
            if _fits(state, create(name, rng=init.no_draws, **arguments)):
                found.append((name, arguments))
    return found


def trained(weights: Weights, name: str | None = None) -> TrainedModel:
    """The network that these weights are of, ready to use: with how a photo comes to it and names for its classes.

    name: which network; None: the one that names and shapes tell. Raises FileError if they tell none, or several.
    """
    if name is not None:
        return weights_into(weights, name)
    found = recognise(weights)
    if len(found) != 1:
        kind = "of no network that is known here" if not found else f"as {' and '.join(n for n, _ in found)} have them"
        raise FileError(
            f"{weights.path}: weights alone, {kind}; say which network they are of: tinynet.load(…, model=name), "
            "or tinynet convert --model"
        )
    return weights_into(weights, found[0][0])


def weights_into(weights: Weights, model: str | Layer, strict: bool = True) -> TrainedModel:
    """The network with these weights in it; see `load`."""
    if isinstance(model, str):
        known, name = entry(model), model
        published = known.preprocessing
        network = create(model, rng=np.random.default_rng(0) if not strict else init.no_draws)
        arguments: dict[str, Any] = {}
        state = _renamed(weights, network)
        rows = _class_rows(state, network)
        if rows is not None:
            arguments = {"classes": rows}
            network = create(model, rng=np.random.default_rng(0) if not strict else init.no_draws, **arguments)
    else:
        network, name, arguments, published = model, type(model).__name__, {}, None
        state = _renamed(weights, network)
    try:
        network.load_state_dict(state, strict=strict)
    except ShapeError as error:
        raise ShapeError(f"{weights.path}: {error}") from None
    check_finite(weights.path, state)
    count = _class_count(network)
    classes = list(imagenet_classes()) if count == 1000 else [f"class {i}" for i in range(count)]
    side = entry(name).input_size[-1] if isinstance(model, str) else 224
    preprocessing = published or IMAGENET.__class__(side, side, IMAGENET.mean, IMAGENET.std)
    return TrainedModel(network, name, arguments, classes, preprocessing, {"source": weights.path.name})
