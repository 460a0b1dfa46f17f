"""What a layer or a call of PyTorch is in tinynet: one table of modules, one of functions and methods.

An option that tinynet does not have is refused, never dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import torch

from .. import nn
from ..nn import Layer, init
from .graph import Refused

T = torch.nn


class Mode(int):
    """`module.training` while the tracer looks: false, as in eval, and it is seen where it was handed on."""


FOLLOWS = Mode(0)


def _same(name: str, *options: str) -> Callable[[Any], Layer]:
    """A layer of the same name, whose arguments are attributes of the same names."""
    return lambda m: getattr(nn, name)(**{option: getattr(m, option) for option in options})


def _conv(m: Any) -> Layer:
    if m.padding_mode != "zeros":
        raise Refused(f'padding_mode="{m.padding_mode}"')
    how = {name: getattr(m, name) for name in ("kernel_size", "stride", "padding", "dilation", "groups")}
    if isinstance(m, (T.ConvTranspose1d, T.ConvTranspose2d, T.ConvTranspose3d)):
        how["output_padding"] = m.output_padding
    kind = next(cls.__name__ for cls in type(m).__mro__ if cls in MODULES)
    return getattr(nn, kind)(m.in_channels, m.out_channels, bias=m.bias is not None, rng=init.no_draws, **how)


def _linear(m: Any) -> Layer:
    return nn.Linear(m.in_features, m.out_features, m.bias is not None, rng=init.no_draws)


def _batch_norm(m: Any) -> Layer:
    kind = next(cls.__name__ for cls in type(m).__mro__ if cls in MODULES)
    return getattr(nn, kind)(
        m.num_features, m.eps, m.momentum, m.affine, m.track_running_stats, bias=not m.affine or m.bias is not None
    )


def _max_pool(m: Any) -> Layer:
    return max_pool(m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices, axes=_axes(m))


def _adaptive(m: Any) -> Layer:
    return nn.AdaptiveAvgPool2d(m.output_size)


def _pad(mode: str, m: Any) -> Layer:
    return nn.Pad(m.padding, mode, getattr(m, "value", None))


def _axes(m: Any) -> int:
    return int(next(cls.__name__ for cls in type(m).__mro__ if cls in MODULES)[-2])


# Modules: class → function of the module. A subclass counts as long as it computes nothing of its own.

MODULES: dict[type, Callable[[Any], Layer]] = {
    T.Linear: _linear,
    T.ReLU: lambda m: nn.ReLU(),
    T.ReLU6: lambda m: hardtanh(0, 6),
    T.Hardtanh: lambda m: hardtanh(m.min_val, m.max_val),
    T.LeakyReLU: _same("LeakyReLU", "negative_slope"),
    T.Sigmoid: lambda m: nn.Sigmoid(),
    T.Tanh: lambda m: nn.Tanh(),
    T.Softmax: lambda m: softmax(m.dim),
    T.LogSoftmax: lambda m: log_softmax(m.dim),
    T.AdaptiveAvgPool2d: _adaptive,
    T.LocalResponseNorm: _same("LocalResponseNorm", "size", "alpha", "beta", "k"),
    T.Dropout: _same("Dropout", "p"),
    T.Flatten: _same("Flatten", "start_dim", "end_dim"),
    T.Identity: lambda m: nn.Identity(),
    T.Upsample: lambda m: interpolate(m.size, m.scale_factor, m.mode, m.align_corners, m.recompute_scale_factor),
}
for _n in (1, 2, 3):
    MODULES[getattr(T, f"Conv{_n}d")] = MODULES[getattr(T, f"ConvTranspose{_n}d")] = _conv
    MODULES[getattr(T, f"BatchNorm{_n}d")] = _batch_norm
    MODULES[getattr(T, f"MaxPool{_n}d")] = _max_pool
    _options = ["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"] + ["divisor_override"] * (_n > 1)
    MODULES[getattr(T, f"AvgPool{_n}d")] = _same(f"AvgPool{_n}d", *_options)
    for _mode in ("constant", "reflect", "replicate", "circular"):
        _kind = {"reflect": "Reflection", "replicate": "Replication"}.get(_mode, _mode.title())
        MODULES[getattr(T, f"{_kind}Pad{_n}d")] = partial(_pad, _mode)


def converter(module: Any) -> Callable[[Any], Layer] | None:
    """How that module becomes a layer; None: it is none of those that tinynet has."""
    for cls in type(module).__mro__:
        if cls in MODULES:
            return None if "forward" in vars(module) else MODULES[cls]
        if vars(cls).keys() & {"forward", "_conv_forward", "__call__", "__getattr__", "weight", "bias"}:
            return None
    return None


# Functions and methods: torch's names and arguments, less the tensor that comes first. What is returned: a layer, or several
# as (what is added to the name, layer).


def max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False, *, axes: int,
) -> Layer:
    if return_indices:
        raise Refused("return_indices=True (tinynet keeps the switches in its record of the pass)")
    return getattr(nn, f"MaxPool{axes}d")(kernel_size, stride or None, padding, dilation, ceil_mode)


def avg_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: Any = None, *, axes: int,
) -> Layer:
    more = {} if axes == 1 else {"divisor_override": divisor_override}
    return getattr(nn, f"AvgPool{axes}d")(kernel_size, stride or None, padding, ceil_mode, count_include_pad, **more)


def relu(inplace: bool = False) -> Layer:
    return nn.ReLU()


def relu6(inplace: bool = False) -> Layer:
    return hardtanh(0, 6)


def hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Layer:
    if (min_val, max_val) != (0, 6):
        raise Refused(f"clipping to {min_val} … {max_val}")
    return nn.ReLU6()


def clamp(min: Any = None, max: Any = None) -> Layer:
    return nn.ReLU() if min == 0 and max in (None, inf) else hardtanh(min, max)


def leaky_relu(negative_slope: float = 0.01, inplace: bool = False) -> Layer:
    return nn.LeakyReLU(negative_slope)


def softmax(dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Layer:
    return _along(nn.Softmax, dim, dtype)


def log_softmax(dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Layer:
    return _along(nn.LogSoftmax, dim, dtype)


def _along(layer: Any, dim: Any, dtype: Any) -> Layer:
    if dim is None or dtype is not None:
        raise Refused("without dim" if dim is None else f"dtype={dtype}")
    return layer(dim)


def adaptive_avg_pool2d(output_size: Any) -> Layer:
    return nn.AdaptiveAvgPool2d(output_size)


def dropout(p: float = 0.5, training: Any = True, inplace: bool = False, train: Any = None) -> Layer:
    training = training if train is None else train
    if training is not FOLLOWS and training:
        raise Refused("training=True, whatever the model's mode; expected training=self.training")
    return nn.Dropout(p) if training is FOLLOWS else nn.Identity()


def flatten(start_dim: int = 0, end_dim: int = -1) -> Layer:
    return nn.Flatten(start_dim, end_dim)


def mean(dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    dims = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    if set(dims) not in ({2, 3}, {-1, -2}, {2, -1}, {-2, 3}) or dtype is not None:
        raise Refused(f"over the axes {dim}; expected (2, 3), height and width")
    pool = nn.AdaptiveAvgPool2d(1)
    return pool if keepdim else [("", pool), ("_flatten", nn.Flatten(-3 if set(dims) == {-1, -2} else 1))]


def local_response_norm(size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Layer:
    return nn.LocalResponseNorm(size, alpha, beta, k)


def interpolate(
    size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: Any = None,
    recompute_scale_factor: Any = None, antialias: bool = False,
) -> Layer:
    if mode not in ("nearest", "nearest-exact", "linear", "bilinear", "trilinear") or antialias:
        raise Refused("antialias=True" if antialias else f'mode="{mode}"')
    return nn.Upsample(size, scale_factor, mode, align_corners, recompute_scale_factor)


def pad(pad: Any, mode: str = "constant", value: Any = None) -> Layer:
    return nn.Pad(pad, mode, value)


def identity(*args: Any, **kwargs: Any) -> Layer:
    return nn.Identity()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "relu": relu, "relu_": relu, "relu6": relu6, "hardtanh": hardtanh, "hardtanh_": hardtanh, "clamp": clamp, "clip": clamp,
    "clamp_": clamp, "leaky_relu": leaky_relu, "leaky_relu_": leaky_relu, "sigmoid": lambda: nn.Sigmoid(),
    "tanh": lambda: nn.Tanh(), "softmax": softmax, "log_softmax": log_softmax, "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "dropout": dropout, "flatten": flatten, "mean": mean, "local_response_norm": local_response_norm,
    "interpolate": interpolate, "upsample": interpolate, "pad": pad, "contiguous": identity, "clone": identity,
}
for _n in (1, 2, 3):
    FUNCTIONS[f"max_pool{_n}d"] = lambda *args, axes=_n, **how: max_pool(*args, axes=axes, **how)
    FUNCTIONS[f"avg_pool{_n}d"] = lambda *args, axes=_n, **how: avg_pool(*args, axes=axes, **how)
ALIASES = (nn.Identity, nn.Dropout, nn.Flatten)
"""Layers whose output is, or may be, a view of their input in PyTorch."""
