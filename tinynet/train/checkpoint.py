"""Checkpoints: everything a training needs to go on as if it had never stopped, in one safetensors file.

Tensors: `model.<name>` for weights and buffers, `optimizer.<slot>.<name>` for momenta and the like. All else is one
JSON text in the file's metadata. Nothing in it is ever executed. The random numbers need no state of their own: those
of a training step are derived from (seed, step) and those of a sample from (loader seed, epoch, index), and these
numbers are in the record.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FileError
from ..files import read_safetensors, write_safetensors
from ..models.file import CHECKPOINT_KEY

_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """model: state dict. optimizer: its state dict. record: what the trainer keeps besides, as plain JSON values."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    record: dict[str, Any]


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write the checkpoint, whole or not at all. Raises FileError (a full disk, no permission); the old file stays."""
    tensors = {f"model.{name}": array for name, array in checkpoint.model.items()}
    numbers: dict[str, dict[str, Any]] = {}
    for name, slots in checkpoint.optimizer["state"].items():
        for slot, value in slots.items():
            if hasattr(value, "shape"):
                tensors[f"optimizer.{slot}.{name}"] = value
            else:
                numbers.setdefault(name, {})[slot] = value
    text = json.dumps(
        {
            "version": _VERSION,
            "record": checkpoint.record,
            "optimizer": {"numbers": numbers, "param_groups": checkpoint.optimizer["param_groups"]},
        }
    )
    write_safetensors(path, tensors, {CHECKPOINT_KEY: text})


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint. Raises FileError if it is missing, damaged, or another kind of file."""
    tensors, metadata = read_safetensors(path, "expected a checkpoint")
    if CHECKPOINT_KEY not in metadata:
        raise FileError(f"{path}: a safetensors file, but no checkpoint of a training")
    try:
        header = json.loads(metadata[CHECKPOINT_KEY])
        if header["version"] != _VERSION:
            raise FileError(f"{path}: expected a checkpoint of version {_VERSION}, got {header['version']}")
        record, optimizer = dict(header["record"]), header["optimizer"]
        state = {name: dict(slots) for name, slots in optimizer["numbers"].items()}
        model: dict[str, np.ndarray] = {}
        for key, array in tensors.items():
            kind, _, name = key.partition(".")
            if kind == "model":
                model[name] = array
            else:
                slot, _, name = name.partition(".")
                state.setdefault(name, {})[slot] = array
        return Checkpoint(model, {"state": state, "param_groups": optimizer["param_groups"]}, record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: a damaged checkpoint ({type(error).__name__}: {error})") from None
