"""What a layer of tinynet is in ONNX: one function a layer.

Each writes its operators, of opset 13, and returns the name of the output. Where ONNX has nothing that is exactly the layer,
it is written with constants that the layer itself works out for this size of input: a pooling or resizing is a matrix
along each axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn
from ..backend import to_host
from ..errors import ArgumentError, TinynetError
from ..functional._check import axis
from ..functional._geometry import Geometry, conv_geometry, pool_geometry
from ..nn import Layer
from ..nn.conv import _Conv, _ConvTranspose
from ..nn.layer import join
from ..nn.norm import _BatchNorm
from ..nn.pool import _MaxPool


def import_onnx(who: str) -> Any:
    """The package onnx. Raises ArgumentError that says how to get it."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ArgumentError(f'{who}: the package onnx cannot be imported ({error}); pip install "tinynet[onnx]"') from None
    return onnx


class Writer:
    """Collects the operators and constants."""

    def __init__(self) -> None:
        self._onnx = import_onnx("to_onnx")
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.problems: list[str] = []
        self._names: set[str] = {"input", "output"}
        self._written: dict[int, str] = {}                      # by layer: where its parameters are named

    def op(self, kind: str, inputs: Sequence[str], path: str, suffix: str = "", **attributes: Any) -> str:
        """An operator at that path; returns the name of its output."""
        base = name = (path or kind.lower()) + suffix
        number = 1
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def finish(self, last: str) -> None:
        """Let the value of that name be the output."""
        if last == "input":
            self.op("Identity", [last], "output")
            last = self.nodes[-1].name
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == last:
                        names[i] = "output"

    def constant(self, name: str, array: Any) -> str:
        """A constant under that name; numbers with a point become float32."""
        x = np.array(to_host(array) if hasattr(array, "shape") else array)
        x = np.ascontiguousarray(x, np.float32 if x.dtype.kind == "f" else np.int64).reshape(x.shape)
        if name not in self.initializers:
            self.initializers[name] = self._onnx.numpy_helper.from_array(x, name)
        return name

    def parameters(self, layer: Layer, path: str, *names: str) -> list[str]:
        """The layer's own arrays (those that it has) as constants, once under its first path."""
        here = self.home(layer, path)
        return [self.constant(join(here, name), getattr(layer, name)) for name in names if getattr(layer, name) is not None]

    def home(self, layer: Layer, path: str) -> str:
        """The path under which the layer's arrays are named: its first."""
        return self._written.setdefault(id(layer), path)


@singledispatch
def write(layer: Layer, out: Writer, x: str, path: str, size: tuple[int, ...], new: tuple[int, ...]) -> str:
    """Write one layer; size and new are the shapes of its input and output for one image."""
    raise NotImplementedError


def _plain(kind: str, **attributes: Callable[[Any], Any]) -> Callable[..., str]:
    """One operator of that kind, with attributes that are read off the layer."""
    return lambda layer, out, x, path, size, new: out.op(kind, [x], path, **{k: read(layer) for k, read in attributes.items()})


write.register(nn.ReLU)(_plain("Relu"))
write.register(nn.LeakyReLU)(_plain("LeakyRelu", alpha=lambda layer: float(layer.negative_slope)))
write.register(nn.Sigmoid)(_plain("Sigmoid"))
write.register(nn.Tanh)(_plain("Tanh"))
write.register(nn.Softmax)(_plain("Softmax", axis=lambda layer: layer.dim))
write.register(nn.LogSoftmax)(_plain("LogSoftmax", axis=lambda layer: layer.dim))
write.register(nn.Identity)(_plain("Identity"))


@write.register
def _(layer: nn.ReLU6, out: Writer, x: str, path: str, *sizes: Any) -> str:
    low, high = (out.constant(join(path, name), value) for name, value in (("min", 0.0), ("max", 6.0)))
    return out.op("Clip", [x, low, high], path)


@write.register
def _(layer: nn.Dropout, out: Writer, x: str, path: str, *sizes: Any) -> str:
    return out.op("Dropout", [x, out.constant(join(path, "ratio"), float(layer.p))], path)


@write.register
def _(layer: nn.GroupLogSumExp, out: Writer, x: str, path: str, *sizes: Any) -> str:
    parts = []
    for number, group in enumerate(layer.groups):
        members = out.constant(join(path, f"group{number}"), group)
        part = out.op("Gather", [x, members], path, f".classes{number}", axis=1)
        parts.append(out.op("ReduceLogSumExp", [part], path, f".union{number}", axes=[1], keepdims=1))
    return out.op("Concat", parts, path, axis=1)


