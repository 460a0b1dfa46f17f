"""Safetensors files: what other programs wrote is read, what is written they read, and all that is wrong is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.device_double import device_module
from tinynet.errors import FileError
from tinynet.files import read_safetensors, write_safetensors


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


def test_a_refused_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "x"
    write_safetensors(path, {"w": np.zeros(2)}, {})
    before = path.read_bytes()
    with pytest.raises(FileError, match="what was there before is unchanged"):
        write_safetensors(path, {"w": np.zeros(2, np.dtype("datetime64[s]"))}, {})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x"]
