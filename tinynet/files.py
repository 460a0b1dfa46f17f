"""Files: written whole or not at all; safetensors read and written, with errors of one line."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from .backend import to_host
from .errors import FileError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path`, to be written in the with block; it takes the place of `path` when the block ends.

    Whoever looks at `path` finds the old contents or the new ones, also after a crash: the new ones are on the disk
    before they get the name. If anything fails (a full disk, Ctrl-C) the old file stays and the temporary one goes.
    A link stays, and what it points to is replaced; permissions stay as they were. Raises FileError for what the operating system
    refuses, and for a path that is no regular file, such as a device.
    """
    try:
        given, path = Path(path), Path(os.path.realpath(path))
    except ValueError as error:                                 # a NUL
        raise FileError(f"{path}: cannot be written ({error})") from None
    if os.path.exists(path) and not path.is_file() and not path.is_dir():
        raise FileError(f"{given}: cannot be written (no regular file)")
    # The ending stays last, for writers that go by it; in the same folder, since a rename cannot cross file systems.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}.tmp{path.suffix}")
    try:
        temporary.touch()
        # As it was or as the user's umask has it; some writers would leave a file for its owner alone.
        mode = (path if path.exists() else temporary).stat().st_mode
        yield temporary
        os.chmod(temporary, mode)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise FileError(f"{given}: cannot be written ({reason}); what was there before is unchanged") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Put the text (UTF-8) at path, whole or not at all. Raises FileError."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def read_safetensors(path: str | os.PathLike[str], expected: str = "") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a safetensors file by name, and its metadata ({} where it has none). Nothing in it is ever executed.

    expected: words for who has no such file, such as "train a model first".
    bfloat16, which NumPy does not have, becomes float32; float16 stays. Raises FileError if the file is missing, a folder, not to
    be read, damaged or of another kind, or has a tensor of yet another type (float8).
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if os.path.isdir(path):                                     # False, not an error, for a name that the system refuses
        raise FileError(f"{path}: a folder; expected a safetensors file")
    if not os.path.isfile(path):
        raise FileError(f"{path}: no such file" + (f"; {expected}" if expected else ""))
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: _numpys_own(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - no dict
            return tensors, file.metadata() or {}
    except (TypeError, AttributeError):                         # the type's name is none of NumPy's
        return _widened(path)
    except (OSError, SafetensorError) as error:
        raise FileError(f"{path}: damaged, or not a safetensors file ({error})") from None


def _numpys_own(x: np.ndarray) -> np.ndarray:
    """x, unless its type is one that a package, ml_dtypes say, has added to NumPy: what a file gives must not depend on that."""
    if x.dtype.isbuiltin != 1:
        raise TypeError(x.dtype)
    return x


def _widened(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """read_safetensors for a file that has bfloat16: the upper half of a float32 each."""
    from safetensors import deserialize, safe_open

    plain, brain = {}, {}
    for name, tensor in deserialize(path.read_bytes()):
        if tensor["dtype"] == "BF16":
            bits = np.frombuffer(tensor["data"], "<u2").astype(np.uint32) << 16
            brain[name] = bits.view(np.float32).reshape(tensor["shape"])
        else:
            plain[name] = tensor["dtype"]
    with safe_open(path, framework="numpy") as file:
        for name, kind in plain.items():
            try:
                brain[name] = _numpys_own(file.get_tensor(name))
            except (TypeError, AttributeError):
                raise FileError(f"{path}: {name} is of the type {kind}, which NumPy does not have") from None
        return brain, file.metadata() or {}


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write arrays of any device under their names, whole or not at all. Raises FileError (a full disk, no permission)."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # In C order, as the format wants it (ascontiguousarray would make (1,) of ()).
    dense = {name: np.asarray(to_host(x), order="C") for name, x in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(dense, temporary, metadata=dict(metadata))
        except SafetensorError as error:  # its own kind, also where the operating system is the cause
            raise OSError(str(error)) from None


def make_folder(path: str | os.PathLike[str]) -> Path:
    """The folder at path, made if it is not there. Raises FileError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:                      # a ValueError: a NUL in the name
        raise FileError(f"{path}: cannot be made a folder ({getattr(error, 'strerror', None) or error})") from None
    return Path(path)


def _sync_folder(folder: Path) -> None:
    """Put the new name itself on the disk, where the system can do that for a folder (Windows cannot)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
