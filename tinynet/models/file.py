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

from ..backend import Device, to_host
from ..backend import device as device_named
from ..data.preprocessing import Preprocessing
from ..errors import FileError, TinynetError
from ..files import replacing
from ..nn import Layer
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
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        record = {
            "model": self.name, "arguments": self.arguments, "classes": self.classes,
            "preprocessing": self.preprocessing.to_dict(), "notes": self.notes,
        }
        tensors = {name: np.asarray(to_host(x), order="C") for name, x in self.model.state_dict().items()}
        with replacing(path) as temporary:
            try:
                save_file(tensors, temporary, metadata={_KEY: json.dumps(record)})
            except SafetensorError as error:                    # its own kind, also for what the system refuses
                raise OSError(str(error)) from None


def load_model(path: str | os.PathLike[str], device: str | Device = "cpu") -> TrainedModel:
    """Read a file that TrainedModel.save wrote, onto a device: "cpu", "cuda", "cuda:1".

    Raises FileError if it is missing, damaged, or something else; DeviceError if the device cannot be used.
    """
    from safetensors import SafetensorError, safe_open

    device = device_named(device)
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path}: a folder; expected a model file, such as {path / 'model.safetensors'}")
    if not path.is_file():
        raise FileError(f"{path}: no such file; train a model first, e.g. with: tinynet train")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise FileError(f"{path}: damaged, or not a safetensors file ({error})") from None
    if _KEY not in metadata:
        kind = "a checkpoint; its model is model.safetensors beside it" if "tinynet.checkpoint" in metadata else "weights alone"
        raise FileError(f"{path}: {kind}; expected a model saved by tinynet, with its name and classes")
    try:
        record = json.loads(metadata[_KEY])
        name, arguments, classes = str(record["model"]), dict(record["arguments"]), [str(c) for c in record["classes"]]
        preprocessing = Preprocessing.from_dict(record["preprocessing"])
        model = create(name, rng=np.random.default_rng(0), **arguments)
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, AttributeError, MemoryError, TinynetError) as error:
        raise FileError(f"{path}: a damaged or foreign model file ({error})") from None
    for tensor, x in tensors.items():
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise FileError(f"{path}: damaged: {tensor} is not finite")
    model.to(device)
    return TrainedModel(model, name, arguments, classes, preprocessing, dict(record.get("notes") or {}))


def check_classes(classes: Sequence[str], expected: Sequence[str], what: str) -> None:
    """A dataset must have the model's classes, in their order. Raises FileError."""
    if list(classes) != list(expected):
        raise FileError(f"{what}: expected the model's classes {', '.join(expected)}, got {', '.join(classes)}")
