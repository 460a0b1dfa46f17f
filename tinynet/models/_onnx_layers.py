"""What an ONNX operator is in tinynet: one function an operator.

Each takes an Op, asks it for its attributes and constants, and returns a layer, or several as (what is added to the name, layer).
An attribute that nobody has asked for is refused, so that no option is dropped unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import inf, prod
from typing import Any

import numpy as np

from .. import nn
from ..nn import Layer, init
from ._onnx_op import Dim, Op, numbers, padding
from .graph import Refused


def _pad(low: Sequence[int], high: Sequence[int], value: float) -> tuple[str, Layer]:
    """A layer of its own for padding that is not the same at both ends."""
    ends = [end for pair in zip(reversed(low), reversed(high), strict=True) for end in pair]
    return "_pad", nn.Pad(ends, "constant", value)


def conv(op: Op) -> Any:
    weight = op.needed(1)
    n = weight.ndim - 2
    if n not in (1, 2, 3):
        raise Refused(f"with a weight {weight.shape}")
    kernel = numbers(op.get("kernel_shape", weight.shape[2:]), n)
    stride, dilation, pads = op.windows(n)
    group = int(op.get("group", 1))
    if kernel != weight.shape[2:] or min(weight.shape) < 1 or group < 1:
        raise Refused(f"with a weight {weight.shape}, kernel_shape {kernel} and group {group}")
    turned = op.kind == "ConvTranspose"
    into, out = (weight.shape[0], weight.shape[1] * group) if turned else (weight.shape[1] * group, weight.shape[0])
    bias = op.weight(2, out)
    how: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": group, "bias": bias is not None}
    if turned:
        op.expect("auto_pad", "NOTSET")
        if op.get("output_shape") is not None or pads[:n] != pads[n:]:
            raise Refused("with output_shape, or pads that differ at the ends")
        how["output_padding"] = numbers(op.get("output_padding", [0] * n), n)
        low, high = pads[:n], pads[n:]
    else:
        low, high = padding(op, kernel, stride, dilation, pads)
    same = tuple(low) == tuple(high)
    kind = getattr(nn, f"{op.kind}{n}d")
    layer = kind(into, out, kernel, padding=tuple(low) if same else 0, rng=init.no_draws, **how)
    layer.weight, layer.bias = weight, bias
    return layer if same else [_pad(low, high, 0.0), ("", layer)]


def gemm(op: Op) -> Layer:
    op.expect("transA", 0)
    weight = op.needed(1, None, None)
    weight = weight * weight.dtype.type(op.get("alpha", 1.0))
    weight = weight if op.get("transB", 0) else np.ascontiguousarray(weight.T)
    bias, beta = op.weight(2), op.get("beta", 1.0)
    layer = _linear(weight)
    if bias is not None:
        if bias.size not in (1, len(weight)) or bias.ndim > 2 or bias.shape[:-1] not in ((), (1,)):
            raise Refused(f"with a bias {bias.shape} for {len(weight)} outputs")
        layer.bias = np.array(np.broadcast_to(bias.reshape(-1) * bias.dtype.type(beta), len(weight)))
    return layer


def _linear(weight: np.ndarray) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, rng=init.no_draws)
    layer.weight = weight
    return layer


def matmul(op: Op) -> Layer:
    return _linear(np.ascontiguousarray(op.needed(1, None, None).T))


def with_bias(layer: Any, bias: np.ndarray) -> nn.Linear | None:
    """A layer with the bias beside one that has none, if it is one number an output; the other may stand elsewhere, too."""
    if not isinstance(layer, nn.Linear) or layer.bias is not None or bias.dtype != layer.weight.dtype:
        return None
    if bias.shape[-1:] != (layer.out_features,) or bias.size != layer.out_features:
        return None
    biased = _linear(layer.weight.copy())
    biased.bias = np.array(bias.reshape(-1))
    return biased


def batch_norm(op: Op) -> Layer:
    op.expect("training_mode", 0)
    op.expect("spatial", 1)
    weight = op.needed(1, None)
    c = len(weight)
    axes = op.axes or 4
    if axes not in (2, 3, 4, 5):
        raise Refused(f"of an input with {axes} axes")
    layer = getattr(nn, f"BatchNorm{max(axes - 2, 1)}d")(
        c, float(op.get("epsilon", 1e-5)), 1 - float(op.get("momentum", 0.9)), dtype=weight.dtype
    )
    layer.weight, layer.bias = weight, op.needed(2, c)
    layer.running_mean, layer.running_var = op.needed(3, c), op.needed(4, c)
    return layer


def max_pool(op: Op) -> Any:
    op.get("storage_order")                                     # of the indices, which nobody takes
    kernel = op.get("kernel_shape")
    n = len(kernel or ())
    if n not in (1, 2, 3):
        raise Refused(f"with kernel_shape {kernel}")
    stride, dilation, pads = op.windows(n)
    low, high = padding(op, kernel, stride, dilation, pads)
    ceil = bool(op.get("ceil_mode", 0))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    plain = tuple(low) == tuple(high) and all(p <= span // 2 for p, span in zip(low, spans, strict=True))
    if not plain and ceil:
        raise Refused("with ceil_mode and pads that differ at the ends")
    layer = getattr(nn, f"MaxPool{n}d")(tuple(kernel), stride, tuple(low) if plain else 0, dilation, ceil)
    return layer if plain else [_pad(low, high, -inf), ("", layer)]


def average_pool(op: Op) -> Any:
    kernel = op.get("kernel_shape")
    n = len(kernel or ())
    if n not in (1, 2, 3):
        raise Refused(f"with kernel_shape {kernel}")
    stride, dilation, pads = op.windows(n)
    if max(dilation) > 1:
        raise Refused(f"with dilations={list(dilation)}")
    low, high = padding(op, kernel, stride, dilation, pads)
    ceil, count = bool(op.get("ceil_mode", 0)), bool(op.get("count_include_pad", 0))
    plain = tuple(low) == tuple(high) and all(p <= k // 2 for p, k in zip(low, kernel, strict=True))
    if not plain and (ceil or not count):
        raise Refused("with pads that differ at the ends and are not counted")
    layer = getattr(nn, f"AvgPool{n}d")(tuple(kernel), stride, tuple(low) if plain else 0, ceil, count)
    return layer if plain else [_pad(low, high, 0.0), ("", layer)]


def global_average_pool(op: Op) -> Layer:
    if op.axes not in (None, 4):
        raise Refused(f"of an input with {op.axes} axes; expected 4")
    return nn.AdaptiveAvgPool2d(1)


def reduce_mean(op: Op) -> Any:
    axes = op.constant(1, "axes")
    op.expect("noop_with_empty_axes", 0)
    given = {int(a) % 4 for a in np.atleast_1d(axes)} if axes is not None else set()
    if op.axes != 4 or given != {2, 3}:
        raise Refused(f"over the axes {axes}; expected (2, 3) of 4, height and width")
    pool = nn.AdaptiveAvgPool2d(1)
    return pool if op.get("keepdims", 1) else [("", pool), ("_flatten", nn.Flatten())]


def lrn(op: Op) -> Layer:
    size = int(op.get("size"))
    if size % 2 == 0:
        raise Refused(f"with an even size, {size}")
    return nn.LocalResponseNorm(size, float(op.get("alpha", 1e-4)), float(op.get("beta", 0.75)), float(op.get("bias", 1.0)))


def softmax(op: Op) -> Layer:
    dim = int(op.get("axis", -1 if op.opset >= 13 else 1))
    if op.opset < 13 and (op.axes is None or dim % op.axes != op.axes - 1):
        raise Refused("of opset 12 or older along more than the last axis")
    return nn.Softmax(dim) if op.kind == "Softmax" else nn.LogSoftmax(dim)


def clip(op: Op) -> Layer:
    low, high = op.constant(1, "min", -inf), op.constant(2, "max", inf)
    if low == 0 and high > 1e38:
        return nn.ReLU()
    if (low, high) != (0, 6):
        raise Refused(f"to {low} … {high}")
    return nn.ReLU6()


def dropout(op: Op) -> Layer:
    op.get("seed")
    if op.constant(2, "training", False):
        raise Refused("with training_mode")
    return nn.Dropout(round(float(op.constant(1, "ratio", 0.5)), 6))    # 0.2 in float32 is not 0.2


def flatten(op: Op) -> Layer:
    dim = int(op.get("axis", 1))
    if dim != 1 and (op.axes is None or dim % op.axes != 1):
        raise Refused(f"with axis={dim}; expected 1")
    return nn.Flatten()


def reshape(op: Op) -> Layer:
    shape = op.constant(1, "shape")
    given = list(np.atleast_1d(shape)) if shape is not None else []
    if 0 in given:                                              # "as it is", unless this makes it "none"
        op.expect("allowzero", 0)
    op.get("allowzero")
    if len(given) == 2 and not isinstance(given[1], Dim):
        batch, features = given
        if isinstance(batch, Dim) or (batch == 0 and features == -1):
            whole = not isinstance(batch, Dim) or batch.axis == 0
        else:                                                   # a batch of its own size, or as many rows as there are
            whole = batch in (0, -1, op.batch) and features in ((-1,) if batch != -1 else ()) + (prod(op.sizes()[1:]),)
        if whole:
            return nn.Flatten()
    if len(given) > 2 and given == [0] * (len(given) - 1) + [-1] and (op.axes or 0) > len(given):
        return nn.Flatten(len(given) - 1)
    raise Refused(f"to {['N' if isinstance(v, Dim) else int(v) for v in given]}; expected (N, all the rest)")


def squeeze(op: Op) -> Layer:
    axes = op.constant(1, "axes")
    n = op.axes or 2
    given = {int(a) % n for a in np.atleast_1d(axes)} if axes is not None else set()
    if not given or min(given) < 2 or set(op.sizes()[2:]) != {1}:
        raise Refused(f"of the axes {axes}; expected (2, 3), of one cell")
    return nn.Flatten(n - 1 - len(given), -1)


def every_other(op: Op) -> Layer:
    """x[:, :, ::2, ::2] is a pooling of windows of one cell."""
    starts, ends, axes, steps = (op.constant(i, name) for i, name in enumerate(("starts", "ends", "axes", "steps"), 1))
    step = [1, 1]
    if op.axes != 4 or any(v is None for v in (starts, ends, axes)):
        raise Refused("other than x[:, :, ::2, ::2]")
    for i, which in enumerate(axes):
        by = 1 if steps is None else int(steps[i])
        if int(which) % 4 not in (2, 3) or starts[i] != 0 or ends[i] < 1 << 30 or by < 1:
            raise Refused("other than x[:, :, ::2, ::2]")
        step[int(which) % 4 - 2] = by
    return nn.AvgPool2d(1, step)


def pad(op: Op) -> Layer:
    mode = op.get("mode", "constant")
    names = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    pads, value = op.constant(1, "pads"), op.constant(2, "value", 0.0)
    if mode not in names or pads is None or len(op.constants) > 3:
        raise Refused(f'with mode="{mode}", pads {pads}' + (" and axes" if len(op.constants) > 3 else ""))
    n = len(pads) // 2
    ends = [(int(pads[i]), int(pads[n + i])) for i in range(n)]
    while ends and ends[0] == (0, 0) and (len(ends) > n - 2 or mode == "constant"):
        ends.pop(0)                                             # what is left are the last axes
    if len(ends) >= n:
        raise Refused("of the batch axis")
    return nn.Pad([end for pair in reversed(ends) for end in pair], names[mode], float(value) if mode == "constant" else None)


def _factor(scale: Any) -> float:
    """The number that a file has as float32: 1.3 and not 1.29999995, by which ten cells would become twelve."""
    simple = float(Fraction(float(scale)).limit_denominator(1000))
    return simple if np.float32(simple) == scale else float(scale)


def _as_they_are(op: Op, sizes: Any) -> bool:
    """Whether a resizing to these sizes leaves batch and channels."""
    return int(sizes[0]) == op.batch and int(sizes[1]) == op.sizes()[1]


def resize(op: Op) -> Layer:
    mode, move = op.get("mode", "nearest"), op.get("coordinate_transformation_mode", "half_pixel")
    rounding = op.get("nearest_mode", "round_prefer_floor")
    for name in ("cubic_coeff_a", "extrapolation_value"):
        op.get(name)
    op.expect("exclude_outside", 0)
    op.expect("antialias", 0)
    op.expect("keep_aspect_ratio_policy", "stretch")
    if op.kind == "Upsample":                                   # opset 9: scales come second, and the rule is this one
        scales, move, rounding = op.constant(1, "scales"), "asymmetric", "floor"
    else:
        scales = op.constant(2, "scales")
    sizes = op.constant(3, "sizes", ())
    whole = False
    if np.size(sizes) in (3, 4, 5) and not any(isinstance(n, Dim) for n in sizes) and _as_they_are(op, sizes):
        how: dict[str, Any] = {"size": tuple(int(n) for n in sizes[2:])}
    elif scales is not None and np.size(scales) in (3, 4, 5) and list(scales[:2]) == [1, 1] and not np.size(sizes):
        factors = tuple(_factor(s) for s in scales[2:])
        how, whole = {"scale_factor": factors}, all(f == int(f) for f in factors)
    else:
        raise Refused("without scales, or fixed sizes, for the axes behind batch and channels")
    if mode == "linear" and move in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        name = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(next(iter(how.values())))]
        return nn.Upsample(**how, mode=name, align_corners=move == "align_corners")
    if mode == "nearest" and (move, rounding) == ("asymmetric", "floor"):
        return nn.Upsample(**how)
    if mode == "nearest" and whole and (move, rounding) == ("half_pixel", "round_prefer_floor"):
        return nn.Upsample(**how, mode="nearest-exact")
    raise Refused(f"with mode={mode}, {move}, {rounding}")


OPERATORS: dict[str, Callable[[Op], Any]] = {
    "Conv": conv, "ConvTranspose": conv, "Gemm": gemm, "MatMul": matmul, "BatchNormalization": batch_norm, "MaxPool": max_pool,
    "AveragePool": average_pool, "GlobalAveragePool": global_average_pool, "ReduceMean": reduce_mean, "LRN": lrn,
    "Softmax": softmax, "LogSoftmax": softmax, "Clip": clip, "Dropout": dropout, "Flatten": flatten, "Reshape": reshape,
    "Squeeze": squeeze, "Slice": every_other, "Pad": pad, "Resize": resize, "Upsample": resize,
    "Relu": lambda op: nn.ReLU(), "Sigmoid": lambda op: nn.Sigmoid(), "Tanh": lambda op: nn.Tanh(),
    "LeakyRelu": lambda op: nn.LeakyReLU(float(op.get("alpha", 0.01))), "Identity": lambda op: nn.Identity(),
}
