"""A checkpoint is written whole or not at all, read back exactly, and never trusted."""

from __future__ import annotations

import json
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.train import runs
from tinynet.errors import FileError
from tinynet.files import make_folder, replacing, write_text
from tinynet.train import Checkpoint, History, load_checkpoint, save_checkpoint


@contextmanager
def disk_with(bytes_left: int):
    """The system refuses to let any file grow beyond that size, in the middle of a write, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def checkpoint() -> Checkpoint:
    rng = np.random.default_rng(0)
    model = {
        "conv.weight": rng.normal(size=(2, 3, 1, 1)).astype(np.float32), "norm.num_batches_tracked": np.array(7),
        "scale": np.array(0.1), "empty": np.zeros((0, 3), np.float32), "view": rng.normal(size=(3, 4)).T[::2],
    }  # fmt: skip
    state = {"conv.weight": {"step": 3, "exp_avg": rng.normal(size=(2, 3, 1, 1))}, "scale": {"step": 1}}
    groups = [{"lr": 0.1 + 0.2, "betas": [0.9, 0.999], "params": ["conv.weight", "scale"]}]
    record = {"best": None, "sum": 1 / 3, "config": {"ä": "€"}}
    return Checkpoint(model, {"state": state, "param_groups": groups}, record)


def test_what_is_saved_comes_back_exactly(tmp_path):
    saved = checkpoint()
    save_checkpoint(tmp_path / "c.safetensors", saved)
    loaded = load_checkpoint(tmp_path / "c.safetensors")
    assert loaded.record == saved.record
    assert loaded.optimizer["param_groups"] == saved.optimizer["param_groups"]
    assert list(loaded.model) and loaded.model.keys() == saved.model.keys()
    for name, value in saved.model.items():
        assert (loaded.model[name].dtype, loaded.model[name].shape) == (value.dtype, value.shape), name
        np.testing.assert_array_equal(loaded.model[name], value)
    state = loaded.optimizer["state"]
    assert state["scale"] == {"step": 1}
    assert state["conv.weight"]["step"] == 3
    np.testing.assert_array_equal(state["conv.weight"]["exp_avg"], saved.optimizer["state"]["conv.weight"]["exp_avg"])
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_it_holds_nothing_that_could_be_executed(tmp_path):
    """The file is a JSON header and raw numbers: the format's own definition, read by hand."""
    small = Checkpoint({"w": np.arange(3.0)}, {"state": {}, "param_groups": []}, {})
    save_checkpoint(tmp_path / "c.safetensors", small)
    raw = (tmp_path / "c.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    assert json.loads(header["__metadata__"]["tinynet.checkpoint"])["version"] == 1
    assert header["model.w"]["dtype"] == "F64"
    np.testing.assert_array_equal(np.frombuffer(raw[8 + size :], "<f8"), [0, 1, 2])


def test_a_full_disk_leaves_the_old_file_whole_and_nothing_else(tmp_path):
    path = tmp_path / "last.safetensors"
    small = Checkpoint({"w": np.zeros(4)}, {"state": {}, "param_groups": []}, {"n": 1})
    save_checkpoint(path, small)
    before = path.read_bytes()
    big = Checkpoint({"w": np.ones(100_000)}, {"state": {}, "param_groups": []}, {"n": 2})
    with disk_with(50_000), pytest.raises(FileError) as caught:
        save_checkpoint(path, big)
    assert str(path) in str(caught.value)
    assert "what was there before is unchanged" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert load_checkpoint(path).record == {"n": 1}


def test_a_full_disk_during_training_is_one_line_and_the_run_can_be_resumed(tmp_path):
    run = runs.trainer(tmp_path, epochs=1)
    run.fit()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    more = runs.trainer(tmp_path)
    with disk_with(2_000), pytest.raises(FileError, match="cannot be written"):
        more.fit(resume=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    more = runs.trainer(tmp_path)
    assert len(more.fit(resume=True)) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space"), ValueError])
def test_whatever_fails_the_old_file_stays(tmp_path, error):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    expected = FileError if isinstance(error, OSError) else error
    with pytest.raises(expected), replacing(path) as temporary:
        temporary.write_text("half of the ne")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        assert path.read_text() == "old"
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("")
    for path in (tmp_path / "none" / "x", tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(FileError, match="cannot be written") as caught:
            write_text(path, "text")
        assert "\n" not in str(caught.value)
    with pytest.raises(FileError, match="cannot be made a folder"):
        make_folder(tmp_path / "file" / "x")
    with pytest.raises(FileError, match="cannot be written"):
        History().write_csv(tmp_path / "none" / "h.csv")
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_the_contents_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=original: (calls.append(n), f(*a))[1])
    write_text(tmp_path / "x", "text")
    assert calls == ["fsync", "replace", "fsync"]


def damaged(path: Path) -> dict[str, bytes]:
    save_checkpoint(path, checkpoint())
    good = path.read_bytes()
    return {
        "empty": b"", "short": good[:20], "cut": good[:-1], "text": b"hello world, this is no checkpoint",
        "pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.", "head": b"\xff" * 8 + good[8:],
        "json": good.replace(b'\\"record\\"', b'\\"recorp\\"'),
        "version": good.replace(b'\\"version\\": 1', b'\\"version\\": 9'),
        "broken": good.replace(b'{\\"version\\"', b'[\\"version\\"'),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["empty", "short", "cut", "text", "pickle", "head", "json", "version", "broken"])
def test_a_damaged_file_is_one_line(tmp_path, kind):
    path = tmp_path / "c.safetensors"
    path.write_bytes(damaged(path)[kind])
    with pytest.raises(FileError, match=r"c\.safetensors: ") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    save_file({"w": np.zeros(2)}, tmp_path / "weights.safetensors")
    for name, text in [("weights.safetensors", "no checkpoint of a training"), ("none", "no such"), ("", "a folder")]:
        with pytest.raises(FileError, match=text):
            load_checkpoint(tmp_path / name)
