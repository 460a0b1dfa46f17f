"""Trained models as files: safetensors with the weights under their names and, as metadata, what they are for.

Anything that reads safetensors reads the weights. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.preprocessing import Preprocessing
from ..errors import FileError, TinynetError
from ..files import read_safetensors, write_safetensors
from ..nn import Layer, init
from .registry import create

_KEY = "tinynet.model"


class TrainedModel(NamedTuple):
    """A model with everything that is needed to use it on photos."""

    model: Layer
    name: str
    """What `create` calls it."""
    arguments: dict[str, Any]
    classes: list[str]
    preprocessing: Preprocessing
    notes: dict[str, Any]
    """Where it comes from, for people: figures, the command."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all. Raises FileError (a full disk, no permission)."""
        record = {
            "model": self.name, "arguments": self.arguments, "classes": self.classes,
            "preprocessing": self.preprocessing.to_dict(), "notes": self.notes,
        }
        write_safetensors(path, self.model.state_dict(), {_KEY: json.dumps(record)})


def load_model(path: str | os.PathLike[str]) -> TrainedModel:
    """Read a file that TrainedModel.save wrote. Raises FileError if it is missing, damaged, or something else."""
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path}: a folder; expected a model file, such as {path / 'model.safetensors'}")
    tensors, metadata = read_safetensors(path, "train a model first, e.g. with: tinynet train")
    if _KEY not in metadata:
        kind = "a checkpoint; its model is model.safetensors beside it" if "tinynet.checkpoint" in metadata else "weights alone"
        raise FileError(f"{path}: {kind}; expected a model saved by tinynet, with its name and classes")
    try:
        record = json.loads(metadata[_KEY])
        name, arguments, classes = str(record["model"]), dict(record["arguments"]), [str(c) for c in record["classes"]]
        preprocessing = Preprocessing.from_dict(record["preprocessing"])
        model = create(name, rng=init.no_draws, **arguments)
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, AttributeError, MemoryError, TinynetError) as error:
        raise FileError(f"{path}: a damaged or foreign model file ({error})") from None
    for tensor, x in tensors.items():
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise FileError(f"{path}: damaged: {tensor} is not finite")
    return TrainedModel(model, name, arguments, classes, preprocessing, dict(record.get("notes") or {}))


def check_classes(classes: Sequence[str], expected: Sequence[str], what: str) -> None:
    """A dataset must have the model's classes, in their order. Raises FileError."""
    if list(classes) != list(expected):
        raise FileError(f"{what}: expected the model's classes {', '.join(expected)}, got {', '.join(classes)}")
