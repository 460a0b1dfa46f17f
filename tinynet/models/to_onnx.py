"""A tinynet model as an ONNX file: a layer is an operator of its name, and parameters keep their names.

The operators are those of opset 13 (2020), so that runtimes of nearly any age read the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import __name__ as package
from .. import nn
from ..errors import ArgumentError, FileError, TinynetError
from ..files import replacing
from ..functional._check import integer
from ..nn import Layer
from ..nn.layer import computes_plainly, join
from ..nn.split import routes_plainly
from ._onnx_writing import Writer, import_onnx, write
from .file import MODEL_KEY, TrainedModel, check_preprocessing

OPSET, IR_VERSION = 13, 7


def to_onnx(model: Layer | TrainedModel, path: str | os.PathLike[str], input_size: Sequence[int] | None = None) -> None:
    """Write the model, as it is at inference, to an ONNX file with a free batch axis.

    model: a Layer, or a TrainedModel, whose classes and preprocessing become metadata. input_size: of one input, (3, 224, 224)
    say; that of a TrainedModel is its preprocessing's. The input is "input" (N, *input_size), the output "output", both
    float32. Needs the package onnx. Raises ArgumentError that lists all layers that have no counterpart, FileError.
    """
    onnx = import_onnx("to_onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    record: dict[str, Any] = {}
    if isinstance(model, TrainedModel):
        check_preprocessing("to_onnx", model)
        crop = model.preprocessing.crop
        input_size = input_size or (model.preprocessing.channels, crop, crop)
        record = {
            "name": model.name, "classes": model.classes, "preprocessing": model.preprocessing.to_dict(), "notes": model.notes,
        }
        model = model.model
    if not isinstance(model, Layer):
        raise ArgumentError(f"to_onnx: expected a model of tinynet's, got {type(model).__name__}; tinynet.from_torch makes one")
    if not isinstance(input_size, Sequence) or not input_size:
        raise ArgumentError(f"to_onnx: expected input_size like (3, 224, 224), got {input_size}")
    input_size = [integer("to_onnx", "input_size", size, 1) for size in input_size]
    writer = Writer()
    zeros = np.zeros((1, *input_size), _dtype(model))
    name, y = _through(model, writer, "input", zeros, "")
    if writer.problems:
        raise ArgumentError(f"to_onnx: not supported: {'; '.join(writer.problems)}")
    writer.finish(name)
    graph = helper.make_graph(
        writer.nodes, "tinynet",
        [helper.make_tensor_value_info("input", kind, ["N", *input_size])],
        [helper.make_tensor_value_info("output", kind, ["N" if len(y) == 1 else None, *y.shape[1:]])],
        list(writer.initializers.values()),
    )
    made = helper.make_model(
        graph, producer_name=package, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    if record:
        helper.set_model_props(made, {MODEL_KEY: json.dumps(record)})
    try:
        contents = made.SerializeToString()
    except ValueError:
        raise FileError(f"{path}: more than 2 GB, which an ONNX file cannot hold") from None
    with replacing(path) as temporary:
        temporary.write_bytes(contents)


def _dtype(model: Layer) -> Any:
    return next((x.dtype for x in model.state_dict().values() if x.dtype.kind == "f"), np.dtype(np.float32))


def _through(layer: Layer, out: Writer, x: str, zeros: np.ndarray, path: str) -> tuple[str, np.ndarray]:
    """Write a layer whose input is named x and has the size of `zeros`; returns the same of its output."""
    if not (routes_plainly(layer) if isinstance(layer, nn.Container) else computes_plainly(layer)):
        out.problems.append(f"{path}: {type(layer).__name__}" if path else type(layer).__name__)
        return x, layer(zeros)
    if isinstance(layer, nn.Sequential):
        for name, child in layer.children():
            x, zeros = _through(child, out, x, zeros, join(path, name))
        return x, zeros
    if isinstance(layer, (nn.Concat, nn.Residual)):
        ends = [_through(child, out, x, zeros, join(path, name)) for name, child in layer.children()]
        names, arrays = [name for name, _ in ends], [y for _, y in ends]
        if isinstance(layer, nn.Concat):
            return out.op("Concat", names, path, ".cat" if path else "", axis=1), layer._join(arrays)
        total, *rest = names if len(names) > 1 else [*names, x]
        for name in rest:
            total = out.op("Add", [total, name], path, ".add" if path else "")
        return total, layer._sum(zeros, arrays)
    try:
        y = layer(zeros)
        return write(layer, out, x, path, zeros.shape, y.shape), y
    except NotImplementedError:
        out.problems.append(f"{path}: {type(layer).__name__}" if path else type(layer).__name__)
        return x, y
    except TinynetError as error:
        error.path = error.path or path
        raise
