"""A network in an ONNX file as a tinynet model. Nothing in a file is ever executed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import __name__ as package
from ..data.preprocessing import Preprocessing
from ..errors import FileError, TinynetError
from ..nn import Concat, Layer, Residual
from ._onnx_constants import FOLDED
from ._onnx_layers import OPERATORS, with_bias
from ._onnx_op import Dim, Op
from ._onnx_sizes import Sizes
from ._onnx_writing import import_onnx
from .file import MODEL_KEY
from .graph import Graph, Names, Node, Refused, axes_after, to_containers

_OLDEST = 7
_DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, ZeroDivisionError, MemoryError, StopIteration,
)
"""What reading numbers and names of a damaged file may raise."""


class OnnxModel(NamedTuple):
    """A model with what its file says about it."""

    model: Layer
    input_size: tuple[int | None, ...]
    """Of one input, (3, 224, 224) say; None where the file leaves it open."""
    classes: list[str] | None
    """None, as preprocessing, unless to_onnx has written the file and knew."""
    preprocessing: Preprocessing | None


def from_onnx(path: str | os.PathLike[str]) -> Layer:
    """The network of an ONNX file as a tinynet model, its layers named as its weights are, or as its nodes.

    The file has one input (N, …) and one output, and is made of these operators: Conv, ConvTranspose, Gemm, MatMul (with an
    Add behind it), BatchNormalization, LRN, Relu, LeakyRelu, Clip (to 0 … 6), Sigmoid, Tanh, Softmax, LogSoftmax, MaxPool,
    AveragePool, GlobalAveragePool, ReduceMean (over height and width), Concat (of channels), Add, Sum, Dropout, Identity,
    Flatten, Reshape and Squeeze (to (N, …)), Slice (as [:, :, ::2, ::2]), Pad, Resize and Upsample; opset 7 or newer; float32
    or float64. Weights may lie in another file of the same folder. Needs the package onnx. Raises FileError that lists at
    once all that is not supported, or says what is damaged.
    """
    return read_onnx(path).model


def read_onnx(path: str | os.PathLike[str]) -> OnnxModel:
    """from_onnx, and what the file says of its input, classes and preprocessing."""
    onnx, path = import_onnx("from_onnx"), Path(path)
    proto = _parse(onnx, path)
    try:
        reading = _Reading(onnx, proto, path.parent)
        problems = _together(reading.problems)
        if problems:
            own = "; tinynet wrote it for others to read: load what it was written from" if proto.producer_name == package else ""
            raise FileError(f"not supported: {problems}{own}")
        model = to_containers(Graph(reading.input, reading.nodes, reading.output))
        classes, preprocessing = _metadata(proto)
    except TinynetError as error:
        raise FileError(f"{path}: {error}") from None
    except RecursionError:
        raise FileError(f"{path}: more joins within one another than can be followed") from None
    except _DAMAGE as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"{path}: damaged, or not as ONNX has it ({words[:200]})") from None
    return OnnxModel(model, reading.input_size, classes, preprocessing)


def _parse(onnx: Any, path: Path) -> Any:
    if not os.path.isfile(path):
        raise FileError(f"{path}: {'a folder' if os.path.isdir(path) else 'no such file'}; expected an ONNX file")
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (DecodeError, *_DAMAGE):
        raise FileError(f"{path}: damaged, or not an ONNX file") from None
    if not proto.graph.node or not proto.graph.output:
        raise FileError(f"{path}: damaged, or not an ONNX file: it holds no network")
    return proto


def _metadata(proto: Any) -> tuple[list[str] | None, Preprocessing | None]:
    record = next((json.loads(item.value) for item in proto.metadata_props if item.key == MODEL_KEY), None)
    if record is None:
        return None, None
    return [str(name) for name in record["classes"]], Preprocessing.from_dict(record["preprocessing"])


def _together(problems: list[tuple[str, str]]) -> str:
    """(what, where) … as one line, the same things together."""
    places: dict[str, list[str]] = {}
    for what, where in problems:
        places.setdefault(what, []).append(where)
    lines = []
    for what, all_places in places.items():
        more = f" and {len(all_places) - 3} more" if len(all_places) > 3 else ""
        lines.append(f"{what} ({', '.join(all_places[:3])}{more})")
    return "; ".join(lines)


class _Reading:
    """The file's graph as ours."""

    def __init__(self, onnx: Any, proto: Any, folder: Path) -> None:
        self.onnx, self.folder = onnx, folder
        self.nodes: list[Node] = []
        self.problems: list[tuple[str, str]] = []
        self.constants: dict[str, Any] = {}
        self.shapes_of: dict[str, str] = {}                     # values that are the shape of a tensor
        self.axes: dict[str, int | None] = {}                   # of each tensor
        self.shared: dict[Any, Any] = {}                        # layers by operator, options and names of their weights
        graph = proto.graph
        self.opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
        if self.opset < _OLDEST:
            raise FileError(f"opset {self.opset}; expected {_OLDEST} or newer")
        for tensor in graph.initializer:
            self.constants[tensor.name] = self.array(tensor)
        inputs = [value for value in graph.input if value.name not in self.constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise FileError(f"not supported: {len(inputs)} inputs and {len(graph.output)} outputs; expected one of each")
        self.input, self.output = inputs[0].name, graph.output[0].name
        dims = inputs[0].type.tensor_type.shape.dim
        self.input_size = tuple(int(d.dim_value) if d.dim_value > 0 else None for d in dims[1:])
        self.batch = int(dims[0].dim_value) if len(dims) and dims[0].dim_value > 0 else None
        self.axes[self.input] = len(dims) or None
        dtype = next((x.dtype for x in self.constants.values() if x.dtype in (np.float32, np.float64)), np.float32)
        self.sizes = Sizes(self.input, self.input_size, dtype)
        self.uses: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                self.uses[name] = self.uses.get(name, 0) + 1
        self.names, self.containers = Names(), set[str]()
        for node in graph.node:
            parts = (_weights(node, self.constants) or _scope(node.name)[0]).split(".")
            self.containers.update(".".join(parts[:i]) for i in range(1, len(parts)))
        for node in graph.node:
            self.read(node)

    def array(self, tensor: Any) -> np.ndarray:
        """A tensor of the file, or one that lies beside it: in the same folder, and nowhere else."""
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            where = {entry.key: entry.value for entry in tensor.external_data}
            name = where.get("location", "")
            source = self.folder / name
            if not name or name in (".", "..") or re.search(r"[/\\:\0]", name) or source.is_symlink() or not source.is_file():
                raise FileError(f"the weights of {tensor.name} lie in {name!r}; expected a file of that name beside this one")
            begin, length = int(where.get("offset", 0)), int(where.get("length", -1))
            if begin < 0 or begin + max(length, 0) > source.stat().st_size:
                raise FileError(f"damaged: {name} ends before the weights of {tensor.name}")
            with open(source, "rb") as file:
                file.seek(begin)
                tensor.raw_data = file.read(length)
            tensor.data_location = self.onnx.TensorProto.DEFAULT
        return self.onnx.numpy_helper.to_array(tensor)

    def read(self, node: Any) -> None:
        kind = node.op_type
        for name in node.output:
            if name and (name in self.axes or name in self.constants or name in self.shapes_of):
                raise FileError(f"damaged: {name} is made twice")
        if not node.output:
            return
        attributes = {a.name: _value(self.onnx, a) for a in node.attribute}
        try:
            if node.domain not in ("", "ai.onnx"):
                raise Refused(f"of {node.domain}")
            if not self.constant(kind, node, attributes):
                self.tensor(kind, node, attributes)
        except Refused as refusal:
            self.refuse(node, f"{kind} {refusal}".rstrip())
        except TinynetError as error:
            self.refuse(node, f"{kind}: {error}")

    def refuse(self, node: Any, what: str) -> None:
        self.problems.append((what, node.name or node.output[0]))
        for name in node.output:
            self.axes[name] = None

    def constant(self, kind: str, node: Any, attributes: dict[str, Any]) -> bool:
        """Work out what is made of constants alone; shapes are followed as far as (N, …) needs it."""
        inputs, out = [name for name in node.input if name], node.output[0]
        if kind == "Constant":
            value = next(iter(attributes.values()))
            self.constants[out] = self.array(value) if hasattr(value, "data_type") else np.array(value)
        elif kind == "Shape" and inputs[0] in self.axes:
            self.shapes_of[out] = inputs[0]
        elif kind == "Gather" and inputs[0] in self.shapes_of and inputs[1] in self.constants:
            taken = self.constants[inputs[1]]
            self.constants[out] = np.empty(taken.shape, object)
            self.constants[out].reshape(-1)[:] = [Dim(int(i)) for i in taken.reshape(-1)]
        elif inputs and all(name in self.constants for name in inputs):
            if kind not in FOLDED:
                raise Refused("of constants")
            values = {name: self.array(value) if hasattr(value, "data_type") else value for name, value in attributes.items()}
            self.constants[out] = np.asarray(FOLDED[kind](values, *(self.constants[name] for name in inputs)))
        else:
            return False
        return True

    def tensor(self, kind: str, node: Any, attributes: dict[str, Any]) -> None:
        """An operator on tensors: nodes of ours."""
        tensors = [name for name in node.input if name and name not in self.constants]
        if any(name in self.shapes_of for name in tensors):
            raise Refused("of a shape")
        for name in tensors:
            if name not in self.axes:
                raise FileError(f"damaged: {node.name or node.output[0]} takes {name}, which nothing before it makes")
        if any(self.uses.get(name) for name in node.output[1:]):
            raise Refused("of which more than the first output is used")
        out = node.output[0]
        if kind in ("Concat", "Add", "Sum"):
            self.join(kind, node, attributes, tensors)
            return
        if kind not in OPERATORS:
            raise Refused("")
        if len(tensors) != 1 or node.input[0] != tensors[0]:
            raise Refused("with weights that are not constants" if len(tensors) > 1 else "of a constant")
        constants = [self.constants.get(name) for name in node.input]
        mark = (kind, repr(sorted(attributes.items())), tuple(node.input[1:]))
        made = self.shared.get(mark)
        if made is None:
            size = lambda: self.sizes.of(tensors[0], self.nodes)  # noqa: E731 - asked only if needed
            op = Op(kind, attributes, constants, self.opset, self.axes[tensors[0]], size, self.batch)
            made = OPERATORS[kind](op)
            op.finish()
            if isinstance(made, Layer) and made.parameter_names:    # the same weights: the same layer
                self.shared[mark] = made
        steps = made if isinstance(made, list) else [("", made)]
        path, value = self.path(node), tensors[0]
        for i, (suffix, layer) in enumerate(steps):
            name = out if i == len(steps) - 1 else f"{out}\0{i}"
            self.nodes.append(Node(name, self.names(path + suffix), layer, (value,)))
            self.axes[name] = axes_after(layer, self.axes[value])
            value = name

    def join(self, kind: str, node: Any, attributes: dict[str, Any], tensors: list[str]) -> None:
        out = node.output[0]
        if kind == "Concat":
            axes = next((self.axes[name] for name in tensors if self.axes[name]), None)
            axis = attributes.get("axis", 1)
            if axis != 1 and (axes is None or axis % axes != 1):
                raise Refused(f"along axis {axis}; expected 1, the channels")
        if len(tensors) < len(node.input):
            if kind == "Add" and len(tensors) == 1 and self.nodes and self.nodes[-1].name == tensors[0]:
                bias, last = next(name for name in node.input if name in self.constants), self.nodes[-1]
                mark = (id(last.op), bias)
                biased = self.shared.get(mark) or with_bias(last.op, self.constants[bias])
                if self.uses[tensors[0]] == 1 and biased is not None:
                    self.shared[mark] = biased
                    self.nodes[-1] = last._replace(name=out, op=biased)
                    self.axes[out] = self.axes[tensors[0]]
                    return
            raise Refused("of a constant")
        self.nodes.append(Node(out, self.names(self.path(node)), Concat if kind == "Concat" else Residual, tuple(tensors)))
        self.axes[out] = next((self.axes[name] for name in tensors if self.axes[name]), None)

    def path(self, node: Any) -> str:
        """Where the layer stands: as its weights are named, or as the node is, or as its operator."""
        weights, scope, op = _weights(node, self.constants), *_scope(node.name)
        if weights:
            return weights
        if not scope or (op and (scope in self.containers or node.op_type in ("Concat", "Add", "Sum"))):
            return f"{scope}.{op or node.op_type.lower()}"
        return scope


def _weights(node: Any, constants: Any) -> str:
    """The path that the name of the node's weights tells, if it does."""
    names = [name for name in node.input[1:] if name in constants and re.fullmatch(r"[\w.]+\.weight", name)]
    return names[0].removesuffix(".weight") if names else ""


def _scope(name: str) -> tuple[str, str]:
    """A dotted path from a node's name, and what is left of it. PyTorch's exporter writes /layer1/layer1.0/conv1/Conv where
    layer1.0.conv1 does a Conv, and /layer1/layer1.0/Add for a sum in layer1.0.
    """
    parts: list[str] = []
    pieces = [re.sub(r"[^\w.]", "_", piece) for piece in name.split("/") if piece]
    op = pieces.pop().lower() if name.startswith("/") and pieces else ""
    for piece in pieces:
        if parts and piece.startswith(parts[-1] + "."):
            parts.pop()
        parts.append(piece)
    return ".".join(parts), op


def _value(onnx: Any, attribute: Any) -> Any:
    """An attribute as a number, a string, a list of these, or a tensor."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if not isinstance(value, (int, float, str)) and not hasattr(value, "SerializeToString") else value
