"""Weights from any file: safetensors, NumPy's .npz, PyTorch's .pth and .pt. Nothing in a file is ever executed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, FileError
from ..files import read_safetensors, replacing, write_safetensors
from .tensors import NumpyArray, Tensor
from .torch_file import read_torch
from .zips import Archive

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
"""Where in a checkpoint the weights are, in the order of looking."""
ARTEFACTS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name; it is no part of a network's names."""
MOST_TENSORS = 200_000
_DEPTH = 16


class Weights(dict[str, np.ndarray]):
    """Dotted name → array, in the order of the file: a state dict. Half precision has become float32; arrays may be read-only.

    others: names of what the file holds beside arrays. metadata: of a safetensors file.
    """

    def __init__(
        self, arrays: Mapping[str, np.ndarray], path: Path, others: list[str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(arrays)
        self.path, self.others, self.metadata = path, others or [], dict(metadata or {})

    def save(self, path: str | os.PathLike[str], *, half: bool = False) -> None:
        """Write .safetensors, which PyTorch reads, or .npz; whole or not at all. half: floats as float16, rounded.

        Raises FileError.
        """
        path = Path(path)
        arrays = {name: x.astype(np.float16) if half and x.dtype.kind == "f" else x for name, x in self.items()}
        if path.suffix == ".safetensors":
            write_safetensors(path, arrays, {"format": "pt"})
        elif path.suffix == ".npz":
            with replacing(path) as temporary:
                np.savez(temporary, allow_pickle=False, **{name: np.asarray(x) for name, x in arrays.items()})
        else:
            raise FileError(f"{path}: expected a name that ends in .safetensors or .npz")


def load_weights(path: str | os.PathLike[str], key: str | None = None) -> Weights:
    """The arrays of a file by name.

    In a PyTorch checkpoint the weights are looked for under the usual names (WRAPPERS), and "module." and "_orig_mod." before
    every name are left out; containers of several networks give "generator.0.weight" and so on. key: the entry to take instead.
    Raises FileError, in one line, for a file that is missing, damaged, cut short, of another kind, or a trap.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise FileError(f"{path}: a folder; expected a file of weights")
    if not os.path.isfile(path):
        raise FileError(f"{path}: no such file")
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        zipped = start.startswith(b"PK\x03\x04") or path.suffix == ".npz"
        if path.suffix == ".safetensors" or (start[8:] == b"{" and not zipped):
            found = _from_safetensors(path)
        elif zipped and _is_npz(path):
            found = _from_npz(path)
        else:
            found = read_torch(path, lambda value: _collect(path, value, key))
            key = None
    except (OSError, MemoryError) as error:
        raise FileError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})") from None
    if key is not None:
        found = Weights({n.removeprefix(f"{key}."): x for n, x in found.items() if n.startswith(f"{key}.")}, path)
    if not found:
        raise FileError(f"{path}: no array in it" + ("" if key is None else f" under {key!r}"))
    for artefact in ARTEFACTS * 2:                              # either may stand before the other
        if all(name.startswith(artefact) and name != artefact for name in found):
            found = Weights({n.removeprefix(artefact): x for n, x in found.items()}, path, found.others, found.metadata)
    return found


def _from_safetensors(path: Path) -> Weights:
    arrays, metadata = read_safetensors(path)
    wide = {name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in arrays.items()}
    return Weights({_name(path, name): x for name, x in wide.items()}, path, metadata=metadata)


def _is_npz(path: Path) -> bool:
    with Archive(path) as archive:
        return all(name.endswith(".npy") for name in archive.names)


def _from_npz(path: Path) -> Weights:
    with Archive(path) as archive:
        return Weights({
            _name(path, name.removesuffix(".npy")): _array(archive.read(name), f"{path}: {name}") for name in archive.names
        }, path)


def _array(content: bytes, what: str) -> np.ndarray:
    """What a .npy file holds, if that is numbers."""
    file = BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:                                  # a Python literal: nearly anything may be wrong with it
        raise FileError(f"{what}: damaged, or no array ({type(error).__name__})") from None
    if dtype.hasobject or dtype.kind not in "fiubc" or dtype.subdtype is not None:
        kind = "objects of Python's, which would have to be run" if dtype.hasobject else f"{dtype}"
        raise FileError(f"{what}: expected numbers, got {kind}")
    body = memoryview(content)[file.tell() :]
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(body) or len(shape) > 64:
        raise FileError(f"{what}: damaged: {shape} of {dtype} do not have {len(body):,} bytes")
    x = np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
    half = x.dtype.kind == "f" and x.dtype.itemsize == 2
    return x.astype(np.float32 if half else x.dtype.newbyteorder("="), copy=False)


def _collect(path: Path, value: Any, key: str | None) -> Weights:
    """The arrays of what torch.save was given."""
    if key is not None:
        if not isinstance(value, dict) or key not in value:
            known = ", ".join(map(str, value)) if isinstance(value, dict) else f"a {type(value).__name__}"
            raise ArgumentError(f"{path}: no entry {key!r}; there is {known[:300]}")
        value = value[key]
    for _ in range(_DEPTH):
        inner = next((value[w] for w in WRAPPERS if _holds_tensors(value.get(w))), None) if isinstance(value, dict) else None
        if inner is None:
            break
        value = inner
    arrays: dict[str, np.ndarray] = {}
    others: list[str] = []
    _flatten(path, value, "", arrays, others, 0)
    return Weights(arrays, path, others)


def _holds_tensors(value: Any) -> bool:
    """Whether this is a dict with tensors, or with such a dict under one of the usual names."""
    return isinstance(value, dict) and any(
        isinstance(x, (Tensor, NumpyArray)) or (name in WRAPPERS and isinstance(x, dict) and any(
            isinstance(y, (Tensor, NumpyArray)) for y in x.values())) for name, x in value.items()
    )


def _flatten(path: Path, value: Any, name: str, arrays: dict[str, np.ndarray], others: list[str], depth: int) -> None:
    if len(arrays) + len(others) > MOST_TENSORS or depth > _DEPTH:
        raise FileError(f"{path}: more than {MOST_TENSORS:,} values, or containers {_DEPTH} deep; weights are not like that")
    if isinstance(value, (Tensor, NumpyArray)):
        x = value.array() if isinstance(value, Tensor) else value.array
        name = _name(path, name or "tensor")
        if name in arrays or x is None:
            raise FileError(f"{path}: damaged: {name!r} " + ("has no value" if x is None else "comes twice"))
        arrays[name] = x
    elif isinstance(value, (dict, list, tuple)):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        for key, x in inside:
            _flatten(path, x, f"{name}.{key}" if name else str(key), arrays, others, depth + 1)
        if not value:
            others.append(name)
    else:
        others.append(name)


def _name(path: Path, name: str) -> str:
    """A name that may be shown in a message of one line."""
    if not name.isprintable() or len(name) > 1000:
        raise FileError(f"{path}: damaged, or a trap: an array is named {name[:60]!r}")
    return name


__all__ = ["WRAPPERS", "Weights", "load_weights"]
