"""What torch.save wrote (.pth, .pt, .ckpt), read without PyTorch and without running anything.

Two formats: since PyTorch 1.6 a zip archive with one pickle and a file for each storage; before, pickles one after the
other and the storages behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from ..errors import FileError
from .pickles import read_pickle
from .tensors import CONTAINERS, Rebuilder, Storage, item_size, storage_code
from .zips import FREE_SIZE, Archive

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001                # what files of the older format begin with
MOST_PICKLE = 256 << 20
"""Bytes of the pickle inside an archive: it describes tensors, and holds none."""
SHARING = 16
"""The bytes of all tensors may be so many times the file's: that much of sharing and repeating is honest."""

T = TypeVar("T")


def read_torch(path: Path, take: Callable[[Any], T]) -> T:
    """take(what was saved): containers, plain values, and tensors, which are read only if `take` asks for their arrays.

    Raises FileError, in one line, for anything else than weights.
    """
    with open(path, "rb") as file:
        start = file.read(4)
    return _from_archive(path, take) if start == b"PK\x03\x04" else _from_stream(path, take)


def _from_archive(path: Path, take: Callable[[Any], T]) -> T:
    with Archive(path) as archive:
        roots = [name.removesuffix("data.pkl") for name in archive.names if name.endswith("data.pkl") and name.count("/") <= 1]
        if len(roots) != 1:
            raise FileError(f"{path}: a zip archive, but not of PyTorch's: expected one data.pkl in it, found {len(roots)}")
        root = roots[0]
        if any(name.startswith(f"{root}code/") or name == f"{root}constants.pkl" for name in archive.names):
            raise FileError(f"{path}: a TorchScript program; expected weights, as torch.save(model.state_dict(), …) writes them")
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in archive.names else b"little"
        if order not in (b"little", b"big"):
            raise FileError(f"{path}: damaged: byte order {order[:20]!r}")
        if archive.stated(f"{root}data.pkl") > MOST_PICKLE:
            raise FileError(f"{path}: a pickle of more than {MOST_PICKLE:,} bytes; weights are described in less")
        storages: dict[str, Storage] = {}

        def storage(identity: Any) -> Storage:
            kind, name, key, _, count = identity
            code = storage_code(name)
            if kind != "storage" or not isinstance(key, str) or not isinstance(count, int):
                raise ValueError("a persistent id that is no storage")
            entry = f"{root}data/{key}"
            size = archive.stated(entry)
            if size != count * item_size(code):
                raise FileError(f"{path}: damaged at {entry!r}: expected {count:,} numbers of {name}, got {size:,} bytes")
            if key not in storages:
                storages[key] = Storage(size, code, lambda: archive.read(entry), order == b"big")
            if storages[key].code != code:
                raise ValueError(f"storage {key} has two kinds of numbers")
            return storages[key]

        known = Rebuilder(str(path), max(FREE_SIZE, SHARING * archive.size)).known
        return take(read_pickle(BytesIO(archive.read(f"{root}data.pkl")), known, str(path), storage))


def _from_stream(path: Path, take: Callable[[Any], T]) -> T:
    """The older format: a number, a version, the writer's sizes, the value, the storages' keys, then the storages."""
    content = path.read_bytes()
    if content[257:262] == b"ustar":
        raise FileError(f"{path}: a tar archive, as PyTorch before 0.1.10 wrote; save it again with a newer one")
    if not content.startswith(b"\x80"):                         # as every pickle of torch.save's begins
        raise FileError(f"{path}: damaged, or neither safetensors, .npz, nor what torch.save wrote")
    file, what = BytesIO(content), str(path)
    if read_pickle(file, CONTAINERS, what) != _MAGIC or read_pickle(file, {}, what) != _PROTOCOL:
        raise FileError(f"{path}: a pickle, but not one that torch.save wrote; expected weights")
    system = read_pickle(file, {}, what)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FileError(f"{path}: damaged, or written on a machine of another byte order")
    storages: dict[str, Storage] = {}
    counts: dict[str, int] = {}
    parts: dict[tuple[str, str, int, int], Storage] = {}
    bodies: dict[str, memoryview] = {}

    def storage(identity: Any) -> Storage:
        kind, name, key, _, count, view = identity
        code = storage_code(name)
        if kind != "storage" or not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise ValueError("a persistent id that is no storage")
        if key not in storages:
            storages[key], counts[key] = Storage(count * item_size(code), code, lambda: bodies[key]), count
        if storages[key].code != code or counts[key] != count:
            raise ValueError(f"storage {key} is described in two ways")
        return storages[key] if view is None else part(key, code, count, *view)

    def part(key: str, code: str, count: int, name: Any, offset: Any, size: Any) -> Storage:
        """A storage inside another one, as PyTorch before 0.4 had them: (its own key, first number, how many)."""
        if not isinstance(name, str) or not all(isinstance(n, int) and n >= 0 for n in (offset, size)) or offset + size > count:
            raise ValueError(f"a part of storage {key} that lies outside it")
        begin, end = offset * item_size(code), (offset + size) * item_size(code)
        mark = (key, name, offset, size)
        if mark not in parts:
            parts[mark] = Storage(end - begin, code, lambda: bodies[key][begin:end])
        return parts[mark]

    value = read_pickle(file, Rebuilder(what, max(FREE_SIZE, SHARING * len(content))).known, what, storage)
    keys = read_pickle(file, {}, what)
    if not isinstance(keys, list) or len(keys) != len(storages) or set(map(str, keys)) != set(storages):
        raise FileError(f"{path}: damaged, or cut short: its storages are not those of its tensors")
    place = file.tell()
    for key in keys:
        stated = int.from_bytes(content[place : place + 8], "little", signed=True)
        end = place + 8 + storages[key].size
        if stated != counts[key] or end > len(content):
            raise FileError(f"{path}: damaged, or cut short, at storage {key[:40]!r}")
        bodies[key] = memoryview(content)[place + 8 : end]
        place = end
    return take(value)


__all__ = ["read_torch"]
