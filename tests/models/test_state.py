"""Weights from files that PyTorch, NumPy and safetensors wrote themselves."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tinynet
from tests.models.compare import same
from tinynet.errors import ArgumentError, FileError
from tinynet.models import load_weights

FORMATS = [
    {"_use_new_zipfile_serialization": new, "pickle_protocol": protocol} for new in (True, False) for protocol in (2, 3, 4, 5)
]


def tensors() -> OrderedDict[str, torch.Tensor]:
    """Every dtype, and every way in which a tensor can lie in its storage."""
    torch.manual_seed(0)
    base = torch.randn(10, 6)
    return OrderedDict(
        rows=base[::2, 1:4], turned=base.t(), inner=base[3:5], scalar=torch.tensor(3.5), empty=torch.zeros(0, 4),
        repeated=torch.randn(1, 3).expand(7, 3), parameter=torch.nn.Parameter(torch.randn(3)),
        nan=torch.tensor([float("nan"), 1.0]),
        half=torch.randn(3).half(), brain=torch.randn(4, 2).bfloat16(), double=torch.randn(3, dtype=torch.float64),
        long=torch.arange(5), int=torch.arange(3, dtype=torch.int32), short=torch.arange(3, dtype=torch.int16),
        char=torch.tensor([-1, 2], dtype=torch.int8), byte=torch.tensor([255], dtype=torch.uint8),
        bool=torch.tensor([True, False]),
        complex=torch.randn(2, dtype=torch.complex64), complex128=torch.randn(2, dtype=torch.complex128),
        last=torch.zeros(3, 2).to(memory_format=torch.contiguous_format), channels=torch.randn(2, 3, 4, 4).to(
            memory_format=torch.channels_last),
    )  # fmt: skip


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: "-".join(map(str, how.values())))
def test_what_torch_saved(tmp_path: Path, how: dict[str, Any]) -> None:
    path = tmp_path / "w.pth"
    torch.save(tensors(), path, **how)
    same(tinynet.load(path), tensors())
    checkpoint = {
        "epoch": 3, "best": torch.tensor(0.5), "lr": np.float64(0.1), "name": "run", "state_dict": tensors(),
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0], "betas": (0.9, 1)}]},
        "history": np.arange(3.0), "size": torch.Size([2, 3]), "kind": torch.float32, "seen": {1, 2},
        "device": torch.device("cpu"),
    }  # fmt: skip
    torch.save(checkpoint, path, **how)
    same(tinynet.load(path), tensors())
    same(load_weights(path, key="optimizer"), {"state.0.momentum_buffer": torch.ones(3)})


def test_shared_storages_stay_shared_and_take_no_memory_twice(tmp_path: Path) -> None:
    base = torch.randn(1000)
    torch.save({"a": base, "b": base.view(10, 100), "c": base[5:]}, tmp_path / "w.pth")
    found = load_weights(tmp_path / "w.pth")
    assert np.shares_memory(found["a"], found["b"]) and np.shares_memory(found["b"], found["c"])
    np.testing.assert_array_equal(found["c"], base[5:].numpy())


@pytest.mark.parametrize("wrap", [
    lambda s: {"state_dict": s}, lambda s: {"model_state_dict": s, "epoch": 1}, lambda s: {"model": {"state_dict": s}},
    lambda s: {"net": s, "acc": 92.1}, lambda s: {f"module.{k}": v for k, v in s.items()},
    lambda s: {"model": {f"_orig_mod.module.{k}": v for k, v in s.items()}, "optimizer": {"x": torch.ones(1)}},
])  # fmt: skip
def test_usual_wrappings(tmp_path: Path, wrap: Any) -> None:
    torch.save(wrap(tensors()), tmp_path / "w.pth")
    same(load_weights(tmp_path / "w.pth"), tensors())


def test_containers_of_several_networks_keep_their_names(tmp_path: Path) -> None:
    torch.save({"generator": {"w": torch.ones(2)}, "others": [torch.zeros(1), (torch.ones(1),)]}, tmp_path / "w.pth")
    assert list(load_weights(tmp_path / "w.pth")) == ["generator.w", "others.0", "others.1.0"]
    assert list(load_weights(tmp_path / "w.pth", key="generator")) == ["w"]
    with pytest.raises(ArgumentError, match="no entry 'critic'; there is generator, others"):
        load_weights(tmp_path / "w.pth", key="critic")
    torch.save(torch.ones(3), tmp_path / "one.pth")
    assert list(load_weights(tmp_path / "one.pth")) == ["tensor"]


def test_numpy_arrays_in_a_checkpoint(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "h": np.ones(2, np.float16),
              "big": np.arange(3, dtype=">i4"), "back": np.arange(4)[::-1]}
    for how in FORMATS:
        torch.save(arrays, tmp_path / "w.pth", **how)
        found = load_weights(tmp_path / "w.pth")
        assert found["h"].dtype == np.float32 and found["big"].dtype == np.int32
        for name, x in arrays.items():
            np.testing.assert_array_equal(found[name], x)


def test_a_big_endian_archive(tmp_path: Path) -> None:
    """As a machine of the other byte order writes it: the same archive with its storages turned round."""
    import zipfile

    torch.save({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([1.5]).bfloat16()}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as old, zipfile.ZipFile(tmp_path / "big.pth", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("byteorder"):
                content = b"big"
            elif "/data/" in name:
                content = np.frombuffer(content, "<u4" if len(content) == 8 else "<u2").byteswap().tobytes()
            new.writestr(name, content)
    found = load_weights(tmp_path / "big.pth")
    assert found["a"].tolist() == [1.0, 2.0] and found["b"].tolist() == [1.5]


def test_safetensors_both_ways(tmp_path: Path) -> None:
    plain = {k: v.detach().contiguous().clone() for k, v in tensors().items() if not v.is_complex()}
    save_file(plain, tmp_path / "w.safetensors")
    found = load_weights(tmp_path / "w.safetensors")
    same(found, {name: plain[name] for name in found})
    assert set(found) == set(plain)
    found.save(tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert set(back) == set(found)
    for name, x in back.items():
        np.testing.assert_array_equal(x.numpy(), found[name])
    torch.save(tensors(), tmp_path / "w.pth")                  # views and repeated storages are written out
    views = load_weights(tmp_path / "w.pth")
    for suffix in ("safetensors", "npz"):
        kept = type(views)({n: x for n, x in views.items() if x.dtype.kind != "c"}, views.path)
        kept.save(tmp_path / f"again.{suffix}")
        again = load_weights(tmp_path / f"again.{suffix}")
        for name, x in again.items():
            np.testing.assert_array_equal(x, views[name])
    found.save(tmp_path / "half.safetensors", half=True)
    assert load_file(tmp_path / "half.safetensors")["double"].dtype == torch.float16
    with pytest.raises(FileError, match=r"ends in \.safetensors or \.npz"):
        found.save(tmp_path / "w.pth")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Any) -> None:
    arrays = {"a.weight": np.random.default_rng(0).standard_normal((3, 2)), "h": np.ones(2, np.float16),
              "f": np.ones((2, 3), order="F"), "s": np.float32(2), "zero": np.zeros((0, 2))}
    save(tmp_path / "w.npz", **arrays)
    found = load_weights(tmp_path / "w.npz")
    assert found["h"].dtype == np.float32
    for name, x in arrays.items():
        np.testing.assert_array_equal(found[name], x)
        assert found[name].shape == x.shape


def test_types_that_a_package_adds_to_numpy_change_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ml_dtypes")                            # comes with onnx, and gives NumPy a bfloat16 and a float8
    save_file({"w": torch.tensor([1.5, -2]).bfloat16(), "v": torch.ones(2)}, tmp_path / "w.safetensors")
    found = load_weights(tmp_path / "w.safetensors")
    assert {x.dtype for x in found.values()} == {np.dtype(np.float32)} and found["w"].tolist() == [1.5, -2]
    save_file({"w": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "w8.safetensors")
    with pytest.raises(FileError, match="w is of the type F8_E4M3, which NumPy does not have"):
        load_weights(tmp_path / "w8.safetensors")
