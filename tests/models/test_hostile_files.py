"""Files that want to do harm: nothing is run, nothing is written, memory stays near the file's size, and one line says why."""

from __future__ import annotations

import collections
import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinynet
from tinynet.errors import FileError, TinynetError
from tinynet.models import load_weights
from tinynet.models.pickles import read_pickle
from tinynet.models.tensors import CONTAINERS, NUMPY

P = pickle


def archive(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None, **more: bytes) -> Path:
    """A zip archive as torch.save lays it out."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        for key, content in (storages or {}).items():
            file.writestr(f"archive/data/{key}", content)
        for name, content in more.items():
            file.writestr(name.replace("__", "/"), content)
    return path


def refused(path: Path, words: str = "") -> str:
    """The one line that a file gets."""
    before = {p: p.stat().st_mtime_ns for p in path.parent.rglob("*")}
    with pytest.raises(FileError) as caught:
        tinynet.load(path)
    line = str(caught.value)
    assert "\n" not in line and line.isprintable() and len(line) < 600 and path.name in line
    assert words in line, line
    assert {p: p.stat().st_mtime_ns for p in path.parent.rglob("*")} == before
    return line


class Runs:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(("function", "name"), [
    (os.system, "system"), (eval, "eval"), (exec, "exec"), (getattr, "getattr"), (subprocess.check_output, "check_output"),
    (__import__, "__import__"), (open, "open"), (torch.load, "torch.serialization.load"), (np.load, "load"), (compile, "compile"),
    (bytearray, "bytearray"), (print, "print"), (map, "map"), (type, "type"), (object, "object"),
])  # fmt: skip
def test_calls_are_refused_by_name(tmp_path: Path, function: Any, name: str, protocol: int) -> None:
    evil = pickle.dumps({"w": Runs(function, "touch " + str(tmp_path / "ran"))}, protocol)
    assert name in refused(archive(tmp_path / "evil.pth", evil))
    old = {"_use_new_zipfile_serialization": False, "pickle_protocol": max(protocol, 2)}
    torch.save({"w": Runs(function, "x")}, tmp_path / "old.pth", **old)
    assert name in refused(tmp_path / "old.pth")
    assert not (tmp_path / "ran").exists()


class Net(torch.nn.Module):
    pass


@pytest.mark.parametrize("new", [True, False])
def test_a_whole_module_is_refused_by_name(tmp_path: Path, new: bool) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "m.pth", _use_new_zipfile_serialization=new)
    assert "state_dict()" in refused(tmp_path / "m.pth", "torch.nn.modules.container.Sequential")


SYSTEM = b"cos\nsystem\n"
TRICKS = {                                                      # what → (pickle, words of the refusal)
    "global": (SYSTEM + b".", "os.system"),
    "stack global": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
    "stack global of a global's name": (b"\x80\x04ctorch\nSize\n\x8c\x06system\x93.", "torch.Size.system"),
    "inst": (b"(S'id'\nios\nsystem\n.", "os.system"),
    "obj": (b"(ctorch\nSize\n(l\x81o.", ""),
    "obj of a known name": (b"(ctorch\nSize\no.", "uses OBJ"),
    "newobj": (b"\x80\x02cos\nsystem\nU\x02id\x85\x81.", "os.system"),
    "newobj_ex": (b"\x80\x04ctorch\nSize\n)}\x92.", "uses NEWOBJ_EX"),
    "extension 1": (b"\x80\x02\x82\x01.", "uses EXT1"),
    "extension 2": (b"\x80\x02\x83\x01\x00.", "uses EXT2"),
    "extension 4": (b"\x80\x02\x84\x01\x00\x00\x00.", "uses EXT4"),
    "next buffer": (b"\x80\x05\x97.", "uses NEXT_BUFFER"),
    "read-only buffer": (b"\x80\x05)\x98.", "uses READONLY_BUFFER"),
    "attributes of a dict": (b"}}b.", "attributes"),
    "attributes of a name": (b"ctorch\nSize\n}b.", "attributes"),
    "a call of a string": (b"S'os.system'\n)R.", "not called"),
    "a call of a class that is data": (b"ctorch\nFloatStorage\n)R.", "torch.FloatStorage"),
    "a call of a dtype": (b"ctorch\nfloat32\n)R.", "torch.float32"),
    "wrong arguments": (b"ctorch._utils\n_rebuild_tensor_v2\n(I1\nI2\ntR.", "damaged"),
    "a call through _rebuild_from_type_v2": (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ccollections\nOrderedDict\nN)NtR.", "damaged"),
    "persistent id, text": (b"Pevil\n.", "damaged"),
    "persistent id, a number": (b"K\x01Q.", "damaged"),
    "a storage that is not there": (b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nK\x01tQ.", "damaged"),
    "memo of a place never filled": (b"h\x07.", "damaged"),
    "a place far away": (b"}r\xff\xff\xff\xff.", "no array"),
    "a giant string": (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
    "giant bytes": (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
    "a giant bytearray": (b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
    "a negative length": (b"T\xff\xff\xff\xff.", "damaged"),
    "a giant frame": (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.", "no array"),
    "a giant integer": (b"\x8b\xff\xff\xff\x7f.", "damaged"),
    "a long integer in digits": (b"I" + b"9" * 100_000 + b"\n.", "damaged"),
    "no end": (b"}", "damaged"),
    "nothing": (b"", "damaged"),
    "an empty stack": (b".", "damaged"),
    "two values": (b"}}.", "damaged"),
    "a mark as the value": (b"(.", "damaged"),
    "no mark": (b"}e.", "damaged"),
    "append to a name": (b"ctorch\nSize\n}a.", "damaged"),
    "a list as a key": (b"}](0l0]K\x01s.", "damaged"),
    "an unknown opcode": (b"\xff.", "damaged"),
    "protocol 200": (b"\x80\xc8}.", "protocol 200"),
    "a key that is a deep tuple": (b"})" + b"\x85" * 300_000 + b"K\x01s.", "damaged"),
    "a key chosen to collide": (b"}L" + str(2**61 - 1).encode() + b"L\nK\x01s.", "damaged"),
    "a name of many lines": (b"\x80\x04\x8c\x02os\x8c\x08sys\ntem\x1b\x93.", "os.sys?tem?"),
    "a dict that holds itself": (b"}q\x00X\x01\x00\x00\x00ah\x00s.", "deep"),
    "a list that holds itself": (b"]q\x00h\x00a.", "deep"),
    "ten times itself, eight times over": (
        b"]" + b"".join(b"q%c0](%se" % (i, b"h%c" % i * 10) for i in range(8)) + b".", "200,000"),
    "a thousand doublings": (b")" + b"2\x86" * 1000 + b".", "deep"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_opcode_tricks(tmp_path: Path, trick: str) -> None:
    pickled, words = TRICKS[trick]
    refused(archive(tmp_path / "evil.pth", pickled), words)


def test_every_opcode_is_known_or_refused() -> None:
    """Each opcode alone, on a stack of anything: an error of ours or a value, never another exception."""
    import pickletools

    for opcode in pickletools.opcodes:
        for stack in (b"", b"}", b"(", b"K\x01", b"(}", b"]K\x01K\x02", b"cnumpy\ndtype\n", b"cnumpy\ndtype\n)", b"S'a'\n" * 2):
            for argument in (b"", b"\x00", b"1\n", b"\x00" * 8, b"a\nb\n", b"\xff" * 9):
                try:
                    read_pickle(io.BytesIO(stack + opcode.code.encode("latin-1") + argument + b"."), {**CONTAINERS, **NUMPY}, "x")
                except FileError as error:
                    assert str(error).isprintable()


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    try:
        read_pickle(io.BytesIO(content), {**CONTAINERS, **NUMPY}, "x")
    except FileError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize(("size", "stride", "offset"), [
    ("I9999999\n", "I1\n", "I0\n"), ("I2\n", "I1\n", "I3\n"), ("I-1\n", "I1\n", "I0\n"), ("I4\n", "I-1\n", "I3\n"),
    ("I4\n", "I1\n", "I-1\n"), ("L9223372036854775807L\n", "I1\n", "I0\n"), ("L99999999999999999999999L\n", "I0\n", "I0\n"),
    ("L1099511627776L\n", "I0\n", "I0\n"),
    ("F2.0\n", "I1\n", "I0\n"),
])  # fmt: skip
def test_views_outside_their_storage_and_without_end(tmp_path: Path, size: str, stride: str, offset: str) -> None:
    storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
    text = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}{offset}({size}t({stride}tI00\nccollections\nOrderedDict\n)RtR"
    evil = archive(tmp_path / "evil.pth", b"}S'w'\n" + text.encode() + b"s.", {"0": bytes(16)})
    refused(evil)


def saved(tmp_path: Path, new: bool = True) -> Path:
    path = tmp_path / ("new.pth" if new else "old.pth")
    torch.save({"weight": torch.arange(1000.0), "bias": torch.ones(7)}, path, _use_new_zipfile_serialization=new)
    return path


@pytest.mark.parametrize("new", [True, False])
def test_cut_short_anywhere(tmp_path: Path, new: bool) -> None:
    whole = saved(tmp_path, new).read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        refused(tmp_path / "cut.pth")


def test_flipped_bits_never_give_other_weights(tmp_path: Path) -> None:
    """Every byte of an archive, one bit each: refused, or (in padding and dates) the same weights."""
    path = saved(tmp_path)
    whole, true = path.read_bytes(), load_weights(path)
    refusals = 0
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = load_weights(path)
        except TinynetError as error:
            refusals += 1
            assert str(error).isprintable()
        else:
            assert all((found[name] == x).all() for name, x in true.items()) and set(found) == set(true), place
    assert refusals > len(whole) / 3 * 0.7


def limited(code: str, path: Path, megabytes: int) -> str:
    """Run code on a path in a process that may have so many megabytes more than it has at the start; what it says."""
    program = (
        "import resource, sys\nfrom tinynet.models import load_weights\nfrom tinynet.errors import FileError\n"
        "import numpy, safetensors.numpy\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (now + ({megabytes} << 20),) * 2)\n"
        f"path = sys.argv[1]\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


REFUSE = "try:\n    load_weights(path)\nexcept FileError as error:\n    print('refused', error)\n"


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or not Path("/proc/self/statm").exists(), reason="needs Linux's limits")
def test_bombs_take_no_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file, file.open("w.npy", "w") as entry:
        for _ in range(300):
            entry.write(bytes(1 << 20))
    assert "expected at most 100 times" in limited(REFUSE, tmp_path / "bomb.npz", 100)
    lying = bytearray((tmp_path / "bomb.npz").read_bytes())
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):   # states 1,000 bytes, unpacks to 300 MB
        at = lying.index(signature) + place
        lying[at : at + 4] = struct.pack("<I", 1000)
    (tmp_path / "liar.npz").write_bytes(lying)
    assert "refused" in limited(REFUSE, tmp_path / "liar.npz", 100)
    torch.save({f"w{i}": torch.zeros(1).expand(1 << 20) for i in range(1000)}, tmp_path / "wide.pth")
    assert "repeat few bytes" in limited(REFUSE, tmp_path / "wide.pth", 100)
    archive(tmp_path / "many.pth", b"(" + b"}" * 10_000_000 + b"l.")
    assert "steps in its pickle" in limited(REFUSE, tmp_path / "many.pth", 700)
    header = np.lib.format.magic(1, 0) + struct.pack("<H", 118)
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
    with zipfile.ZipFile(tmp_path / "shape.npz", "w") as file:
        file.writestr("w.npy", header + text.ljust(117).encode() + b"\n" + bytes(8))
    assert "do not have 8 bytes" in limited(REFUSE, tmp_path / "shape.npz", 100)


def test_archives_with_traps(tmp_path: Path) -> None:
    good = pickle.dumps({}, 2)
    for name in ("../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:evil", "a\nb"):
        with zipfile.ZipFile(tmp_path / "evil.pth", "w") as file:
            file.writestr("archive/data.pkl", good)
            file.writestr(zipfile.ZipInfo(name), b"x")
        refused(tmp_path / "evil.pth", "lead out of its folder")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "twice.pth", "w") as file:
        file.writestr("archive/data.pkl", good)
        file.writestr("archive/data.pkl", good)
    refused(tmp_path / "twice.pth", "two entries")
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("archive/data.pkl", good)
    refused(tmp_path / "packed.pth", "method 12")
    refused(archive(tmp_path / "script.pth", good, archive__code__x=b"evil"), "TorchScript")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as file:
        file.writestr("readme.txt", b"x")
    refused(tmp_path / "zip.pth", "not of PyTorch's")
    refused(archive(tmp_path / "empty.pth", good), "no array")
    (tmp_path / "noise.pth").write_bytes(np.random.default_rng(0).bytes(5000))
    refused(tmp_path / "noise.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(collections.OrderedDict(a=1)))
    refused(tmp_path / "plain.pth", "not one that torch.save wrote")


def test_npz_of_objects_and_other_things(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", w=np.array([Runs(os.system, f"touch {tmp_path / 'ran'}")], dtype=object))
    refused(tmp_path / "objects.npz", "objects of Python's")
    np.savez(tmp_path / "text.npz", w=np.array(["a"]))
    refused(tmp_path / "text.npz", "expected numbers, got <U1")
    np.savez(tmp_path / "rows.npz", w=np.zeros(2, [("a", "f4")]))
    refused(tmp_path / "rows.npz", "expected numbers")
    for text in ("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", "__import__('os').system('id')", "{", "[" * 5000):
        with zipfile.ZipFile(tmp_path / "header.npz", "w") as file:
            file.writestr("w.npy", np.lib.format.magic(1, 0) + struct.pack("<H", len(text)) + text.encode() + bytes(8))
        refused(tmp_path / "header.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("length", [2**63, 2**63 - 1, 2**64 - 1, 2**40, 10**9, 0, 1])
def test_safetensors_headers(tmp_path: Path, length: int) -> None:
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", length) + b'{"a":1}' + bytes(100))
    refused(tmp_path / "w.safetensors", "damaged")
    (tmp_path / "w.bin").write_bytes(struct.pack("<Q", length) + b'{"a":1}' + bytes(100))
    refused(tmp_path / "w.bin", "damaged")


@pytest.mark.parametrize("header", [
    '{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"v":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
    '{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}',
    '{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,99999999999]}}',
    '{"w":{"dtype":"F8_E4M3","shape":[16],"data_offsets":[0,16]}}',
    '{"a\\nb":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', "[" * 10_000, '{"w":' * 10_000,
])  # fmt: skip
def test_safetensors_contents(tmp_path: Path, header: str) -> None:
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(16))
    refused(tmp_path / "w.safetensors")
