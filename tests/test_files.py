"""Safetensors files: what other programs wrote is read, what is written they read, and all that is wrong is one line."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tinynet
from tests.device_double import device_module
from tinynet.data import ImageFolder, read_photo
from tinynet.data.folder import any_photos
from tinynet.errors import FileError
from tinynet.files import make_folder, read_safetensors, replacing, write_safetensors, write_text


def test_the_format_s_own_library_reads_what_is_written(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "a.weight": rng.standard_normal((2, 3, 4)).astype(np.float32),
        "transposed": rng.standard_normal((3, 5)).T, "scalar": np.array(7), "nothing": np.zeros((0, 3), np.float32),
        "device": device_module.asarray(rng.standard_normal((2, 2))),
    }
    write_safetensors(tmp_path / "x.safetensors", tensors, {"what": "é"})
    theirs = load_file(tmp_path / "x.safetensors")
    assert set(theirs) == set(tensors)
    for name, x in tensors.items():
        x = x.get() if name == "device" else x
        assert theirs[name].numpy().dtype == x.dtype and theirs[name].shape == x.shape
        np.testing.assert_array_equal(theirs[name].numpy(), x)
    ours, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert metadata == {"what": "é"}
    for name, x in theirs.items():
        np.testing.assert_array_equal(ours[name], x.numpy())


def test_a_file_without_metadata_has_none(tmp_path):
    save_file({"w": torch.arange(3)}, tmp_path / "w.safetensors")
    tensors, metadata = read_safetensors(tmp_path / "w.safetensors")
    assert metadata == {} and tensors["w"].tolist() == [0, 1, 2]


def test_what_cannot_be_read_is_one_line(tmp_path):
    save_file({"w": torch.zeros(3, dtype=torch.float8_e4m3fn)}, tmp_path / "float8")
    save_file({"w": torch.zeros(300)}, tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-1])
    (tmp_path / "text").write_text("hello world, how are you")
    (tmp_path / "empty").write_bytes(b"")
    for name, message in {
        "float8": "F8_E4M3, which NumPy does not have", "cut": "damaged", "text": "damaged", "empty": "damaged",
        "none": "no such file; a word", "": "a folder",
    }.items():
        with pytest.raises(FileError, match=message) as caught:
            read_safetensors(tmp_path / name, "a word")
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"], ids=["too long", "with a NUL"])
def test_a_name_that_the_system_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    for write in (lambda: write_text(name, "x"), lambda: make_folder(name)):
        with pytest.raises(FileError, match=r"cannot be (written|made a folder) \((File name too long|embedded null byte)\)"):
            write()
    ways = [read_safetensors, tinynet.load, tinynet.load_model, tinynet.from_onnx, read_photo, ImageFolder, any_photos]
    for read in ways:
        with pytest.raises(FileError, match=r"no such (file|folder)|File name too long|embedded null") as caught:
            read(name)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_refused_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "x"
    write_safetensors(path, {"w": np.zeros(2)}, {})
    before = path.read_bytes()
    with pytest.raises(FileError, match="what was there before is unchanged"):
        write_safetensors(path, {"w": np.zeros(2, np.dtype("datetime64[s]"))}, {})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path: Path):
    path, begun, go = tmp_path / "a.txt", threading.Event(), threading.Event()

    def first() -> None:
        with replacing(path) as temporary:
            temporary.write_text("first")
            begun.set()
            go.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(10)
    write_text(path, "second, and longer")
    assert path.read_text() == "second, and longer"
    go.set()
    thread.join(10)
    assert path.read_text() == "first" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_and_permissions_stay(tmp_path: Path):
    real, link = tmp_path / "model-3.txt", tmp_path / "latest.txt"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real.name)
    write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new" and real.stat().st_mode & 0o777 == 0o600


def test_what_is_no_regular_file_stays_what_it_is(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileError, match=r"pipe: cannot be written \(no regular file\)$"):
        write_text(pipe, "x")
    assert pipe.is_fifo()
