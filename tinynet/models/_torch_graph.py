"""What torch.fx has seen, as a neutral graph (graph.py): modules and calls become layers and joins."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from ..errors import ArgumentError, TinynetError
from ..nn import AdaptiveAvgPool2d, AvgPool2d, Concat, Flatten, Identity, Layer, Residual
from ._torch_layers import ALIASES, FUNCTIONS, converter
from ._torch_trace import Root, Tracer, looking
from .graph import Graph, Node, Refused, axes_after

_CAT, _ADD = ("cat", "concat", "concatenate"), ("add", "add_", "iadd")
_PLAIN = {"add_": "add", "iadd": "add", "getitem": "subsample"}
"""What a call is named after, where that is not the function."""
_WHERE = ("torch", "torch.nn.functional", "torch._C._nn", "_operator", "builtins")


def graph_of(module: torch.nn.Module) -> Graph:
    """What the module computes of one tensor. Raises ArgumentError that lists all that is not supported."""
    kind = type(module).__name__
    tracer = Tracer(module)
    with looking(module):
        try:
            traced = tracer.trace(Root(module))
        except TinynetError:
            raise
        except Exception as error:
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise ArgumentError(
                f"from_torch: {kind}: forward cannot be followed ({reason.rstrip('.')}); expected one that takes a tensor and "
                "does the same whatever is in it"
            ) from None
        reading = _Reading(tracer, traced)
    problems = tracer.problems + reading.problems
    if problems:
        raise ArgumentError(f"from_torch: {kind}: not supported: {'; '.join(dict.fromkeys(problems))}")
    return Graph(reading.input, reading.nodes, reading.output)


class _Reading:
    """fx's graph as ours."""

    def __init__(self, tracer: Tracer, traced: fx.Graph) -> None:
        self.names = tracer.names
        self.problems: list[str] = []
        self.nodes: list[Node] = []
        self.input = self.output = ""
        self.value: dict[fx.Node, str] = {}                     # what a tensor of fx is now, after changes in place
        self.storage: dict[fx.Node, fx.Node] = {}               # the tensor that it is a view of, or itself
        self.axes: dict[fx.Node, int | None] = {}               # how many it has, where that is known
        self.ones: dict[fx.Node, int] = {}                      # how many of its last axes are of one cell, where that is known
        self.sizes: dict[fx.Node, Any] = {}                     # a shape: None; one number of it, or some: which
        self.layers: dict[int, Layer] = {}                      # by module
        self.owners: dict[int, tuple[Any, Layer, str]] = {}     # by parameter: all parameters and options of its layer
        self.place = {node: i for i, node in enumerate(traced.nodes)}
        for node in traced.nodes:
            self.read(node)

    def read(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.input = self.value[node] = node.name
            self.storage[node] = node
        elif node.op == "output":
            (result,) = node.args
            if isinstance(result, fx.Node) and result in self.value:
                self.output = self.value[result]
            elif not self.problems:
                self.problems.append(f"an output that is not one tensor ({type(result).__name__})")
        elif node.op == "get_attr":
            self.problems.append(f"{str(node.target).removeprefix('module.')}: a parameter or tensor that forward uses itself")
            self.value[node], self.storage[node] = node.name, node
        elif not self.is_size(node):
            self.tensor(node)

    def is_size(self, node: fx.Node) -> bool:
        """Whether the node asks for a shape, or one number of it."""
        source: Any
        source, *rest = node.args if node.args else (None,)
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if source in self.value and name == "size" and node.op == "call_method":
            self.sizes[node] = rest[0] if rest else node.kwargs.get("dim")
        elif source in self.value and name == "getattr" and rest == ["shape"]:
            self.sizes[node] = None
        elif source in self.sizes and name == "getitem" and self.sizes[source] is None and isinstance(rest[0], (int, slice)):
            self.sizes[node] = rest[0]
        elif name == "mul" and node.args and all(isinstance(n, int) or n in self.sizes for n in node.args):
            self.sizes[node] = "a product"
        else:
            return False
        return True

    def tensor(self, node: fx.Node) -> None:
        """A node that makes a tensor of tensors."""
        name = self.called(node)
        plain = _PLAIN.get(name, name.rpartition(".")[2].strip("_"))
        path = node.meta["path"] if node.op == "call_module" else self.names(f"{node.meta['scope']}.{plain}")
        tensors = [n for n in node.all_input_nodes if n in self.value]
        steps: list[tuple[str, Any]] = []
        inplace: Any = node.kwargs.get("inplace") or (name.endswith("_") and not name.endswith("__")) or name == "iadd"
        try:
            if node.op == "call_module":
                module = node.meta["module"]
                inplace = getattr(module, "inplace", False)
                self.only(node, tensors, node.args[1:], node.kwargs)
                steps = [("", self.layer(path, module))]
                if node.args[1:] or node.kwargs.keys() - {"input"}:
                    raise Refused("called with more than its input")
            elif name in _ADD and len(tensors) == 1 and any(type(n) is int and n == 0 for n in self.operands(node)):
                steps = [("", Identity())]                      # sum([x, y]) begins with 0 + x
            elif name in _CAT or name in _ADD:
                steps = [("", self.join(node, name))]
            elif name in ("view", "reshape"):
                steps = [("", self.reshape(node))]
            elif name == "squeeze":
                steps = [("", self.squeeze(node))]
            elif name == "getitem":
                steps = [("", self.every_other(node))]
            elif name == "avg_pool2d" and self.is_whole(node):
                steps = [("", AdaptiveAvgPool2d(1))]
            elif name in FUNCTIONS:
                self.only(node, tensors, node.args[1:], node.kwargs)
                try:
                    made = FUNCTIONS[name](*node.args[1:], **{k: v for k, v in node.kwargs.items() if k != "input"})
                except TypeError:
                    raise Refused(f"with arguments {node.args[1:]} {dict(node.kwargs)}") from None
                steps = made if isinstance(made, list) else [("", made)]
            else:
                raise Refused("")
        except Refused as refusal:
            words = self.words(node) + (f" {refusal}" if str(refusal) else "")
            self.problems.append(f"{path}: {words}" if path else words)
        except TinynetError as error:
            self.problems.append(f"{path}: {error}")
        self.put(node, path, steps, tensors, bool(inplace))

    def put(self, node: fx.Node, path: str, steps: list[tuple[str, Any]], tensors: list[fx.Node], inplace: bool) -> None:
        """The node's layers into the graph, and what it changes in place."""
        inputs = self.operands(node) if steps and not isinstance(steps[0][1], Layer) else tensors[:1]
        names = [self.value[n] for n in inputs]
        result, axes = names[0] if names else node.name, next((self.axes[n] for n in tensors if self.axes.get(n)), None)
        for i, (suffix, op) in enumerate(steps):
            axes = axes_after(op, axes) if isinstance(op, Layer) else axes
            if isinstance(op, AdaptiveAvgPool2d) and op.output_size in (1, (1, 1)):
                self.ones[node] = 2
            result = node.name if i == len(steps) - 1 else f"{node.name}:{i}"
            self.nodes.append(Node(result, self.names(path + suffix) if suffix else path, op, tuple(names)))
            names = [result]
        source = tensors[0] if tensors else node
        name = self.called(node)
        view = name == "getitem" or (bool(steps) and isinstance(steps[-1][1], ALIASES) and name not in ("clone", "add"))
        self.storage[node] = self.storage.get(source, node) if inplace or view else node
        if inplace and tensors:
            before = self.value[source]
            for other, value in list(self.value.items()):
                if value == before:
                    self.value[other] = result                  # the same tensor by another name
                elif self.storage[other] is self.storage[source] and any(self.place[n] > self.place[node] for n in other.users):
                    what = self.words(node)
                    self.problems.append(f"{path}: {what} in place, while {other.name}, a view of it, is used later")
        self.value[node], self.axes[node] = result, axes

    def called(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return type(node.meta["module"]).__name__
        if isinstance(node.target, str):
            return node.target
        name = str(getattr(node.target, "__name__", node.target))
        return name if getattr(node.target, "__module__", "") in _WHERE else f"{node.target.__module__}.{name}"

    def words(self, node: fx.Node) -> str:
        """What is called, as a person would write it."""
        name = self.called(node)
        if node.op == "call_module":
            return name
        if node.op == "call_method":
            return f"Tensor.{name}"
        module = getattr(node.target, "__module__", "") or "torch"
        module = {"torch._C._nn": "torch.nn.functional", "_operator": "operator"}.get(module, module)
        return f"{module}.{name.rpartition('.')[2]}"

    def only(self, node: fx.Node, tensors: list[fx.Node], *rest: Any) -> None:
        """The node must take one tensor, its first argument, and constants."""
        found: list[Any] = []
        fx.node.map_arg(rest, found.append)
        first = node.args[0] if node.args else node.kwargs.get("input")
        if len(tensors) != 1 or first is not tensors[0] or any(n is not first for n in found):
            raise Refused("with an argument that depends on the input")

    def operands(self, node: fx.Node) -> list[Any]:
        """The tensors that a join takes, in order."""
        if self.called(node) in _CAT:
            given: Any = node.args[0] if node.args else node.kwargs["tensors"]
            return list(given) if isinstance(given, (tuple, list)) else []
        return [node.args[0] if node.args else node.kwargs["input"], *node.args[1:], *(
            [node.kwargs["other"]] if "other" in node.kwargs else [])]

    def join(self, node: fx.Node, name: str) -> Any:
        unknown = node.kwargs.keys() - ({"tensors", "dim", "axis"} if name in _CAT else {"input", "other", "alpha"})
        if unknown:
            raise Refused(f"with {min(unknown)}=")
        operands = self.operands(node)
        if name in _CAT:
            dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
            axes: Any = next((self.axes[n] for n in operands if self.axes.get(n)), None)
            if dim != 1 and (axes is None or dim % axes != 1):
                raise Refused(f"along axis {dim}; expected axis 1, the channels")
        elif node.kwargs.get("alpha", 1) != 1:
            raise Refused(f"with alpha={node.kwargs['alpha']}")
        if len(operands) < 1 + (name in _ADD) or any(not isinstance(n, fx.Node) or n not in self.value for n in operands):
            raise Refused("of something that is no tensor")
        return Concat if name in _CAT else Residual

    def reshape(self, node: fx.Node) -> Layer:
        """Flatten: view(n, -1), view(n, K) with K a number or made of sizes, and, before Linear layers of K inputs, (-1, K)."""
        given: Any = node.args[1:] or (node.kwargs.get("shape", node.kwargs.get("size")),)
        if len(given) == 1 and isinstance(given[0], (tuple, list)):
            given = tuple(given[0])
        if len(given) == 2:
            batch, features = given
            if self.sizes.get(batch) == 0 and (isinstance(features, int) or features in self.sizes):
                return Flatten()                                # features that are not all the rest are an error in PyTorch
            if batch == -1 and isinstance(features, int) and self.feeds(node, features):
                return Flatten()
        raise Refused(f"to {given}; expected (x.size(0), -1), or write flatten(1)")

    def squeeze(self, node: fx.Node) -> Layer:
        """Flatten: squeeze(-1), squeeze((2, 3)) of what a pooling to one cell has left."""
        source: Any = node.args[0] if node.args else node.kwargs["input"]
        given: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        ones, dims = self.ones.get(source, 0), given if isinstance(given, (tuple, list)) else [given]
        if not all(isinstance(d, int) and d % (2 + ones) >= 2 for d in dims):
            raise Refused(f"of {'all axes' if given is None else f'axes {given}'}; expected (2, 3) behind a pooling to one cell")
        self.ones[node] = left = ones - len(dims)
        return Flatten(1 + left, 1 + ones)

    def every_other(self, node: fx.Node) -> Layer:
        """x[:, :, ::2, ::2] is a pooling of windows of one cell."""
        index: Any = node.args[1]
        whole = slice(None, None, None)
        slices = isinstance(index, tuple) and len(index) == 4 and all(isinstance(i, slice) for i in index)
        if not slices or index[:2] != (whole, whole) or any(i.start not in (None, 0) or i.stop is not None for i in index[2:]):
            raise Refused("other than x[:, :, ::2, ::2]")
        return AvgPool2d(1, [1 if i.step is None else i.step for i in index[2:]])

    def is_whole(self, node: fx.Node) -> bool:
        """Whether the windows of a pooling are all the maps: avg_pool2d(x, x.shape[2:])."""
        kernel: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("kernel_size")
        plain = len(node.args) <= 2 and set(node.kwargs) <= {"input", "kernel_size"}
        if isinstance(kernel, (tuple, list)) and all(isinstance(n, fx.Node) and n in self.sizes for n in kernel):
            sizes = list(kernel)
            which = [self.sizes[n] for n in kernel] in ([2, 3], [-2, -1])
        elif isinstance(kernel, fx.Node) and kernel in self.sizes:
            sizes = [kernel]
            which = self.sizes[kernel] in (slice(2, None, None), slice(-2, None, None))
        else:
            return False
        return plain and which and all(self.measured(n) is node.args[0] for n in sizes)

    def measured(self, node: fx.Node) -> fx.Node:
        """The tensor whose size this is."""
        source: Any = node.args[0]
        return self.measured(source) if source in self.sizes else source

    def feeds(self, node: fx.Node, features: int) -> bool:
        """Whether the tensor goes, but for elementwise layers, to Linear layers of that many inputs and nowhere else."""
        for user in node.users:
            if user.op == "call_module" and isinstance(user.meta["module"], torch.nn.Linear):
                if user.meta["module"].in_features != features:
                    return False
            elif self.called(user) not in ("Dropout", "dropout", "ReLU", "relu", "relu_") or not self.feeds(user, features):
                return False
        return bool(node.users)

    def layer(self, path: str, module: Any) -> Layer:
        """The module as a layer with a copy of its arrays; the same for the same module, or one with the same parameters."""
        if id(module) in self.layers:
            return self.layers[id(module)]
        convert = converter(module)
        if convert is None:
            raise Refused("")
        layer = convert(module)
        own = {name: p for name, p in module.named_parameters() if p is not None}
        mark = (type(layer), repr(layer), tuple((name, id(p)) for name, p in own.items()))
        for name, p in own.items():
            if id(p) in self.owners:
                other, twin, at = self.owners[id(p)]
                if other != mark or list(module.buffers()):
                    raise Refused(f"whose {name} is that of {at}, with other options")
                layer = twin
        if not any(id(p) in self.owners for p in own.values()):
            for name in (*layer.parameter_names, *layer.buffer_names):
                if getattr(layer, name) is not None:
                    setattr(layer, name, _array(name, getattr(module, name)))
        self.layers[id(module)] = layer
        self.owners.update({id(p): (mark, layer, path) for p in own.values()})
        return layer


def _array(name: str, tensor: Any) -> np.ndarray:
    if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype not in (torch.float32, torch.float64):
        raise Refused(f"with {name} of {str(tensor.dtype).removeprefix('torch.')}; expected float32 or float64: module.float()")
    if tensor.is_meta:
        raise Refused(f"with {name} that has no values (a meta tensor)")
    return np.array(tensor.detach().cpu().numpy(), order="C")