@write.register
def _(layer: nn.Linear, out: Writer, x: str, path: str, size: Any, new: Any) -> str:
    arrays = out.parameters(layer, path, "weight", "bias")
    if len(size) == 2:
        return out.op("Gemm", [x, *arrays], path, transB=1)
    turned = out.op("Transpose", arrays[:1], path, ".turned", perm=[1, 0])
    y = out.op("MatMul", [x, turned], path, ".product" if arrays[1:] else "")
    return out.op("Add", [y, arrays[1]], path) if arrays[1:] else y


def _windows(geometry: Geometry) -> dict[str, Any]:
    return {"kernel_shape": geometry.kernel, "strides": geometry.stride, "pads": [*geometry.low, *geometry.high]}


@write.register
def _(layer: _Conv, out: Writer, x: str, path: str, size: Any, new: Any) -> str:
    n = layer.axes
    arrays = out.parameters(layer, path, "weight", "bias")
    if isinstance(layer, _ConvTranspose):
        return out.op(
            "ConvTranspose", [x, *arrays], path, kernel_shape=layer.kernel_size, strides=layer.stride, pads=layer.padding * 2,
            dilations=layer.dilation, group=layer.groups, output_padding=layer.output_padding,
        )
    geometry = conv_geometry("to_onnx", size[-n:], layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return out.op("Conv", [x, *arrays], path, dilations=layer.dilation, group=layer.groups, **_windows(geometry))


@write.register
def _(layer: _BatchNorm, out: Writer, x: str, path: str, *sizes: Any) -> str:
    if not layer.track_running_stats:
        raise ArgumentError(f"to_onnx: {type(layer).__name__} without running statistics normalises by the batch; not supported")
    here, arrays = out.home(layer, path), []
    for name, fill in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
        own = getattr(layer, name)
        arrays.append(out.constant(join(here, name), np.full(layer.num_features, fill) if own is None else own))
    momentum = 0.9 if layer.momentum is None else 1 - layer.momentum
    return out.op("BatchNormalization", [x, *arrays], path, epsilon=float(layer.eps), momentum=float(momentum))


@write.register
def _(layer: nn.LocalResponseNorm, out: Writer, x: str, path: str, size: Any, new: Any) -> str:
    if layer.size % 2 == 0 or len(size) != 4:
        raise ArgumentError(f"to_onnx: LocalResponseNorm: expected an odd size and (N, C, H, W), got {layer.size} and {size}")
    return out.op("LRN", [x], path, size=layer.size, alpha=float(layer.alpha), beta=float(layer.beta), bias=float(layer.k))


def _rounds_up(layer: Any, n: int, size: Any, dilation: Any) -> tuple[Geometry, bool]:
    """The windows of a pooling, and whether rounding up has given it one more along some axis."""
    how = ("to_onnx", size[-n:], layer.kernel_size, layer.stride, layer.padding, dilation)
    try:
        floor = pool_geometry(*how, False)
    except TinynetError:
        floor = None
    ceil = pool_geometry(*how, layer.ceil_mode)
    return ceil, floor is None or floor.out != ceil.out


@write.register
def _(layer: _MaxPool, out: Writer, x: str, path: str, size: Any, new: Any) -> str:
    geometry, up = _rounds_up(layer, layer.axes, size, layer.dilation)
    windows = {**_windows(geometry), "pads": [*geometry.low, *geometry.low]}
    return out.op("MaxPool", [x], path, dilations=geometry.dilation, ceil_mode=int(up), **windows)


@write.register
def _(layer: nn.AvgPool1d, out: Writer, x: str, path: str, size: Any, new: Any) -> str:
    n = layer.axes
    geometry, up = _rounds_up(layer, n, size, 1)
    divisor = getattr(layer, "divisor_override", None)
    if divisor is None and not up:
        windows = {**_windows(geometry), "pads": [*geometry.low, *geometry.low]}
        return out.op("AveragePool", [x], path, count_include_pad=int(layer.count_include_pad), **windows)
    # Zeros around, plain means, and a factor at each place for what the layer divides by.
    ends = list(zip(geometry.low, geometry.high, strict=True))
    ones = np.ones((1, 1, *size[-n:]))
    wide = np.pad(ones, [(0, 0), (0, 0), *ends])
    mean = getattr(nn, f"AvgPool{n}d")(geometry.kernel, geometry.stride)(wide)
    factor = np.divide(layer(ones), mean, out=np.ones_like(mean), where=mean > 0)
    padded = _padded(out, x, path, len(size), ends, 0.0)
    # count_include_pad says nothing here; but ONNX Runtime 1.20 joins the two operators, and then it does.
    windows = {"kernel_shape": geometry.kernel, "strides": geometry.stride, "count_include_pad": 1}
    y = out.op("AveragePool", [padded], path, ".mean", **windows)
    return out.op("Mul", [y, out.constant(join(path, "factor"), factor)], path)


def _padded(out: Writer, x: str, path: str, axes: int, ends: Any, value: float) -> str:
    """x with cells (before, after) at the last axes."""
    ends = [(0, 0)] * (axes - len(ends)) + list(ends)
    pads = out.constant(join(path, "pads"), [before for before, _ in ends] + [after for _, after in ends])
    return out.op("Pad", [x, pads, out.constant(join(path, "value"), float(value))], path, ".padded", mode="constant")


def _along(out: Writer, x: str, path: str, matrices: Sequence[np.ndarray]) -> str:
    """A matrix (new, old) along each of the last axes: the last from the right, others by turning the axis there."""
    n = len(matrices)
    for number, matrix in enumerate(matrices):
        turn = [*range(2), *(2 + i for i in range(n) if i != number), 2 + number]
        back = [turn.index(i) for i in range(n + 2)]
        m = out.constant(join(path, f"matrix{number}"), np.ascontiguousarray(matrix.T))
        if number == n - 1:
            x = out.op("MatMul", [x, m], path)
        else:
            turned = out.op("Transpose", [x], path, f".turned{number}", perm=turn)
            product = out.op("MatMul", [turned, m], path, f".axis{number}")
            x = out.op("Transpose", [product], path, f".back{number}", perm=back)
    return x


@write.register
def _(layer: nn.AdaptiveAvgPool2d, out: Writer, x: str, path: str, size: Any, new: Any) -> str:
    if new[2:] == (1, 1):
        return out.op("GlobalAveragePool", [x], path)
    if all(n % m == 0 for n, m in zip(size[2:], new[2:], strict=True)):
        kernel = [n // m for n, m in zip(size[2:], new[2:], strict=True)]
        return out.op("AveragePool", [x], path, kernel_shape=kernel, strides=kernel)
    rows, columns = (
        F.adaptive_avg_pool2d(np.eye(n)[None, :, :, None], (m, 1))[0, :, :, 0].T for n, m in zip(size[2:], new[2:], strict=True)
    )
    return _along(out, x, path, (rows, columns))


@write.register
def _(layer: nn.Flatten, out: Writer, x: str, path: str, size: Any, new: Any) -> str:
    first, last = axis("to_onnx", "start_dim", layer.start_dim, len(size)), axis("to_onnx", "end_dim", layer.end_dim, len(size))
    if first == 1 and last == len(size) - 1:
        return out.op("Flatten", [x], path, axis=1)
    shape = [0] * first + [-1] + list(size[last + 1 :])         # 0: as it is
    return out.op("Reshape", [x, out.constant(join(path, "shape"), shape)], path)


@write.register
def _(layer: nn.Pad, out: Writer, x: str, path: str, size: Any, new: Any) -> str:
    ends = [(layer.pad[i], layer.pad[i + 1]) for i in range(0, len(layer.pad), 2)][::-1]
    if layer.mode == "constant":
        return _padded(out, x, path, len(size), ends, layer.value or 0.0)
    for number, (before, after) in enumerate(ends, len(size) - len(ends)):
        cells = F.pad(np.arange(size[number], dtype=np.float64)[None, None], (before, after), layer.mode)[0, 0]
        x = out.op("Gather", [x, out.constant(join(path, f"cells{number}"), cells.astype(np.int64))], path, axis=number)
    return x


@write.register
def _(layer: nn.Upsample, out: Writer, x: str, path: str, size: Any, new: Any) -> str:
    n = len(size) - 2
    mode = "linear" if layer.mode.endswith("linear") else layer.mode
    one = {1: "linear", 2: "bilinear", 3: "trilinear"}
    factors: Any = layer.scale_factor if isinstance(layer.scale_factor, (tuple, list)) else [layer.scale_factor] * n
    matrices = []
    for old, m, factor in zip(size[2:], new[2:], factors, strict=True):
        how = {"size": m} if factor is None or layer.recompute_scale_factor else {"scale_factor": factor}
        kind = one[1] if mode == "linear" else mode
        matrices.append(F.interpolate(np.eye(old)[None], mode=kind, align_corners=layer.align_corners, **how)[0].T)
    whole = all(m % old == 0 for old, m in zip(size[2:], new[2:], strict=True))
    nearest = [np.repeat(np.eye(old), m // old, axis=0) for old, m in zip(size[2:], new[2:], strict=True)]
    if mode == "linear" and whole:                              # whole factors: Resize is exactly the layer
        move = "align_corners" if layer.align_corners else "half_pixel"
        attributes = {"mode": "linear", "coordinate_transformation_mode": move}
    elif whole and all(np.array_equal(a, b) for a, b in zip(nearest, matrices, strict=True)):
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        return _along(out, x, path, matrices)
    scales = [1.0, 1.0, *(m / old for old, m in zip(size[2:], new[2:], strict=True))]
    return out.op("Resize", [x, "", out.constant(join(path, "scales"), scales)], path, **attributes)
