"""Networks that somebody trained: from the box, from a file of tinynet's, from PyTorch's weights, from ONNX."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Device
from ..backend import device as device_named
from ..data.known_sets import CIFAR10_CLASSES
from ..errors import ArgumentError, FileError, ShapeError, some
from ..files import read_safetensors
from ..nn import Layer, init
from .file import CHECKPOINT_KEY, TrainedModel, check_finite, is_model, trained_model
from .from_onnx import read_onnx
from .registry import IMAGENET, create, entry, names, nearest
from .state import Weights, load_weights
from .structure import last_weighted

BOXED = ("squeezenet1_1",)
"""Networks whose weights are in the package."""
WEIGHT_SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".ckpt", ".bin", ".onnx")
PREFIXES = ("model", "net", "module", "network", "_orig_mod", "backbone", "encoder")
"""What programs put before a network's names, as in "model.features.0.weight"."""
_BOX = Path(__file__).parent / "weights"


def load(
    path: str | os.PathLike[str], model: str | Layer | None = None, *, key: str | None = None, strict: bool = True
) -> TrainedModel | Weights:
    """Read a file of weights: safetensors, .npz, what torch.save wrote, or .onnx. Nothing in it is ever executed.

    A model file of tinynet's gives its TrainedModel, and so does an .onnx (needs the package onnx; see from_onnx). Other weights
    give a state dict, name → array (Weights); where names and shapes tell which network it is of, models.trained(weights) is
    that, ready to use.
    model: the name of a network, or a layer to put the weights into: the answer is a TrainedModel. strict False: what is missing
    stays as it was, and what is left over is passed over. key: the entry of a checkpoint that holds the weights; of one that a
    Trainer wrote, such as best.safetensors, they are "model", and are taken without being asked for.
    Raises FileError for the file (see load_weights), and ShapeError that lists all missing, unexpected and wrongly shaped names.
    """
    if _is_onnx(path):
        if key is not None:
            raise ArgumentError(f"{path}: an ONNX file has no entries, got key {key!r}")
        found = _from_onnx(Path(path))
        return found if model is None else weights_into(Weights(found.model.state_dict(), Path(path)), model, strict)
    weights = load_weights(path, key)
    if key is None and CHECKPOINT_KEY in weights.metadata:
        weights = load_weights(path, "model")
    if model is not None:
        return weights_into(weights, model, strict)
    return trained_model(weights.path, weights, weights.metadata) if is_model(weights.metadata) else weights


def load_model(what: str | os.PathLike[str], device: str | Device = "cpu") -> TrainedModel:
    """A trained network: one of the box by name ("squeezenet1_1"), a model file, an .onnx, or the weights of a network that is
    known; onto a device: "cpu", "cuda", "cuda:1".

    Raises FileError if the file is missing, damaged, something else, or of no network that can be told; DeviceError if the device
    cannot be used.
    """
    device = device_named(device)
    found = _model_of(what)
    found.model.to(device)
    return found


def _model_of(what: str | os.PathLike[str]) -> TrainedModel:
    path = Path(what)
    if str(what) in BOXED:
        return boxed(str(what))
    if str(what) in names():
        raise FileError(f"{what}: a network whose weights are not in the box ({', '.join(BOXED)} is); give a file of weights")
    if os.path.isdir(path):
        raise FileError(f"{path}: a folder; expected a model file, such as {path / 'model.safetensors'}")
    if not os.path.isfile(path):
        raise FileError(_missing(path))
    if _is_onnx(path):
        return _from_onnx(path)
    weights = load_weights(path)
    if is_model(weights.metadata):
        return trained_model(path, weights, weights.metadata)
    if CHECKPOINT_KEY in weights.metadata:
        if path.with_name("model.safetensors").is_file():
            raise FileError(f"{path}: a checkpoint; its model is model.safetensors beside it")
        raise FileError(f"{path}: a checkpoint, which names no network; tinynet.load(…, model=network) loads its weights")
    return trained(weights)


