"""Pooling and unpooling as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import functional as F
from ..backend import Array, array_module
from ..functional._check import check_floats, check_signal
from ..functional.max_pool import Switches, max_pool_switches, unpooled_by
from .activation import ReLU
from .layer import Fused, Layer
from .norm import _BatchNorm

_Ints = int | Sequence[int]


class _MaxPool(Layer):
    config_names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    axes: ClassVar[int]

    class Saved(NamedTuple):
        size: tuple[int, ...]
        """Shape of the input."""
        switches: Switches

        @property
        def indices(self) -> Array:
            """The switches as flat index of each maximum in its input plane, int64; made anew at each call."""
            return self.switches.indices

    def __init__(
        self, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0, dilation: _Ints = 1, ceil_mode: bool = False
    ) -> None:
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def _windows(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        y, switches = max_pool_switches(f"max_pool{self.axes}d", self.axes, x, *self._windows())
        return y, self.Saved(tuple(x.shape), switches)

    def __call__(self, x: Array) -> Array:
        return getattr(F, f"max_pool{self.axes}d")(x, *self._windows())

    def fused(self, following: Sequence[Layer]) -> Fused | None:
        if not following or not isinstance(following[0], _BatchNorm) or not following[0].fixed:
            return None
        norm, relu = following[0], any(type(layer) is ReLU for layer in following[1:2])
        return Fused(1 + relu, lambda x: norm.rectified(self(x), relu, inplace=True))

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        return self.back(saved, dy)

    def back(self, saved: Saved, signal: Array, meeting: str = "sum") -> Array:
        """The signal put back to where the maxima stood; where several meet in a cell, their "sum" or the "largest"."""
        op = f"max_pool{self.axes}d_input_gradient"
        check_floats(op, dy=signal)
        check_signal(op, signal, saved.switches.kept.shape)
        array_module(signal, saved.switches.kept)
        return unpooled_by(op, signal, saved.switches, saved.size, self.axes, meeting)


class MaxPool1d(_MaxPool):
    """The maximum of every window; keeps the switches. input (N, C, L) or (C, L)."""

    axes = 1


class MaxPool2d(_MaxPool):
    """The maximum of every window; keeps the switches. input (N, C, H, W) or (C, H, W)."""

    axes = 2


class MaxPool3d(_MaxPool):
    """The maximum of every window; keeps the switches. input (N, C, D, H, W) or (C, D, H, W)."""

    axes = 3


class _MaxUnpool(Layer):
    """Not a step of a Sequential: it takes the switches beside the input, unpool(x, indices, output_size)."""

    config_names = ("kernel_size", "stride", "padding")
    axes: ClassVar[int]

    class Saved(NamedTuple):
        indices: Array

    def __init__(self, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0) -> None:
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding

    def forward(  # type: ignore[override]
        self, x: Array, indices: Array, output_size: Sequence[int] | None = None
    ) -> tuple[Array, Saved]:
        """y with every value at its switch. Arguments as functional.max_unpool2d."""
        op = getattr(F, f"max_unpool{self.axes}d")
        return op(x, indices, self.kernel_size, self.stride, self.padding, output_size), self.Saved(indices)

    def __call__(self, x: Array, indices: Array, output_size: Sequence[int] | None = None) -> Array:  # type: ignore[override]
        return self.forward(x, indices, output_size)[0]

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        return getattr(F, f"max_unpool{self.axes}d_input_gradient")(dy, saved.indices)


class MaxUnpool1d(_MaxUnpool):
    """Values back to their switches: unpool(x, indices, output_size=None)."""

    axes = 1


class MaxUnpool2d(_MaxUnpool):
    """Values back to their switches: unpool(x, indices, output_size=None)."""

    axes = 2


class MaxUnpool3d(_MaxUnpool):
    """Values back to their switches: unpool(x, indices, output_size=None)."""

    axes = 3


class _FromSize(Layer):
    class Saved(NamedTuple):
        size: tuple[int, ...]
        """Shape of the input."""


class AvgPool1d(_FromSize):
    """The mean of every window. input (N, C, L) or (C, L)."""

    config_names: ClassVar[tuple[str, ...]] = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
    axes: ClassVar[int] = 1

    def __init__(
        self, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad

    def _windows(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromSize.Saved]:
        return getattr(F, f"avg_pool{self.axes}d")(x, *self._windows()), self.Saved(tuple(x.shape))

    def input_gradient(self, saved: _FromSize.Saved, dy: Array) -> Array:
        return getattr(F, f"avg_pool{self.axes}d_input_gradient")(dy, saved.size, *self._windows())


class AvgPool2d(AvgPool1d):
    """The mean of every window. input (N, C, H, W) or (C, H, W)."""

    config_names = (*AvgPool1d.config_names, "divisor_override")
    axes = 2

    def __init__(
        self, kernel_size: _Ints, stride: _Ints | None = None, padding: _Ints = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = divisor_override

    def _windows(self) -> tuple[Any, ...]:
        return (*super()._windows(), self.divisor_override)


class AvgPool3d(AvgPool2d):
    """The mean of every window. input (N, C, D, H, W) or (C, D, H, W)."""

    axes = 3


class AdaptiveAvgPool2d(_FromSize):
    """The means of output_size windows that share the input out evenly. input (N, C, H, W) or (C, H, W)."""

    config_names = ("output_size",)

    def __init__(self, output_size: int | Sequence[int | None] | None) -> None:
        self.output_size = output_size

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromSize.Saved]:
        return F.adaptive_avg_pool2d(x, self.output_size), self.Saved(tuple(x.shape))

    def input_gradient(self, saved: _FromSize.Saved, dy: Array) -> Array:
        return F.adaptive_avg_pool2d_input_gradient(dy, saved.size)
