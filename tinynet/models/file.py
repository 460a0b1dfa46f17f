"""Trained models as files: safetensors with the weights under their names and, as metadata, what they are for.

Anything that reads safetensors reads the weights. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import to_host
from ..data.preprocessing import Preprocessing
from ..errors import ArgumentError, FileError, TinynetError, some
from ..files import write_safetensors
from ..nn import Layer, init
from .registry import create, names
from .structure import build, structure

MODEL_KEY, CHECKPOINT_KEY = "tinynet.model", "tinynet.checkpoint"
"""Under which a file's metadata has a JSON record of what it is; MODEL_KEY in an ONNX file, too."""


class TrainedModel(NamedTuple):
    """A model with everything that is needed to use it on photos."""

    model: Layer
    name: str
    """What `create` calls it; or any other, of a network that is built of the layers of tinynet.nn."""
    arguments: dict[str, Any]
    classes: list[str]
    preprocessing: Preprocessing
    notes: dict[str, Any]
    """Where it comes from, for people: figures, the command."""

    def check_outputs(self, count: int) -> None:
        """The model must have a name for each of that many outputs. Raises FileError."""
        if len(self.classes) != count:
            raise FileError(f"{self.name}: expected names for {count:,} classes, got {some(self.classes)}")

    def save(self, path: str | os.PathLike[str], *, half: bool = False) -> None:
        """Write the file, whole or not at all. half: the weights as float16, rounded.

        A network that `create` does not build like this is described layer by layer. Raises FileError (a full disk, no
        permission), and ArgumentError for a network that load_model could not build again; nothing is written then.
        """
        check_preprocessing(str(path), self)
        record: dict[str, Any] = {
            "model": self.name, "arguments": self.arguments, "classes": self.classes,
            "preprocessing": self.preprocessing.to_dict(), "notes": self.notes,
        }
        state = {name: to_host(x) for name, x in self.model.state_dict().items()}
        if not _creates(self, state):
            try:
                record["structure"] = structure(self.model)
            except ArgumentError as error:
                raise ArgumentError(
                    f"{path}: {self.name} is no network of tinynet models, and cannot be described ({error}); save its weights "
                    "alone, with tinynet.models.Weights(model.state_dict(), path).save(path), or register its builder"
                ) from None
        if half:
            state = {name: x.astype(np.float16) if x.dtype.kind == "f" else x for name, x in state.items()}
        write_safetensors(path, state, {MODEL_KEY: json.dumps({**record, "crc32": _checksum(record, state)})})


def check_preprocessing(what: str, trained: TrainedModel) -> None:
    """A file says how photos come to the network. Raises ArgumentError where nothing does."""
    if not isinstance(trained.preprocessing, Preprocessing):
        raise ArgumentError(f"{what}: expected preprocessing to be a Preprocessing, got {trained.preprocessing!r}")


def is_model(metadata: Mapping[str, str]) -> bool:
    """Whether a safetensors file with this metadata is one that TrainedModel.save wrote."""
    return MODEL_KEY in metadata


def trained_model(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> TrainedModel:
    """The model of a file that TrainedModel.save wrote, from what is in it. Raises FileError if that is damaged or foreign."""
    check_finite(path, tensors)
    try:
        record = json.loads(metadata[MODEL_KEY])
        stated = record.pop("crc32", None)                      # files of before do not have it
        if stated is not None and stated != _checksum(record, tensors):
            raise FileError("its checksum is another")
        name, arguments, classes = str(record["model"]), dict(record["arguments"]), [str(c) for c in record["classes"]]
        preprocessing = Preprocessing.from_dict(record["preprocessing"])
        described = record.get("structure")
        model = create(name, rng=init.no_draws, **arguments) if described is None else build(described)
        model.load_state_dict(tensors)
    except (
        KeyError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RecursionError, TinynetError,
    ) as error:
        raise FileError(f"{path}: a damaged or foreign model file ({error})") from None
    return TrainedModel(model, name, arguments, classes, preprocessing, dict(record.get("notes") or {}))


def _creates(trained: TrainedModel, state: Mapping[str, np.ndarray]) -> bool:
    """Whether `create` builds this network: its layers and options, and arrays of these names and shapes."""
    if trained.name not in names():
        return False
    try:
        made = create(trained.name, rng=init.no_draws, **trained.arguments)
    except (TypeError, ValueError, TinynetError):
        return False
    shapes = {n: x.shape for n, x in made.state_dict().items()}
    return repr(made) == repr(trained.model) and shapes == {n: x.shape for n, x in state.items()}


def _checksum(record: Mapping[str, Any], tensors: Mapping[str, Any]) -> int:
    """CRC-32 of what the file says and of all weights: safetensors has none of its own. float16 counts as what it is read as."""
    value = zlib.crc32(json.dumps(record, sort_keys=True).encode())
    for name in sorted(tensors):
        x = np.asarray(tensors[name], order="C")
        wide = x.astype(np.float32) if x.dtype == np.float16 else x
        value = zlib.crc32(wide.data, zlib.crc32(name.encode(), value))
    return value


def check_finite(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Raises FileError for weights that are not numbers."""
    for name, x in tensors.items():
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise FileError(f"{path}: damaged: {name} is not finite")


def check_classes(classes: Sequence[str], expected: Sequence[str], what: str) -> None:
    """A dataset must have the model's classes, in their order. Raises FileError."""
    if list(classes) != list(expected):
        raise FileError(f"{what}: expected the model's classes, {some(expected)}; got {some(classes)}")
