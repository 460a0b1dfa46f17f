"""Files of the time before PyTorch 1.6, written by hand as that format is documented: pickles one after the other, then storages.

What today's torch.save does not write any more: tensors of the first kind (_rebuild_tensor), storages of a GPU, storages that
are parts of others. The reference is torch.load.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tinynet
from tests.models.compare import same
from tinynet.errors import FileError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Stored:
    """A storage in the file: its class, key, location, numbers. view: (own key, first number, how many)."""

    def __init__(self, kind: str, key: str, numbers: np.ndarray, place: str = "cpu", view: Any = None) -> None:
        self.identity = ("storage", getattr(torch, f"{kind}Storage"), key, place, numbers.size, view)
        self.key, self.numbers = key, numbers


class Call:
    """A tensor, as a pickle says how to make it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


class Writer(pickle.Pickler):
    def __init__(self, file: Any, found: dict[str, Stored]) -> None:
        super().__init__(file, 2)
        self.found = found

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Stored):
            self.found.setdefault(value.key, value)
            return value.identity
        return None


def write(path: Path, value: Any, keys: Any = None, count: int = 0) -> Path:
    """keys: said to be those of the storages, if others are to be. count: said too many of the numbers of each."""
    found: dict[str, Stored] = {}
    out = io.BytesIO()
    for part in (MAGIC, PROTOCOL, SYSTEM):
        pickle.dump(part, out, 2)
    Writer(out, found).dump(value)
    pickle.dump(sorted(found) if keys is None else keys, out, 2)
    for key in sorted(found):
        out.write(struct.pack("<q", found[key].numbers.size + count) + found[key].numbers.tobytes())
    path.write_bytes(out.getvalue())
    return path


def first(storage: Stored, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Call:
    return Call(torch._utils._rebuild_tensor, storage, offset, size, stride)


def second(storage: Stored, offset: int, size: tuple[int, ...], stride: tuple[int, ...], grad: bool = False) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, grad, OrderedDict())


