"""Networks that no name builds: described, saved, read back; and descriptions that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.nn.helpers import randomise
from tinynet import nn
from tinynet.data.preprocessing import Preprocessing
from tinynet.errors import ArgumentError, FileError
from tinynet.files import read_safetensors
from tinynet.models import TrainedModel, create, load_model, names, with_classes
from tinynet.models.structure import build, structure

PREPROCESSING = Preprocessing(16, 16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2))


def net() -> nn.Sequential:
    """Branches, a sum, a layer in two places, options of every kind."""
    twice = nn.Conv2d(6, 6, (3, 1), padding=(1, 0), bias=False)
    return nn.Sequential(
        stem=nn.Sequential(nn.Conv2d(3, 4, 3, 2, "valid", groups=1), nn.BatchNorm2d(4, eps=1e-3), nn.LeakyReLU(0.2)),
        _join=nn.Concat(_a=nn.Sequential(left=nn.Conv2d(4, 2, 1), relu=nn.ReLU6()), _b=nn.Sequential(right=nn.Conv2d(4, 4, 1))),
        body=nn.Residual(_body=nn.Sequential(one=twice, norm=nn.BatchNorm2d(6, affine=False), two=twice)),
        pad=nn.Pad((1, 1), value=0.5), norm=nn.LocalResponseNorm(3), pool=nn.MaxPool2d(3, 2, ceil_mode=True),
        up=nn.Upsample(scale_factor=2.0, mode="bilinear"), mean=nn.AdaptiveAvgPool2d((1, 1)), flatten=nn.Flatten(),
        drop=nn.Dropout(0.3), fc=nn.Linear(6, 5), out=nn.GroupLogSumExp([[0, 1], [2], [3, 4]]),
    )


def trained(model: nn.Layer, classes: int = 3) -> TrainedModel:
    return TrainedModel(model, "mine", {}, [f"kind {i}" for i in range(classes)], PREPROCESSING, {"from": "a test"})


@pytest.mark.parametrize("half", [False, True])
def test_a_network_without_a_name_comes_back(tmp_path: Path, half: bool) -> None:
    model, path = randomise(net()), tmp_path / "mine.safetensors"
    trained(model).save(path, half=half)
    found = load_model(path)
    assert found[1:] == trained(model)[1:] and repr(found.model) == repr(model)
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16))
    np.testing.assert_allclose(found.model(x), model(x), **({"atol": 0.05} if half else {"rtol": 0, "atol": 0}))
    body = found.model["body"]["_body"]                         # type: ignore[index]
    assert body["one"] is body["two"], "one layer in two places stays one"


def test_a_file_says_how_photos_come_to_the_network(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"model\.safetensors: expected preprocessing to be a Preprocessing, got None"):
        trained(net())._replace(preprocessing=None).save(tmp_path / "model.safetensors")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_a_name_does_not_build_is_described(tmp_path: Path) -> None:
    """A known name with another network behind it: the file says what is in it, not what the name would be."""
    other = nn.Sequential(conv=nn.Conv2d(3, 2, 3), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    trained(other, 2)._replace(name="resnet18").save(tmp_path / "a.safetensors")
    assert repr(load_model(tmp_path / "a.safetensors").model) == repr(other)
    usual = create("tinyvgg", rng=np.random.default_rng(0), classes=4)
    ending = nn.Sequential({**dict(usual.named_children()), "prob": nn.Softmax(1)})     # the same weights, another layer
    trained(ending, 4)._replace(name="tinyvgg", arguments={"classes": 4}).save(tmp_path / "c.safetensors")
    assert repr(load_model(tmp_path / "c.safetensors").model) == repr(ending)
    trained(usual, 4)._replace(name="tinyvgg", arguments={"classes": 4}).save(tmp_path / "b.safetensors")
    assert "structure" not in json.loads(read_safetensors(tmp_path / "b.safetensors")[1]["tinynet.model"])


@pytest.mark.parametrize("name", [name for name in names() if name != "googlenet"])    # a container of its own
def test_every_known_network_can_be_described(name: str) -> None:
    model = create(name, rng=nn.init.no_draws)
    found = build(json.loads(json.dumps(structure(model))))
    assert repr(found) == repr(model)
    assert {n: (x.shape, x.dtype) for n, x in found.state_dict().items()} == {
        n: (x.shape, x.dtype) for n, x in model.state_dict().items()}


class Mine(nn.Layer):
    pass


def test_what_cannot_be_built_again_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    for model in (nn.Sequential(inner=nn.Sequential(a=Mine())), Mine()):
        words = r"is a Mine, which is no layer of tinynet.nn\); save its weights alone"
        with pytest.raises(ArgumentError, match=words) as caught:
            trained(model).save(tmp_path / "mine.safetensors")
        assert "\n" not in str(caught.value)
    pool = nn.AdaptiveAvgPool2d(1)
    pool.output_size = {1, 2}                                   # type: ignore[assignment]
    with pytest.raises(ArgumentError, match="no plain values"):
        trained(nn.Sequential(pool)).save(tmp_path / "mine.safetensors")
    conv, mean = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)
    conv.stride = 2                                             # type: ignore[assignment]
    with pytest.raises(ArgumentError, match="changed after they were built"):
        trained(nn.Sequential(conv)).save(tmp_path / "mine.safetensors")
    del mean.output_size
    with pytest.raises(ArgumentError, match="AdaptiveAvgPool2d does not say its output_size"):
        trained(nn.Sequential(mean)).save(tmp_path / "mine.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_is_built_has_weights_of_zero() -> None:
    """They are loaded next; nothing is drawn."""
    found = build(structure(net()))
    assert [name for name, x in found.named_parameters().items() if x.any()] == ["stem.1.weight"], "the gain of a BatchNorm"


@pytest.mark.parametrize(("record", "words"), [
    ({"kind": "open"}, "with the layer 'open', which tinynet.nn does not have"),
    ({"kind": "Layer"}, "with the layer 'Layer', which"), ({}, "with the layer 'None', which"),
    ({"kind": "ReLU", "options": {"rng": 1}}, r"with ReLU\(rng=…\), which there is not"),
    ({"kind": "Linear", "options": {"in_features": 1, "out_features": 1, "run": 1}}, r"with Linear\(run=…\), which there is not"),
    ({"kind": "Sequential", "children": [["a", {"kind": "ReLU", "options": {}}], ["b", {"same": -1}]]}, "refers to layer -1"),
    ({"kind": "Sequential", "children": [["a", {"kind": "ReLU", "options": {}}], ["b", {"same": 2}]]}, "refers to layer 2"),
    ({"kind": "Sequential", "children": [["a", {"kind": "ReLU", "options": {}}], ["b", {"same": "a"}]]}, "refers to layer 'a'"),
    ([], "no description of a network"), ({"kind": "ReLU"}, r"no description of a network \(KeyError: 'options'\)"),
    ({"kind": "Linear", "options": {"in_features": 1}}, "no description of a network .*out_features"),
    ({"kind": "Sequential", "children": 3}, "no description of a network"),
])  # fmt: skip
def test_what_is_wrong_with_a_description_is_said(record: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        build(record)


@pytest.mark.parametrize("record", [
    None, 3, {}, {"kind": "Layer"}, {"kind": "open", "options": {}}, {"kind": "Sequential"},
    {"kind": "Sequential", "children": 3},
    {"kind": "Sequential", "children": [["a"]]}, {"kind": "Sequential", "children": [["a", {"same": 0}]]}, {"same": 0},
    {"kind": "Sequential", "children": [["a", {"same": -1}]]}, {"kind": "Linear", "options": {"in_features": 3}},
    {"kind": "Linear", "options": {"in_features": 3, "out_features": "x"}}, {"kind": "ReLU", "options": {"rng": 1}},
    {"kind": "Linear", "options": {"in_features": 3, "out_features": 1 << 50}}, {"kind": "Linear", "options": {"rng": 1}},
    {"kind": "Conv2d", "options": {"in_channels": 1, "out_channels": 1, "kernel_size": 0, "groups": 0}},
    {"kind": "Linear", "options": {"in_features": 3, "out_features": 2, "dtype": "O"}}, {"kind": "ReLU", "options": []},
])  # fmt: skip
def test_a_description_that_is_none_is_one_line(tmp_path: Path, record: Any) -> None:
    path = tmp_path / "w.safetensors"
    trained(nn.Sequential(nn.Flatten(), nn.Linear(3, 2))).save(path)
    tensors, metadata = read_safetensors(path)
    said = json.loads(metadata["tinynet.model"])
    del said["crc32"]
    save_file(tensors, path, {"tinynet.model": json.dumps({**said, "structure": record})})
    with pytest.raises(FileError, match="damaged or foreign model file") as caught:
        load_model(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_description_without_end(tmp_path: Path) -> None:
    record: Any = {"kind": "ReLU", "options": {}}
    for _ in range(80):
        record = {"kind": "Sequential", "children": [["a", record]]}
    with pytest.raises(ArgumentError, match="more than 64 deep"):
        build(record)


def test_another_number_of_classes() -> None:
    model = randomise(net())
    fresh = with_classes(nn.Sequential(dict(list(model.named_children())[:-1])), 7, np.random.default_rng(0))
    mine, other = fresh.state_dict(), model.state_dict()
    assert [n for n in mine if mine[n].shape != other[n].shape] == ["fc.weight", "fc.bias"] and mine["fc.weight"].shape == (7, 6)
    assert mine["fc.weight"].any() and not np.shares_memory(mine["stem.0.weight"], other["stem.0.weight"])
    np.testing.assert_array_equal(mine["body.one.weight"], other["body.one.weight"])
    assert with_classes(model, 5) is model
    squeeze = create("squeezenet1_1", rng=nn.init.no_draws)
    assert with_classes(squeeze, 2, np.random.default_rng(0)).state_dict()["classifier.1.weight"].shape == (2, 512, 1, 1)
    hidden = nn.Sequential(_tail=nn.Sequential(flatten=nn.Flatten(), fc=nn.Linear(4, 3)))
    assert with_classes(hidden, 2).state_dict()["fc.bias"].shape == (2,)
    with pytest.raises(ArgumentError, match="Conv1d is the last layer with weights"):
        with_classes(nn.Sequential(nn.Conv1d(2, 3, 1)), 2)


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    model = randomise(net())
    trained(model).save(tmp_path / "w.safetensors")
    for name, x in load_file(tmp_path / "w.safetensors").items():
        np.testing.assert_array_equal(x, model.state_dict()[name])