def _missing(path: Path) -> str:
    """What to say of a model file that is not there."""
    if path.name == "model.safetensors":
        return f"{path}: no such file; train a model first, e.g. with: tinynet train"
    if path.suffix or path.name != str(path):
        return f"{path}: no such file"
    return f"{path}: no such file, nor a network's name; nearest: {nearest(path.name)} (all: tinynet models)"


def boxed(name: str = BOXED[0], device: str | Device = "cpu") -> TrainedModel:
    """A network of the box, with its ImageNet classes, on a device. Raises ArgumentError for a name that is not in it."""
    if name not in BOXED:
        raise ArgumentError(f"no network {name!r} in the box; there is {', '.join(BOXED)}")
    path = _BOX / f"{name}.safetensors"
    device = device_named(device)
    found = trained_model(path, *read_safetensors(path, "install tinynet again"))
    found.model.to(device)
    return found


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes in their usual order."""
    return tuple(boxed().classes)


def names_model(word: str | os.PathLike[str]) -> bool:
    """Whether a word on the command line is meant as a model: a network's name, a file of weights, the folder of a training."""
    path = Path(word)
    return str(word) in names() or path.suffix.lower() in WEIGHT_SUFFIXES or (path / "model.safetensors").is_file()


def recognise(weights: Mapping[str, np.ndarray]) -> list[str]:
    """The published networks whose names and shapes these are, whatever their number of classes."""
    found = []
    for name in names():
        if entry(name).preprocessing is not None:
            try:
                network, _ = _network(name, weights)
                network.load_state_dict(_renamed(weights, network))
            except (ArgumentError, ShapeError):                 # other names or shapes
                continue
            found.append(name)
    return found


def trained(weights: Weights) -> TrainedModel:
    """The network that these weights are of, ready to use: with how a photo comes to it and names for its classes.

    Raises FileError if names and shapes tell of none, or of several.
    """
    found = recognise(weights)
    if len(found) == 1:
        return weights_into(weights, found[0])
    near = None if found else _nearly(weights)
    if near is not None:
        raise FileError(f"{weights.path}: weights alone, nearest {near}")
    whose = f"which {' and '.join(found)} have in common" if found else "of no network that is known here"
    raise FileError(f"{weights.path}: weights alone, {whose}; name the network they are of, e.g. with: tinynet convert --model")


def _nearly(weights: Weights) -> str | None:
    """The network that these weights fit best, and what they lack and have too much; None if not half of all fits."""
    best, said = 0.5, None
    for name in (name for name in names() if entry(name).preprocessing is not None):
        try:
            network, _ = _network(name, weights)
        except (ArgumentError, ShapeError):
            continue
        mine, state = network.state_dict(), _renamed(weights, network)
        fits = [n for n, x in state.items() if n in mine and mine[n].shape == x.shape]
        share = len(fits) / len(mine.keys() | state.keys())
        if share > best:
            lacks, more = ([n for n in one if n not in fits and "num_batches" not in n] for one in (mine, state))
            parts = [f"{what} {some(those, 3)}" for what, those in (("without", lacks), ("with", more)) if those]
            shapes = set(lacks) & set(more)                     # what has another shape fits nowhere
            hint = "" if shapes else f'; tinynet.load(…, model="{name}", strict=False) takes what fits'
            best, said = share, f"{name} {' and '.join(parts)}{hint}"
    return said