def f4(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype("<f4")


def check(path: Path, where: Any = None) -> None:
    expected = torch.load(path, map_location="cpu", weights_only=False)
    expected = expected if where is None else expected[where]
    same(tinynet.load(path), expected)


def test_tensors_of_the_first_kind(tmp_path: Path) -> None:
    base = Stored("Float", "1", f4(60))
    check(write(tmp_path / "w.pth", OrderedDict(
        whole=first(base, 0, (10, 6), (6, 1)), turned=first(base, 0, (6, 10), (1, 6)), rows=first(base, 7, (3, 2), (12, 1)),
        scalar=first(base, 5, (), ()), empty=first(base, 0, (0, 4), (4, 1)), same=first(base, 3, (2, 4), (0, 1)),
        size=Call(torch._utils._rebuild_tensor, base, 0, torch.Size([2, 2]), (2, 1)),
        nothing=first(Stored("Float", "2", f4(0)), 0, (0,), (1,)),
        long=first(Stored("Long", "3", np.arange(4)), 1, (3,), (1,)),
        half=first(Stored("Half", "4", f4(6).astype("<f2")), 0, (2, 3), (3, 1)),
        brain=first(Stored("BFloat16", "5", (f4(4).view("<u4") >> 16).astype("<u2")), 0, (4,), (1,)),
        flags=first(Stored("Bool", "6", np.array([1, 0, 1], "u1")), 0, (3,), (1,)),
    )))


def test_parameters_in_a_checkpoint_of_a_gpu(tmp_path: Path) -> None:
    weight, bias = Stored("Float", "a", f4(8), "cuda:0"), Stored("Float", "b", f4(2, 1), "cuda:1")
    state = OrderedDict([
        ("module.fc.weight", Call(torch._utils._rebuild_parameter, second(weight, 0, (2, 4), (4, 1), True), True, OrderedDict())),
        ("module.fc.bias", Call(torch._utils._rebuild_parameter, first(bias, 0, (2,), (1,)), True, OrderedDict())),
    ])
    path = write(tmp_path / "w.pth.tar", {"epoch": 90, "arch": "net", "best_prec1": 0.5, "state_dict": state})
    found, expected = tinynet.load(path), torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
    assert list(found) == ["fc.weight", "fc.bias"]
    for name, x in found.items():
        np.testing.assert_array_equal(x, expected[f"module.{name}"].detach().numpy())


def test_storages_of_the_gpus_own_class(tmp_path: Path) -> None:
    """torch.cuda.FloatStorage, which PyTorch without a GPU cannot make: the numbers are the reference."""
    stored = Stored("Float", "0", f4(6), "cuda:0")
    stored.identity = (stored.identity[0], torch.cuda.FloatStorage, *stored.identity[2:])
    found = tinynet.load(write(tmp_path / "w.pth", {"w": first(stored, 0, (2, 3), (3, 1))}))
    np.testing.assert_array_equal(found["w"], f4(6).reshape(2, 3))


def test_storages_that_are_parts_of_others(tmp_path: Path) -> None:
    numbers = f4(20)
    whole = Stored("Float", "root", numbers)
    part, again = (Stored("Float", "root", numbers, view=("part", 4, 10)) for _ in range(2))
    check(write(tmp_path / "w.pth", OrderedDict(
        all=second(whole, 0, (4, 5), (5, 1)), some=second(part, 2, (2, 3), (3, 1)), more=first(again, 0, (10,), (1,)),
    )))
    alone = write(tmp_path / "alone.pth", {"some": first(part, 0, (10,), (1,))})
    check(alone)
    for view, words in (
        (("part", 15, 6), "outside"), (("part", -1, 2), "outside"), ((3, 0, 1), "outside"), (("part", 0), "damaged"),
    ):
        with pytest.raises(FileError, match=words) as caught:
            tinynet.load(write(tmp_path / "bad.pth", {"w": first(Stored("Float", "root", numbers, view=view), 0, (1,), (1,))}))
        assert "\n" not in str(caught.value)
    with pytest.raises(FileError):                              # within the whole, and not within its part
        tinynet.load(write(tmp_path / "bad.pth", {"w": second(part, 8, (3,), (1,))}))


def test_storages_that_contradict_themselves(tmp_path: Path) -> None:
    float_, int_ = Stored("Float", "1", f4(6)), Stored("Int", "1", np.arange(6, dtype="<i4"))
    short, other = Stored("Float", "1", f4(4)), Stored("Float", "2", f4(4, 1))
    a, b = first(float_, 0, (6,), (1,)), first(other, 0, (4,), (1,))
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ({"a": a, "b": first(int_, 0, (6,), (1,))}, {}, "storage 1 is described in two ways"),
        ({"a": a, "b": first(short, 0, (4,), (1,))}, {}, "storage 1 is described in two ways"),
        ({"a": a}, {"count": 1}, "damaged, or cut short, at storage '1'"), ({"a": a}, {"count": -1}, "at storage '1'"),
        ({"a": a}, {"count": -1 << 62}, "at storage '1'"), ({"a": a, "b": b}, {"keys": ["1"]}, "its storages are not those"),
        ({"a": a}, {"keys": ["2"]}, "its storages are not those"), ({"a": a}, {"keys": ["1", "1"]}, "its storages are not those"),
        ({"a": a, "b": b}, {"keys": ["1", "1"]}, "its storages are not those"),
        ({"a": a}, {"keys": 1}, "its storages are not those"), ({"a": a}, {"keys": [["1"]]}, "its storages are not those"),
    ]
    for value, how, words in cases:
        with pytest.raises(FileError, match=words) as caught:
            tinynet.load(write(tmp_path / "bad.pth", value, **how))
        assert "\n" not in str(caught.value)
    check(write(tmp_path / "good.pth", {"a": a, "b": b}))


def test_what_is_cut_short_or_older_still(tmp_path: Path) -> None:
    content = write(tmp_path / "w.pth", {"w": first(Stored("Float", "0", f4(50)), 0, (50,), (1,))}).read_bytes()
    for size in [*range(1, len(content), 7), len(content) - 1]:
        (tmp_path / "cut.pth").write_bytes(content[:size])
        with pytest.raises(FileError) as caught:
            tinynet.load(tmp_path / "cut.pth")
        assert "\n" not in str(caught.value)
    import tarfile

    with tarfile.open(tmp_path / "old.pth", "w") as file:       # what PyTorch 0.1.9 wrote: sys, pickle, tensors, storages
        file.add(tmp_path / "w.pth", "pickle")
    with pytest.raises(FileError, match=r"a tar archive, as PyTorch before 0\.1\.10 wrote"):
        tinynet.load(tmp_path / "old.pth")
