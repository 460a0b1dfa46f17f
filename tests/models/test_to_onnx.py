"""Exported models in ONNX Runtime: the same outputs, for every layer and option, and what the file says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import tinynet
from tests.checking import values
from tests.interpret.nets import NETS
from tests.models.onnx_runtime import close, run
from tests.nn.helpers import randomise
from tests.nn.test_containers import fire
from tinynet import models, nn
from tinynet.data.preprocessing import Preprocessing
from tinynet.errors import ArgumentError, FileError
from tinynet.models import TrainedModel, to_onnx

# Layers with their options, and an input's size.
CASES: list[tuple[nn.Layer, tuple[int, ...]]] = [
    (nn.AvgPool2d((3, 2), (1, 2), (1, 0), count_include_pad=False), (2, 7, 8)), (nn.AvgPool2d(3, 2, 1), (2, 7, 8)),
    (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (2, 7, 8)), (nn.AvgPool2d(3, 2, 1, True, False), (2, 7, 8)),
    (nn.AvgPool2d(2, 3, 1, ceil_mode=True), (2, 6, 8)), (nn.AvgPool2d(3, 2, 1, divisor_override=5), (2, 7, 8)),
    (nn.AvgPool1d(3, 2, 1), (2, 8)), (nn.AvgPool3d(2, 1, 1, ceil_mode=True), (2, 4, 5, 4)),
    (nn.AvgPool2d(4, 3, ceil_mode=True), (2, 6, 9)),
    (nn.MaxPool2d(3, 2, 1, 1, True), (2, 7, 8)), (nn.MaxPool2d(2, 3, 1, 1, True), (2, 6, 8)),
    (nn.MaxPool2d(3, 2, 2, 2, True), (2, 9, 8)),
    (nn.MaxPool2d(3, 2, 0, 1, True), (2, 7, 6)), (nn.MaxPool1d(3, 2, ceil_mode=True), (2, 8)), (nn.MaxPool3d(2), (2, 4, 5, 4)),
    (nn.AdaptiveAvgPool2d(1), (2, 7, 8)), (nn.AdaptiveAvgPool2d((2, 4)), (2, 6, 8)), (nn.AdaptiveAvgPool2d((3, 5)), (2, 7, 8)),
    (nn.AdaptiveAvgPool2d((7, None)), (2, 3, 8)),
    (nn.Upsample(scale_factor=2), (2, 3, 4)), (nn.Upsample(scale_factor=1.7), (2, 3, 4)), (nn.Upsample((7, 5)), (2, 3, 4)),
    (nn.Upsample(scale_factor=(3, 2), mode="bilinear", align_corners=False), (2, 3, 4)),
    (nn.Upsample((6, 9), mode="nearest-exact"), (2, 3, 4)),
    (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), (2, 3, 4)),
    (nn.Upsample(scale_factor=2.5, mode="bilinear"), (2, 3, 4)),
    (nn.Upsample(scale_factor=(1, 2, 1.5), mode="trilinear"), (2, 3, 4, 2)), (nn.Upsample(scale_factor=2, mode="linear"), (2, 5)),
    (nn.Upsample(scale_factor=0.5, mode="bilinear"), (2, 6, 5)), (nn.Upsample(scale_factor=41), (1, 2, 1)),
    (nn.Pad((1, 2, 0, -1)), (2, 3, 4)), (nn.Pad((1, 2), value=1.5), (2, 4)), (nn.Pad((1, 2, 0, 2), "reflect"), (2, 3, 4)),
    (nn.Pad((1, 2, 0, -1), "replicate"), (2, 3, 4)), (nn.Pad((1, 2, 0, 2), "circular"), (2, 3, 4)),
    (nn.Pad((0, 0, 0, 0, 1, 2)), (2, 3, 4)),
    (nn.Flatten(), (2, 3, 4)), (nn.Flatten(2, 3), (2, 3, 4, 5)), (nn.Flatten(0, 1), (2, 3)), (nn.Flatten(1, 2), (2, 3, 4)),
    (nn.Linear(4, 3), (4,)), (nn.Linear(4, 3, bias=False), (4,)), (nn.Linear(4, 3), (2, 5, 4)),
    (nn.Linear(4, 3, bias=False), (5, 4)),
    (nn.LocalResponseNorm(5, 0.1, 0.75, 2.0), (9, 3, 4)), (nn.BatchNorm2d(3, eps=1e-3), (3, 4, 5)), (nn.BatchNorm1d(3), (3,)),
    (nn.BatchNorm1d(3, bias=False), (3, 4)), (nn.BatchNorm3d(3, affine=False, momentum=None), (3, 4, 2, 2)),
    (nn.Conv2d(2, 4, (4, 3), padding="same", dilation=(1, 2)), (2, 7, 8)),
    (nn.Conv2d(2, 4, 3, 2, 1, groups=2, bias=False), (2, 7, 8)),
    (nn.Conv1d(2, 4, 3, padding="valid"), (2, 8)), (nn.Conv3d(2, 4, 2), (2, 4, 3, 3)),
    (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, dilation=2), (4, 4, 5)), (nn.ConvTranspose1d(4, 6, 3, 2, bias=False), (4, 5)),
    (nn.ConvTranspose3d(2, 2, 2, 2), (2, 2, 3, 2)),
    (nn.Softmax(1), (3, 4, 4)), (nn.LogSoftmax(-1), (3, 4)), (nn.LeakyReLU(0.3), (3, 4)), (nn.Sigmoid(), (3,)), (nn.Tanh(), (3,)),
    (nn.ReLU(), (3,)), (nn.ReLU6(), (40,)), (nn.GroupLogSumExp([[0, 2], [1], [3, 4]]), (5,)), (nn.Dropout(0.4), (5,)),
    (nn.Identity(), (5,)),
    (nn.Sequential(), (5,)), (nn.Residual(a=nn.Sequential(), b=nn.ReLU(), c=nn.Tanh()), (5,)), (nn.Residual(nn.ReLU()), (5,)),
    (nn.Concat(input=nn.ReLU(), output=nn.Tanh()), (5, 2)), (fire(), (2, 9, 8)),
]  # fmt: skip
CASES += [(make(), shape[1:]) for make, _, shape, _ in NETS.values()]


def single(layer: nn.Layer, seed: int = 0) -> nn.Layer:
    return randomise(layer, seed).to(dtype=np.float32)


@pytest.mark.parametrize(("layer", "size"), CASES, ids=lambda v: v if isinstance(v, str) else type(v).__name__)
def test_every_layer_gives_the_same_in_onnx_runtime(layer: nn.Layer, size: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    to_onnx(single(layer), path, size)
    onnx.checker.check_model(str(path), full_check=True)
    for images in (1, 3):                                       # the batch is free
        x = 4 * values(images, (images, *size)).astype(np.float32)
        close(run(path, x), layer(x))


def small() -> list[str]:
    """Models of at most two million parameters: the others are made of the same layers, and take a hundred times the time."""
    made = ((name, models.create(name, rng=nn.init.no_draws)) for name in models.names())
    return [name for name, model in made if sum(x.size for x in model.named_parameters().values()) < 2e6]


@pytest.mark.parametrize("name", small())
def test_models_of_the_registry(name: str, tmp_path: Path) -> None:
    model = models.create(name, rng=np.random.default_rng(0))
    x = values(0, (2, *models.entry(name).input_size)).astype(np.float32)
    to_onnx(model, tmp_path / "model.onnx", x.shape[1:])
    close(run(tmp_path / "model.onnx", x), model(x))


def test_large_numbers_do_not_overflow_in_a_union_of_classes(tmp_path: Path) -> None:
    layer = nn.GroupLogSumExp([[0, 1], [2]])
    to_onnx(layer, tmp_path / "model.onnx", (3,))
    x = np.array([[900, 901, -900], [-900, -901, 2]], np.float32)
    close(run(tmp_path / "model.onnx", x), layer(x))


def trained() -> TrainedModel:
    groups = [[0, 1], [2]]
    model = models.create("catnet", rng=np.random.default_rng(0), classes=3, groups=groups)
    preprocessing = Preprocessing(40, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2), views=10)
    return TrainedModel(model, "catnet", {"classes": 3, "groups": groups}, ["cat", "dog"], preprocessing,
                        {"command": "tinynet train"})


def test_the_file_says_what_the_model_is(tmp_path: Path) -> None:
    path, model = tmp_path / "model.onnx", trained()
    to_onnx(model, path)
    proto = onnx.load(path)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 13)] and proto.ir_version == 7
    assert proto.producer_name == "tinynet"
    record = json.loads({item.key: item.value for item in proto.metadata_props}["tinynet.model"])
    assert record["classes"] == ["cat", "dog"] and Preprocessing.from_dict(record["preprocessing"]) == model.preprocessing
    (value,) = proto.graph.input
    assert value.name == "input" and [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] == ["N", 3, 32, 32]
    assert [v.name for v in proto.graph.output] == ["output"]
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for name, array in model.model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(found[name], array)
    assert {"conv1", "bn1", "relu1"} <= {node.name for node in proto.graph.node}


def test_parameters_are_written_once_and_in_float32(tmp_path: Path) -> None:
    model = randomise(fire())
    to_onnx(model, tmp_path / "model.onnx", (2, 9, 8))
    proto = onnx.load(tmp_path / "model.onnx")
    names = [tensor.name for tensor in proto.graph.initializer]
    assert len(set(names)) == len(names) and set(model.named_parameters()) <= set(names) and "res.0.3.weight" not in names
    x = values(0, (2, 2, 9, 8))
    np.testing.assert_allclose(run(tmp_path / "model.onnx", x.astype(np.float32)), model(x), atol=1e-4)


class _Own(nn.Identity):
    pass


class _Other(nn.Layer):
    def forward(self, x: Any, train: bool = False, rng: Any = None) -> Any:
        return x, None


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    refused = [
        (nn.Sequential(a=_Other(), b=nn.Sequential(_Other())), (3,), r"^to_onnx: not supported: a: _Other; b.0: _Other$"),
        (nn.Sequential(bn=nn.BatchNorm2d(3, track_running_stats=False)), (3, 2, 2),
         "^bn: to_onnx: BatchNorm2d without running statistics"),
        (nn.Sequential(n=nn.LocalResponseNorm(4)), (6, 2, 2), "^n: to_onnx: LocalResponseNorm: expected an odd size"),
        (nn.ReLU(), None, r"expected input_size like \(3, 224, 224\), got None"), (nn.ReLU(), (3, 0), "got 0"),
        (nn.ReLU(), 8, "expected input_size like .*, got 8"), (nn.ReLU(), (3, 2.0), "to be an integer, got 2.0"),
        (torch.nn.ReLU(), (3,), r"to_onnx: expected a model of tinynet's, got ReLU; tinynet\.from_torch makes one"),
        (TrainedModel(nn.ReLU(), "mine", {}, [], None, {}), (3,), "^to_onnx: expected preprocessing .*, got None"),
        (nn.Linear(3, 2), (4,), "linear"),
    ]  # fmt: skip
    for model, size, words in refused:
        with pytest.raises(tinynet.errors.TinynetError, match=words) as caught:
            to_onnx(model, path, size)
        assert "\n" not in str(caught.value)
    to_onnx(_Own(), path, (3,))                                 # a subclass is what it is derived from
    with pytest.raises(FileError, match="cannot be written"):
        to_onnx(nn.ReLU(), tmp_path / "no" / "model.onnx", (3,))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ArgumentError, match=r'the package onnx cannot be imported .* pip install "tinynet\[onnx\]"'):
        tinynet.to_onnx(nn.ReLU(), path, (3,))
    with pytest.raises(ArgumentError, match=r"^from_onnx: the package onnx"):
        tinynet.from_onnx(path)