def weights_into(weights: Weights, model: str | Layer, strict: bool = True) -> TrainedModel:
    """The network with these weights in it; see `load`."""
    if isinstance(model, str):
        network, arguments = _network(model, weights, None if strict else np.random.default_rng(0))
        name, preprocessing = model, entry(model).preprocessing
    else:
        network, arguments, name, preprocessing = model, {}, type(model).__name__, None
    state = _renamed(weights, network)
    try:
        network.load_state_dict(state, strict=strict)
    except ShapeError as error:
        raise ShapeError(f"{weights.path}: {error}") from None
    check_finite(weights.path, state)
    count = len(last_weighted(network)[1].weight)
    known: Sequence[str] = imagenet_classes() if count == 1000 else ()
    if count == 10:
        known = CIFAR10_CLASSES if name.startswith("cifar") else "0123456789" if name == "lenet5" else ()
    classes = list(known) or [f"class {i}" for i in range(count)]
    return TrainedModel(network, name, arguments, classes, preprocessing or IMAGENET, {"source": weights.path.name})


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], model: str | None = None, *, key: str | None = None,
    half: bool = False,
) -> tuple[TrainedModel | Weights, Path]:
    """Write the weights of one file as another, .safetensors or .npz: (what was written, where).

    source: may be the name of a network in the box, too. A .safetensors becomes a model file of tinynet's, if the network is
    named or known; PyTorch reads its weights either way. half: floats as float16. Raises as `load` does, and ArgumentError if
    both files are one.
    """
    target = Path(target)
    if target.exists() and Path(source).exists() and target.samefile(source):
        raise ArgumentError(f"{target}: expected another file to write than {source}, which is the same one")
    found = boxed(str(source)) if str(source) in BOXED and model is key is None else load(source, model, key=key)
    if isinstance(found, TrainedModel) and found.name not in names():     # of ONNX: what it is, and what it was made for
        alone = Weights(found.model.state_dict(), Path(source))
        if len(recognise(alone)) == 1:
            found = trained(alone)._replace(classes=found.classes, preprocessing=found.preprocessing)
    elif isinstance(found, Weights) and len(recognise(found)) == 1:
        found = trained(found)
    if isinstance(found, TrainedModel) and target.suffix == ".safetensors":
        found.save(target, half=half)
    else:
        if isinstance(found, TrainedModel):
            found = Weights(found.model.state_dict(), Path(source))
        found.save(target, half=half)
    return found, target


def _is_onnx(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() == ".onnx"


def _from_onnx(path: Path) -> TrainedModel:
    """The network of an ONNX file. What the file does not say of classes and photos is as for weights alone: see weights_into."""
    found = read_onnx(path)
    channels, *sides = found.input_size or (None,)
    if len(sides) != 2 or channels not in (3, 1, None) or sides[0] != sides[1]:
        what = "a network of square photos, (3, H, H) or (1, H, H)"
        raise FileError(f"{path}: expected {what}, got {found.input_size}; from_onnx reads it")
    state = found.model.state_dict()
    try:
        made = weights_into(Weights(state, path), found.model)
    except ArgumentError as error:
        raise FileError(f"{path}: {error}; from_onnx reads it") from None
    crop = sides[0] or IMAGENET.crop
    default = replace(IMAGENET, resize=max(crop, round(crop * IMAGENET.resize / IMAGENET.crop)), crop=crop)
    if channels == 1:                                           # of ImageNet's photos in grey, about
        default = replace(default, mean=(0.449,), std=(0.226,))
    return made._replace(name=path.name, classes=found.classes or made.classes, preprocessing=found.preprocessing or default)


def _network(
    name: str, weights: Mapping[str, np.ndarray], rng: np.random.Generator | None = None
) -> tuple[Layer, dict[str, Any]]:
    """The network of that name with as many classes as the weights have, and its arguments. rng None: weights of zero."""
    rng = init.no_draws if rng is None else rng
    network = create(name, rng=rng)
    path, last = last_weighted(network)
    x = _renamed(weights, network).get(f"{path}.weight")
    if x is None or x.ndim < 1 or len(x) in (0, len(last.weight)):
        return network, {}
    return create(name, rng=rng, classes=len(x)), {"classes": len(x)}


def _renamed(weights: Mapping[str, np.ndarray], network: Layer) -> Mapping[str, np.ndarray]:
    """The weights under the network's names: less a prefix that stands before all of them, if that is in the way."""
    expected = network.named_buffers().keys() | network.named_parameters().keys()
    while weights and not any(n in expected for n in weights):
        prefix = next((f"{p}." for p in PREFIXES if all(n.startswith(f"{p}.") for n in weights)), None)
        if prefix is None:
            break
        weights = {n.removeprefix(prefix): x for n, x in weights.items()}
    return weights


__all__ = [
    "BOXED", "WEIGHT_SUFFIXES", "boxed", "convert", "imagenet_classes", "load", "load_model", "names_model",
    "recognise", "trained", "weights_into",
]
