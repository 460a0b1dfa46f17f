"""ONNX files against ONNX Runtime: operator by operator, as PyTorch's exporter writes networks, and as to_onnx does; and files
that are broken, foreign or hostile.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings

from tests.checking import values
from tests.models import torch_nets
from tests.models.onnx_runtime import close, run, write
from tests.models.test_graph import layers, leaves
from tests.models.test_to_onnx import single, trained
from tests.models.twins import TWINS
from tests.nn.helpers import randomise
from tinynet import nn
from tinynet.errors import FileError, TinynetError
from tinynet.models import from_onnx, from_torch, read_onnx, to_onnx


def f32(seed: int, *shape: int) -> np.ndarray:
    return values(seed, shape).astype(np.float32)


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


W, B, G, T3 = f32(1, 4, 2, 3, 2), f32(2, 4), f32(3, 6, 2, 3, 3), f32(4, 2, 3, 3, 3)
N = ("N", 2, 7, 8)
STATS = {"s": f32(1, 2), "b": f32(2, 2), "m": f32(3, 2), "v": np.abs(f32(4, 2)) + 0.5}
RELU = ("Relu", ["x"], "r", {})
GEMM = {"x": f32(0, 1)}

# (nodes, constants, the input's shape, opset, kinds of layers that must come of it)
OPERATORS: dict[str, tuple[list[Any], dict[str, Any], tuple[Any, ...], int, str]] = {
    "conv": ([("Conv", ["x", "w", "b"], "y", {"strides": [2, 1], "pads": [1, 0, 1, 0]})], {"w": W, "b": B}, N, 7, "Conv2d"),
    "conv, pads that differ": ([("Conv", ["x", "w"], "y", {"pads": [0, 1, 2, 0]})], {"w": W}, N, 11, "Pad Conv2d"),
    "conv, groups, dilations": ([("Conv", ["x", "w", "b"], "y", {"group": 2, "dilations": [1, 2], "kernel_shape": [3, 3]})],
                                {"w": G, "b": f32(5, 6)}, ("N", 4, 7, 8), 13, "Conv2d"),
    "conv 1d": ([("Conv", ["x", "w"], "y", {})], {"w": f32(1, 3, 2, 3)}, ("N", 2, 7), 13, "Conv1d"),
    "conv 3d": ([("Conv", ["x", "w"], "y", {})], {"w": f32(1, 3, 2, 2, 2, 2)}, ("N", 2, 3, 4, 3), 13, "Conv3d"),
    "conv valid": ([("Conv", ["x", "w"], "y", {"auto_pad": "VALID", "strides": [2, 3]})], {"w": W}, N, 13, "Conv2d"),
    "conv same, stride 1": ([("Conv", ["x", "w"], "y", {"auto_pad": "SAME_LOWER"})], {"w": W}, ("N", 2, "H", "W"), 13,
                            "Pad Conv2d"),
    "conv same, strides": ([("Conv", ["x", "w"], "y", {"auto_pad": "SAME_UPPER", "strides": [2, 1]})], {"w": W}, N, 13,
                           "Pad Conv2d"),
    "conv transpose": ([("ConvTranspose", ["x", "w", "b"], "y", {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1,
                                                                                                                             0]})],
                       {"w": T3, "b": f32(5, 3)}, N, 13, "ConvTranspose2d"),
    "gemm": ([("Gemm", ["x", "w", "b"], "y", {"transB": 1, "alpha": 0.5, "beta": 2.0})], {"w": f32(1, 3, 5), "b": f32(2, 3)},
             ("N", 5), 13, "Linear"),
    "gemm, not turned": ([("Gemm", ["x", "w", "b"], "y", {})], {"w": f32(1, 5, 3), "b": f32(2, 1, 3)}, ("N", 5), 13, "Linear"),
    "gemm, one bias": ([("Gemm", ["x", "w", "b"], "y", {"transB": 1})], {"w": f32(1, 3, 5), "b": np.float32(0.7)}, ("N", 5), 13,
                       "Linear"),
    "gemm, no bias": ([("Gemm", ["x", "w"], "y", {"transB": 1})], {"w": f32(1, 3, 5)}, ("N", 5), 13, "Linear"),
    "matmul and add": ([("MatMul", ["x", "w"], "p", {}), ("Add", ["b", "p"], "y", {})], {"w": f32(1, 5, 3), "b": f32(2, 3)},
                       ("N", 5), 13, "Linear"),
    "matmul of a turned matrix": ([("Transpose", ["w"], "t", {"perm": [1, 0]}), ("MatMul", ["x", "t"], "y", {})],
                                  {"w": f32(1, 3, 5)},
                                  ("N", 4, 5), 13, "Linear"),
    "batch norm": ([("BatchNormalization", ["x", "s", "b", "m", "v"], "y", {"epsilon": 1e-3, "momentum": 0.8})], STATS, N, 9,
                   "BatchNorm2d"),
    "batch norm of vectors": ([("BatchNormalization", ["x", "s", "b", "m", "v"], "y", {})], STATS, ("N", 2), 15, "BatchNorm1d"),
    "lrn": ([("LRN", ["x"], "y", {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 2.0})], {}, ("N", 5, 3, 2), 13,
            "LocalResponseNorm"),
    "max pool": ([("MaxPool", ["x"], "y", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]})], {}, N, 8,
                 "MaxPool2d"),
    "max pool, strides of one": ([("MaxPool", ["x"], "y", {"kernel_shape": [3, 2]})], {}, N, 8, "MaxPool2d"),
    "max pool, ceil, dilations": ([("MaxPool", ["x"], "y", {"kernel_shape": [2, 2], "strides": [2, 3], "dilations": [2, 1],
                                                           "ceil_mode": 1})], {}, N, 12, "MaxPool2d"),
    "max pool, pads that differ": ([("MaxPool", ["x"], "y", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 1, 0]})],
                                   {}, N, 12, "Pad MaxPool2d"),
    "max pool same": ([("MaxPool", ["x"], "y", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"})], {}, N, 12,
                      "Pad MaxPool2d"),
    "average pool": ([("AveragePool", ["x"], "y", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]})], {}, N, 11,
                     "AvgPool2d"),
    "average pool, counting": ([("AveragePool", ["x"], "y",
                                 {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1})],
                               {}, N, 11, "AvgPool2d"),
    "average pool, pads that differ": ([("AveragePool", ["x"], "y", {"kernel_shape": [3, 3], "pads": [0, 1, 1, 0],
                                                                    "count_include_pad": 1})], {}, N, 11, "Pad AvgPool2d"),
    "average pool, ceil": ([("AveragePool", ["x"], "y", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})], {}, N, 19,
                           "AvgPool2d"),
    "global average pool": ([("GlobalAveragePool", ["x"], "g", {}), ("Squeeze", ["g"], "y", {"axes": [2, 3]})], {}, N, 11,
                            "AdaptiveAvgPool2d Flatten"),
    "global average pool, squeezed by an input": ([("GlobalAveragePool", ["x"], "g", {}), ("Squeeze", ["g", "a"], "y", {})],
                                                  {"a": i64(-2, -1)}, N, 13, "AdaptiveAvgPool2d Flatten"),
    "mean": ([("ReduceMean", ["x"], "y", {"axes": [2, 3], "keepdims": 0})], {}, N, 13, "AdaptiveAvgPool2d Flatten"),
    "mean, kept": ([("ReduceMean", ["x", "a"], "y", {})], {"a": i64(-1, -2)}, N, 18, "AdaptiveAvgPool2d"),
    "concat": ([RELU, ("Concat", ["x", "r", "x"], "y", {"axis": 1})], {}, N, 7, "ReLU"),
    "concat from behind": ([RELU, ("Concat", ["x", "r"], "y", {"axis": -3})], {}, N, 13, "ReLU"),
    "add": ([RELU, ("Add", ["x", "r"], "y", {})], {}, N, 7, "ReLU"),
    "sum": ([RELU, ("Sum", ["x", "r", "x"], "y", {})], {}, N, 8, "ReLU"),
    "relu, leaky": ([("LeakyRelu", ["x"], "y", {})], {}, N, 7, "LeakyReLU"),
    "clip from 0": ([("Clip", ["x"], "y", {"min": 0.0})], {}, N, 7, "ReLU"),
    "clip to 0 … 6": ([("Clip", ["x", "a", "b"], "y", {})], {"a": np.float32(0), "b": np.float32(6)}, N, 13, "ReLU6"),
    "clip of old": ([("Clip", ["x"], "y", {"min": 0.0, "max": 6.0})], {}, N, 7, "ReLU6"),
    "sigmoid": ([("Sigmoid", ["x"], "t", {}), ("Tanh", ["t"], "y", {})], {}, N, 7, "Sigmoid Tanh"),
    "softmax": ([("Softmax", ["x"], "y", {"axis": 1})], {}, N, 13, "Softmax"),
    "softmax along the last": ([("LogSoftmax", ["x"], "y", {})], {}, N, 13, "LogSoftmax"),
    "softmax of old": ([("Flatten", ["x"], "f", {}), ("Softmax", ["f"], "y", {})], {}, N, 11, "Flatten Softmax"),
    "dropout of old": ([("Dropout", ["x"], "y", {"ratio": 0.25})], {}, N, 7, "Dropout"),
    "dropout": ([("Dropout", ["x", "p"], "y", {})], {"p": np.float32(0.2)}, N, 13, "Dropout"),
    "identity": ([("Identity", ["x"], "y", {})], {}, N, 13, "Identity"),
    "flatten": ([("Flatten", ["x"], "y", {"axis": -3})], {}, N, 13, "Flatten"),
    "reshape (0, -1)": ([("Reshape", ["x", "s"], "y", {})], {"s": i64(0, -1)}, ("N", 2, "H", "W"), 13, "Flatten"),
    "reshape (-1, K)": ([("Reshape", ["x", "s"], "y", {})], {"s": i64(-1, 112)}, N, 13, "Flatten"),
    "reshape (0, K)": ([("Reshape", ["x", "s"], "y", {})], {"s": i64(0, 112)}, N, 13, "Flatten"),
    "reshape by the size": ([("Shape", ["x"], "n", {}), ("Gather", ["n", "i"], "k", {"axis": 0}),
                             ("Unsqueeze", ["k"], "u", {"axes": [0]}),
                             ("Concat", ["u", "m"], "s", {"axis": 0}), ("Reshape", ["x", "s"], "y", {})],
                            {"i": np.array(0), "m": i64(-1)}, ("N", 2, "H", "W"), 11, "Flatten"),
    "every other cell": ([("Slice", ["x", "b", "e", "a", "s"], "y", {})], {
        "b": i64(0, 0), "e": i64((1 << 63) - 1, (1 << 63) - 1), "a": i64(-1, 2), "s": i64(3, 2)}, N, 13, "AvgPool2d"),
    "pad": ([("Pad", ["x", "p", "v"], "y", {})], {"p": i64(0, 0, 1, 0, 0, 0, 2, 1), "v": np.float32(1.5)}, N, 13, "Pad"),
    "pad of old, channels": ([("Pad", ["x"], "y", {"pads": [0, 1, 1, 0, 0, 0, 2, 1], "value": 0.5})], {}, N, 7, "Pad"),
    "pad by reflection": ([("Pad", ["x", "p"], "y", {"mode": "reflect"})], {"p": i64(0, 0, 0, 2, 0, 0, 0, 1)}, N, 13, "Pad"),
    "pad by the edge": ([("Pad", ["x", "p"], "y", {"mode": "edge"})], {"p": i64(0, 0, 1, 2, 0, 0, 2, 1)}, N, 13, "Pad"),
    "resize": ([("Resize", ["x", "", "f"], "y", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"})],
               {"f": np.array([1, 1, 2, 3], np.float32)}, N, 13, "Upsample"),
    "resize, defaults": ([("Resize", ["x", "", "f"], "y", {})], {"f": np.array([1, 1, 2, 3], np.float32)}, N, 13, "Upsample"),
    "resize linear": ([("Resize", ["x", "", "f"], "y", {"mode": "linear"})], {"f": np.array([1, 1, 2, 2.5], np.float32)}, N, 13,
                      "Upsample"),
    "resize, corners": ([("Resize", ["x", "", "f"], "y", {"mode": "linear", "coordinate_transformation_mode": "align_corners"})],
                        {"f": np.array([1, 1, 2, 3], np.float32)}, N, 13, "Upsample"),
    "resize to sizes": ([("Resize", ["x", "", "", "n"], "y", {"mode": "linear"})], {"n": i64(2, 2, 9, 5)}, (2, 2, 7, 8), 13,
                        "Upsample"),
    "resize, stretched": ([("Resize", ["x", "", "f"], "y", {"mode": "linear", "keep_aspect_ratio_policy": "stretch"})],
                          {"f": np.array([1, 1, 2, 3], np.float32)}, N, 18, "Upsample"),
    "squeeze, one after the other": ([("GlobalAveragePool", ["x"], "g", {}), ("Squeeze", ["g", "l"], "s", {}),
                                      ("Squeeze", ["s", "k"], "y", {})], {"l": i64(-1), "k": i64(2)}, (3, 2, 7, 8), 13,
                                     "AdaptiveAvgPool2d Flatten Flatten"),
    "reshape of maps to vectors": ([("Relu", ["x"], "r", {}), ("Reshape", ["r", "s"], "y", {})], {"s": i64(0, 0, -1)}, N, 13,
                                   "ReLU Flatten"),
    "reshape without zeros": ([("Reshape", ["x", "s"], "y", {"allowzero": 1})], {"s": i64(-1, 112)}, N, 14, "Flatten"),
    "upsample": ([("Upsample", ["x", "f"], "y", {"mode": "nearest"})], {"f": np.array([1, 1, 2, 3], np.float32)}, N, 9,
                 "Upsample"),
    "weights by a node": ([("Constant", [], "w", {"value": onnx.numpy_helper.from_array(W)}), ("Conv", ["x", "w"], "y", {})], {},
                          N, 13, "Conv2d"),
    "a branch that leads nowhere": ([("Sigmoid", ["x"], "dead", {}), ("Relu", ["x"], "y", {})], {}, N, 13, "ReLU"),
}  # fmt: skip
@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str, tmp_path: Path) -> None:
    nodes, constants, shape, opset, kinds = OPERATORS[name]
    path = write(tmp_path / "net.onnx", nodes, constants, shape, opset)
    model = from_onnx(path)
    found = [model] if not isinstance(model, nn.Container) else [m for _, m in model.layers() if not isinstance(m, nn.Container)]
    assert [type(layer).__name__ for layer in found] == kinds.split()
    size = [dict(zip("NHW", (3, 6, 5), strict=True)).get(n, n) for n in shape]
    x = 4 * f32(9, *size)
    close(model(x), run(path, x), name)


def test_parameters_of_training_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", OPERATORS["batch norm"][0], STATS, N, 9)
    (norm,) = [layer for _, layer in from_onnx(path).layers() if isinstance(layer, nn.BatchNorm2d)]
    assert norm.momentum == pytest.approx(0.2) and norm.eps == pytest.approx(1e-3)
    path = write(tmp_path / "net.onnx", OPERATORS["dropout"][0], {"p": np.float32(0.2)}, N)
    assert [layer.p for _, layer in from_onnx(path).layers() if isinstance(layer, nn.Dropout)] == [0.2]


EXPORTED = {name: net for name, net in torch_nets.NETS.items() if name not in ("functions", "alexnet", "option a")}
EXPORTED["cifar resnet"] = TWINS["cifar_resnet20"], (2, 3, 16, 17)


@pytest.mark.parametrize(("name", "opset"),
                         [(name, opset) for name in EXPORTED for opset in (9, 17) if opset > 9 or name != "cifar resnet"])
def test_networks_that_pytorch_has_exported(name: str, opset: int, tmp_path: Path) -> None:
    """Without those for which it fails, or writes LRN and odd paddings as arithmetic on shapes, which is not supported."""
    make, shape = EXPORTED[name]
    module, path = torch_nets.drawn(make).float(), tmp_path / "net.onnx"
    x = f32(1, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                         # the exporter that needs no further package is deprecated
        torch.onnx.export(
            module, (torch.from_numpy(x),), path, dynamo=False, opset_version=opset, input_names=["x"],
            dynamic_axes={"x": {0: "N"}} if opset == 17 else None, do_constant_folding=opset == 17,
        )
    model = from_onnx(path)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    close(model(x), expected)
    close(run(path, x), expected)
    ours = {path for path, layer in from_torch(module).layers() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    assert {path for path, layer in model.layers() if isinstance(layer, (nn.Conv2d, nn.Linear))} == ours or name == "shared"


@pytest.mark.parametrize("name", EXPORTED)
def test_networks_of_the_default_exporter(name: str, tmp_path: Path) -> None:
    """It needs a further package; what its files have besides is in OPERATORS."""
    pytest.importorskip("onnxscript")
    make, shape = EXPORTED[name]
    module, path, x = torch_nets.drawn(make).float(), tmp_path / "net.onnx", torch.from_numpy(f32(1, *shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), path, verbose=False)
    with torch.no_grad():
        close(from_onnx(path)(x.numpy()), module(x).numpy())


def test_a_layer_that_is_used_twice_stays_one(tmp_path: Path) -> None:
    nodes = [("Conv", ["x", "a.weight", "b"], "c", {}), ("Relu", ["c"], "r", {}), ("Conv", ["r", "a.weight", "b"], "y", {})]
    model = from_onnx(write(tmp_path / "net.onnx", nodes, {"a.weight": f32(1, 2, 2, 1, 1), "b": f32(2, 2)}, N))
    assert model.layer("a") is model.layer("a_1") and set(model.named_parameters()) == {"a.weight", "a.bias"}


MATMUL, SECOND = ("MatMul", ["x", "w.weight"], "a", {}), ("MatMul", ["r", "w.weight"], "d", {})
BETWEEN = ("Relu", ["b"], "r", {})


@pytest.mark.parametrize(("nodes", "layers"), [
    ([MATMUL, ("Add", ["a", "p"], "b", {}), BETWEEN, ("MatMul", ["r", "w.weight"], "y", {})], 2),
    ([("MatMul", ["x", "w.weight"], "b", {}), BETWEEN, SECOND, ("Add", ["p", "d"], "y", {})], 2),
    ([MATMUL, ("Add", ["a", "p"], "b", {}), BETWEEN, SECOND, ("Add", ["d", "q"], "y", {})], 2),
    ([MATMUL, ("Add", ["a", "p"], "b", {}), BETWEEN, SECOND, ("Add", ["d", "p"], "y", {})], 1),
    ([("Gemm", ["x", "w.weight"], "a", {}), ("Add", ["a", "p"], "b", {}), BETWEEN, ("Gemm", ["r", "w.weight"], "y", {})], 2),
    ([("Gemm", ["x", "w.weight"], "b", {}), BETWEEN, ("Gemm", ["r", "w.weight", "p"], "y", {})], 2),
], ids=["bias, none", "none, bias", "two biases", "one bias", "gemm: bias, none", "gemm: none, bias"])  # fmt: skip
def test_a_bias_belongs_to_the_product_that_it_is_added_to(nodes: list[Any], layers: int, tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", nodes, {"w.weight": f32(1, 4, 4), "p": f32(2, 4), "q": f32(3, 4)}, ("N", 4))
    model, x = from_onnx(path), f32(4, 3, 4)
    close(model(x), run(path, x))
    found = [layer for _, layer in model.layers() if isinstance(layer, nn.Linear)]
    assert len(found) == 2 and len(set(map(id, found))) == layers
    weights = [layer.weight for layer in found]
    assert layers == 1 or not np.shares_memory(*weights), "each learns for itself"


@pytest.mark.parametrize("factor", [1.3, 0.7, 0.6, 1.1, 1 / 3, 2 / 3, 2.7, 1.05, 1 / 7, 0.123456789])
def test_a_factor_of_float32_gives_the_cells_that_pytorch_takes(factor: float, tmp_path: Path) -> None:
    """In one dimension: in two PyTorch takes the cells as they are where rounding down leaves their number."""
    node = ("Resize", ["x", "", "f"], "y", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"})
    path = write(tmp_path / "net.onnx", [node], {"f": np.array([1, 1, factor], np.float32)}, ("N", 1, "L"))
    model = from_onnx(path)
    for n in range(9, 60):
        x = np.arange(n, dtype=np.float32)[None, None]
        expected = torch.nn.functional.interpolate(torch.from_numpy(x), scale_factor=factor).numpy()
        np.testing.assert_array_equal(model(x), expected, err_msg=str(n))
        assert run(path, x).shape == expected.shape


@given(drawn=layers(2))
@settings(max_examples=25)
def test_what_is_written_is_read_back(drawn: tuple[nn.Layer, int], tmp_path_factory: pytest.TempPathFactory) -> None:
    model = single(drawn[0])
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    to_onnx(model, path, (2, 3, 2))
    again = from_onnx(path)
    x = f32(0, 2, 2, 3, 2)
    y = model(x)
    close(again(x), y)
    close(run(path, x), y)
    if leaves(model):
        assert [path for path, _ in leaves(again)] == [path for path, _ in leaves(model)]


def test_a_trained_model_is_read_back_with_what_it_is(tmp_path: Path) -> None:
    model = trained()
    plain = model._replace(model=nn.Sequential({name: child for name, child in model.model.named_children() if name != "groups"}))
    to_onnx(plain, tmp_path / "net.onnx")
    read = read_onnx(tmp_path / "net.onnx")
    assert read.classes == ["cat", "dog"] and read.preprocessing == model.preprocessing and read.input_size == (3, 32, 32)
    x = f32(0, 2, 3, 32, 32)
    close(read.model(x), plain.model(x))
    theirs = {name: x for name, x in plain.model.state_dict().items() if not name.endswith("tracked")}
    assert set(theirs) <= set(read.model.state_dict())
    other = read_onnx(write(tmp_path / "net.onnx", [RELU, ("Relu", ["r"], "y", {})], {}, N))
    assert other.classes is None and other.preprocessing is None and other.input_size == (2, 7, 8)


def test_what_tinynet_writes_and_does_not_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for layer in (
        nn.AdaptiveAvgPool2d((5, 3)), nn.Upsample(size=(9, 11)), nn.AvgPool2d(2, divisor_override=3), nn.Pad((1,) * 4, "circular")
    ):
        to_onnx(nn.Sequential(nn.ReLU(), layer), path, (2, 7, 8))
        assert refused(path).endswith("; tinynet wrote it for others to read: load what it was written from")
    to_onnx(nn.Sequential(nn.ReLU(), nn.Flatten(2)), path, (2, 7, 8))
    close(from_onnx(path)(f32(1, 3, 2, 7, 8)), run(path, f32(1, 3, 2, 7, 8)))


# What is refused.


def refused(path: Path) -> str:
    """The one line."""
    with pytest.raises(FileError) as caught:
        from_onnx(path)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"{path}: "), line
    return line.removeprefix(f"{path}: ")


REFUSED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "an operator": ([("Erf", ["x"], "y", {})], {}, r"not supported: Erf \(y\)"),
    "all at once": ([("Erf", ["x"], "a", {}), ("Erf", ["a"], "b", {}), ("GRU", ["b"], "c", {}), ("Softmax", ["c"], "y", {})], {},
                    "not supported: Erf (a, b); GRU (c)"),
    "many": ([("Erf", [f"v{i}" if i else "x"], f"v{i + 1}", {}) for i in range(9)] + [("Relu", ["v9"], "y", {})], {},
             "and 6 more"),
    "a multiplication": ([("Mul", ["x", "c"], "y", {})], {"c": np.float32(2)}, "Mul (y)"),
    "an addition of a constant": ([("Relu", ["x"], "r", {}), ("Add", ["r", "c"], "y", {})], {"c": np.float32(2)},
                                  "Add of a constant"),
    "concat of another axis": ([RELU, ("Concat", ["x", "r"], "y", {"axis": 2})], {},
                               "Concat along axis 2; expected 1, the channels"),
    "an unknown option": ([("Relu", ["x"], "y", {"slope": 2})], {}, "Relu with slope=2"),
    "training": ([("BatchNormalization", ["x", "s", "b", "m", "v"], "y", {"training_mode": 1})], STATS,
                 "training_mode=1; expected 0"),
    "even lrn": ([("LRN", ["x"], "y", {"size": 4})], {}, "LRN with an even size, 4"),
    "a reshape": ([("Reshape", ["x", "s"], "y", {})], {"s": i64(0, 7, -1)}, r"Reshape to [0, 7, -1]; expected (N, all the rest)"),
    "a reshape that mixes images": ([("Reshape", ["x", "s"], "y", {})], {"s": i64(-1, 56)}, "Reshape to [-1, 56]"),
    "a reshape to one image": ([("Reshape", ["x", "s"], "y", {})], {"s": i64(1, -1)}, "Reshape to [1, -1]"),
    "a reshape to nothing": ([("Reshape", ["x", "s"], "y", {"allowzero": 1})], {"s": i64(0, -1)},
                             "Reshape with allowzero=1; expected 0"),
    "a resizing to another number of channels": ([("Resize", ["x", "", "", "n"], "y", {})], {"n": i64(2, 4, 9, 5)},
                                                 "Resize without scales, or fixed sizes"),
    "a resizing that keeps its aspect": ([("Resize", ["x", "", "f"], "y", {"keep_aspect_ratio_policy": "not_larger"})],
                                         {"f": np.array([1, 1, 2, 2], np.float32)},
                                         "Resize with keep_aspect_ratio_policy=not_larger; expected stretch"),
    "arithmetic on shapes": ([("Shape", ["x"], "s", {}), ("Neg", ["s"], "n", {}), ("Relu", ["x"], "y", {})], {},
                             "Neg of a shape (n)"),
    "half precision": ([("Conv", ["x", "w"], "y", {})], {"w": W.astype(np.float16)},
                       "weights of float16; expected float32 or float64"),
    "weights that are computed": ([("Conv", ["x", "x"], "y", {})], {}, "weights that are not constants"),
    "a bridge": ([("Relu", ["x"], "a", {}), ("Tanh", ["x"], "b", {}), ("Add", ["a", "b"], "m", {}), ("Sigmoid", ["m"], "d", {}),
                  ("Tanh", ["a"], "c", {}), ("Concat", ["c", "d"], "y", {"axis": 1})], {}, "not series-parallel: branches share"),
    "bad groups": ([("Conv", ["x", "w"], "y", {"group": 3})], {"w": W}, "Conv"),
    "no groups": ([("Conv", ["x", "w"], "y", {"group": 0})], {"w": W}, "group 0"),
    "a kernel that is not the weight's": ([("Conv", ["x", "w"], "y", {"kernel_shape": [2, 2]})], {"w": W}, "kernel_shape (2, 2)"),
    "strides of nothing": ([("Conv", ["x", "w"], "y", {"strides": [0, 1]})], {"w": W}, "Conv"),
    "pads of less than nothing": ([("Conv", ["x", "w"], "y", {"pads": [0, -1, 0, 0]})], {"w": W}, "[0, -1, 0, 0]"),
    "statistics that do not fit": ([("BatchNormalization", ["x", "s", "b", "m", "v"], "y", {})], {**STATS, "v": f32(1, 3)},
                                   "weight (3,)"),
    "a pool without a kernel": ([("MaxPool", ["x"], "y", {})], {}, "kernel_shape None"),
    "a slice": ([("Slice", ["x", "b", "e", "a"], "y", {})], {"b": i64(0), "e": i64(2), "a": i64(2)}, "Slice other than"),
    "bicubic": ([("Resize", ["x", "", "f"], "y", {"mode": "cubic"})], {"f": np.array([1, 1, 2, 2], np.float32)}, "mode=cubic"),
    "what nothing makes": ([("Relu", ["z"], "y", {})], {}, "damaged: y takes z, which nothing before it makes"),
    "a circle": ([("Relu", ["b"], "a", {}), ("Relu", ["a"], "b", {}), ("Relu", ["b"], "y", {})], {}, "damaged: a takes b"),
    "made twice": ([("Relu", ["x"], "y", {}), ("Tanh", ["x"], "y", {})], {}, "damaged: y is made twice"),
    "no output": ([("Relu", ["x"], "z", {})], {}, "the output y is made by nothing"),
    "not of the input": ([("Relu", ["x"], "r", {}), ("Constant", [], "y", {"value_float": 1.0})], {}, "y is made by nothing"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, tmp_path: Path) -> None:
    nodes, constants, words = REFUSED[name]
    line = refused(write(tmp_path / "net.onnx", nodes, constants, N))
    assert words.replace("\\", "") in line, line


def test_a_name_in_a_file_drives_no_terminal(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Foo", ["x"], ["y"], name="evil\x1b[2J\x07\nsecond")
    infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, N) for name in ("x", "y")]
    graph = onnx.helper.make_graph([node], "net", infos[:1], infos[1:])
    (tmp_path / "net.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    assert refused(tmp_path / "net.onnx") == r"not supported: Foo (evil\x1b[2J\x07\nsecond)"


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    assert "no such file" in refused(path)
    assert "a folder" in refused(tmp_path)
    for contents in (b"", b"\x00", b"PK\x03\x04" + bytes(100), b"{}", os.urandom(1000), b"\x0a" * 50, b"\xff" * 50):
        path.write_bytes(contents)
        assert "not an ONNX file" in refused(path) or "opset" in refused(path)
    assert refused(write(path, [RELU, ("Relu", ["r"], "y", {})], {}, N, 6)) == "opset 6; expected 7 or newer"
    node = onnx.helper.make_node("Relu", ["x"], ["y"], domain="com.microsoft")
    value = onnx.helper.make_tensor_value_info
    for inputs, words in ((["x"], "Relu of com.microsoft"), (["x", "z"], "2 inputs and 1 outputs")):
        infos = [value(name, onnx.TensorProto.FLOAT, N) for name in inputs]
        graph = onnx.helper.make_graph([node], "net", infos, [value("y", onnx.TensorProto.FLOAT, None)])
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
        assert words in refused(path)


def model_bytes(folder: Path) -> bytes:
    to_onnx(single(nn.Sequential(
        conv=nn.Conv2d(2, 3, 3), relu=nn.ReLU(), res=nn.Residual(nn.Conv2d(3, 3, 1)), pool=nn.MaxPool2d(2), flatten=nn.Flatten(),
        drop=nn.Dropout(), fc=nn.Linear(27, 2),
    )), folder / "whole.onnx", (2, 8, 8))  # fmt: skip
    return (folder / "whole.onnx").read_bytes()


def test_a_file_that_is_cut_off_is_refused_and_damage_is_one_line(tmp_path: Path) -> None:
    whole, path = model_bytes(tmp_path), tmp_path / "net.onnx"
    for end in range(0, len(whole) - 40, 23):
        path.write_bytes(whole[:end])
        refused(path)
    rng, spoilt = np.random.default_rng(0), 0
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        try:
            from_onnx(path)
        except FileError as error:
            spoilt += 1
            assert "\n" not in str(error) and str(error).startswith(str(path))
    assert spoilt > 50


def outside(folder: Path, **where: str) -> Path:
    """A file whose weights lie elsewhere."""
    path = write(folder / "net.onnx", [("Conv", ["x", "w"], "y", {})], {"w": W}, N)
    proto = onnx.load(path)
    (tensor,) = proto.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in where.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(proto.SerializeToString())
    return path


def test_weights_beside_the_file_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (folder / "net.data", tmp_path / "secret"):
        place.write_bytes(b"1234" + W.tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "sub").mkdir()
    path = outside(folder, location="net.data", offset="4", length=str(W.nbytes))
    x = f32(0, 1, 2, 7, 8)
    close(from_onnx(path)(x), run(path, x))
    for location in ("../secret", str(tmp_path / "secret"), "link", "sub", "..", ".", "", "missing", "sub/../net.data", "a\0b"):
        line = refused(outside(folder, location=location, offset="4", length=str(W.nbytes)))
        assert "expected a file of that name beside this one" in line
    assert "ends before" in refused(outside(folder, location="net.data", offset="4", length=str(1 << 63)))
    assert "ends before" in refused(outside(folder, location="net.data", offset="-4"))
    assert "damaged" in refused(outside(folder, location="net.data", offset="4", length="8"))
    assert "damaged" in refused(outside(folder, location="net.data", offset="four"))


def test_sizes_that_no_memory_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", [("Conv", ["x", "w"], "y", {})], {"w": W}, N)
    proto = onnx.load(path)
    proto.graph.initializer[0].dims[0] = 1 << 62
    path.write_bytes(proto.SerializeToString())
    assert "damaged" in refused(path)
    same = [("Conv", ["x", "w"], "y", {"auto_pad": "SAME_UPPER", "strides": [2, 2]})]
    for size in (1 << 40, "size"):
        line = refused(write(path, same, {"w": W}, ("N", 2, size, size)))
        assert "of unknown size, since the file leaves that of the input open" in line
    for before in (
        ("Resize", ["x", "", "f"], "l", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
        ("Pad", ["x", "p"], "l", {}), ("Conv", ["x", "w"], "l", {"pads": [1 << 40, 0, 1 << 40, 0]}),
    ):  # fmt: skip
        constants = {"w": f32(1, 2, 2, 3, 2), "f": np.array([1, 1, 1e6, 1e6], np.float32), "p": i64(0, 0, 1 << 40, 0, 0, 0, 0, 0)}
        assert "of too large an input" in refused(write(path, [before, ("Conv", ["l", "w"], "y", same[0][3])], constants, N))
    twice = [("Concat", [f"c{i}", f"c{i}"], f"c{i + 1}", {"axis": 0}) for i in range(60)]
    assert "a constant of 2097152 numbers" in refused(write(path, [*twice, ("Relu", ["x"], "y", {})], {"c0": i64(1)}, N))
    many = [("ConstantOfShape", ["s"], "c", {}), ("Relu", ["x"], "y", {})]
    assert "a constant of" in refused(write(path, many, {"s": i64(1 << 40, 1 << 40)}, N))
    wide = [("MaxPool", ["x"], "y", {"kernel_shape": [1 << 60, 1 << 60], "strides": [1, 1]})]
    with pytest.raises(TinynetError):
        from_onnx(write(path, wide, {}, N))(f32(0, 1, 2, 7, 8))


def test_a_very_deep_graph_is_one_line(tmp_path: Path) -> None:
    nodes: list[Any] = []
    for i in range(1000):                                       # every sum reaches back to the input: as many in one another
        nodes += [("Relu", [f"s{i - 1}" if i else "x"], f"r{i}", {}), ("Tanh", ["x"], f"t{i}", {}),
                  ("Add", [f"r{i}", f"t{i}"], f"s{i}", {})]
    nodes[-1] = (*nodes[-1][:2], "y", {})
    assert "more joins within one another than can be followed" in refused(write(tmp_path / "net.onnx", nodes, {}, N))


def test_randomised_weights_are_not_touched(tmp_path: Path) -> None:
    model = randomise(nn.Sequential(fc=nn.Linear(3, 2))).to(dtype=np.float32)
    to_onnx(model, tmp_path / "net.onnx", (3,))
    again = from_onnx(tmp_path / "net.onnx")
    for name, x in again.named_parameters().items():
        assert x.flags.writeable and x.flags.c_contiguous and x.dtype == np.float32
        np.testing.assert_array_equal(x, model.named_parameters()[name])
