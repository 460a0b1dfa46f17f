"""Convolution and transposed convolution as layers, in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import functional as F
from ..backend import Array
from ..errors import ArgumentError
from ..functional._check import generator, integer, integers
from ..functional.conv import ALGORITHMS, conv_scaled
from . import init
from .activation import ReLU
from .layer import Fused, Layer
from .norm import _BatchNorm

_Ints = int | Sequence[int]


class _Conv(Layer):
    parameter_names = ("weight", "bias")
    config_names: ClassVar[tuple[str, ...]] = (
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
    )
    axes: ClassVar[int]

    class Saved(NamedTuple):
        input: Array

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: _Ints, stride: _Ints = 1, padding: _Ints | str = 0,
        dilation: _Ints = 1, groups: int = 1, bias: bool = True,
        *, rng: np.random.Generator | None = None, dtype: Any = np.float32, algorithm: str = "auto",
    ) -> None:
        name, n = type(self).__name__, self.axes
        if algorithm not in ALGORITHMS:
            raise ArgumentError(f"{name}: expected algorithm {', '.join(ALGORITHMS)}, got {algorithm!r}")
        self.algorithm = algorithm
        self.groups = integer(name, "groups", groups, 1)
        self.in_channels = integer(name, "in_channels", in_channels, 1)
        self.out_channels = integer(name, "out_channels", out_channels, 1)
        self.kernel_size = integers(name, "kernel_size", kernel_size, n, 1)
        self.stride = integers(name, "stride", stride, n, 1)
        self.padding: Any = padding if isinstance(padding, str) else integers(name, "padding", padding, n, 0)
        self.dilation = integers(name, "dilation", dilation, n, 1)
        if isinstance(padding, str) and (padding not in ("same", "valid") or (padding == "same" and max(self.stride) > 1)):
            raise ArgumentError(f'{name}: expected padding of integers, "valid", or "same" with stride 1, got {padding!r}')
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(f"{name}: expected channels divisible by groups={groups}, got {in_channels}, {out_channels}")
        self.weight, self.bias = init.default_weight_and_bias(
            generator(rng), self._weight_shape(), out_channels if bias else None, dtype
        )

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def _op(self, suffix: str = "") -> Any:
        return getattr(F, f"conv{self.axes}d{suffix}")

    def _windows(self) -> dict[str, Any]:
        windows = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        return windows if self.algorithm == "auto" else {**windows, "algorithm": self.algorithm}

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        return self._op()(x, self.weight, self.bias, **self._windows()), self.Saved(x)

    def _with_relu(self, x: Array) -> Array:
        return F.conv_relu(self.axes, x, self.weight, self.bias, **self._windows())

    def _with_norm(self, x: Array, norm: _BatchNorm, relu: bool) -> Array:
        if getattr(x, "ndim", None) != self.axes + 2:           # one image, or no array: the layers will say what they expect
            return norm.rectified(self(x), relu, inplace=True)
        scale, shift = norm.scale_and_shift()
        if self.bias is not None:
            shift += scale * self.bias
        return conv_scaled(self.axes, x, self.weight, shift, scale, relu, **self._windows())

    def fused(self, following: Sequence[Layer]) -> Fused | None:
        if not following:
            return None
        norm = following[0]
        if type(norm) is ReLU:
            return Fused(1, self._with_relu)
        if not isinstance(norm, _BatchNorm) or not self._takes(norm):
            return None
        relu = any(type(layer) is ReLU for layer in following[1:2])
        return Fused(1 + relu, lambda x: self._with_norm(x, norm, relu))

    def _takes(self, norm: _BatchNorm) -> bool:
        """Whether this normalisation is, at inference, a scale and a shift of what every filter gives."""
        fits = norm.num_features == self.out_channels and self.axes + 2 in norm.dims
        return norm.fixed and fits and norm.running_mean.dtype == self.weight.dtype

    def fused_forward(self, following: Layer) -> Callable[[Array], tuple[Array, Saved, Any]] | None:
        if type(following) is not ReLU:
            return None

        def forward(x: Array) -> tuple[Array, Any, Any]:
            y = self._with_relu(x)
            return y, self.Saved(x), ReLU.Saved(y)              # the output is what ReLU's gradient needs; the sums are not

        return forward

    @property
    def gives_away(self) -> bool:
        return True

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        return self._op("_input_gradient")(saved.input.shape, self.weight, dy, **self._windows())

    def parameter_gradients(self, saved: Saved, dy: Array) -> dict[str, Array]:
        return self._with_bias(self._op("_weight_gradient")(saved.input, self.weight.shape, dy, **self._windows()), dy)

    def gradients(self, saved: Saved, dy: Array) -> tuple[Array, dict[str, Array]]:
        dx, dw = F.conv_gradients(self.axes, saved.input, self.weight, dy, **self._windows())
        return dx, self._with_bias(dw, dy)

    def _with_bias(self, dw: Array, dy: Array) -> dict[str, Array]:
        if self.bias is None:
            return {"weight": dw}
        return {"weight": dw, "bias": F.conv_bias_gradient(dy, unbatched=dy.ndim == self.axes + 1)}


class Conv1d(_Conv):
    """torch.nn.Conv1d: functional.conv1d with its own filters. input (N, C, L) or (C, L). rng draws the initial weights."""

    axes = 1


class Conv2d(_Conv):
    """torch.nn.Conv2d: functional.conv2d with its own filters. input (N, C, H, W) or (C, H, W). rng draws the initial weights."""

    axes = 2


class Conv3d(_Conv):
    """torch.nn.Conv3d: functional.conv3d with its own filters. input (N, C, D, H, W) or (C, D, H, W). rng draws the
    initial weights.
    """

    axes = 3


class _ConvTranspose(_Conv):
    config_names = (
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding", "groups", "dilation",
    )
    fused, fused_forward = Layer.fused, Layer.fused_forward     # no kernel does it with what follows

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: _Ints, stride: _Ints = 1, padding: _Ints = 0,
        output_padding: _Ints = 0, groups: int = 1, bias: bool = True, dilation: _Ints = 1,
        *, rng: np.random.Generator | None = None, dtype: Any = np.float32,
    ) -> None:
        self.output_padding = integers(type(self).__name__, "output_padding", output_padding, self.axes, 0)
        integers(type(self).__name__, "padding", padding, self.axes, 0)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, rng=rng, dtype=dtype
        )

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def _op(self, suffix: str = "") -> Any:
        return getattr(F, f"conv_transpose{self.axes}d{suffix}")

    def _windows(self) -> dict[str, Any]:
        return {**super()._windows(), "output_padding": self.output_padding}

    def input_gradient(self, saved: Any, dy: Array) -> Array:
        return self._op("_input_gradient")(dy, self.weight, **self._windows())


class ConvTranspose1d(_ConvTranspose):
    """torch.nn.ConvTranspose1d: functional.conv_transpose1d with its own filters (in, out/groups, k)."""

    axes = 1


class ConvTranspose2d(_ConvTranspose):
    """torch.nn.ConvTranspose2d: functional.conv_transpose2d with its own filters (in, out/groups, kh, kw)."""

    axes = 2


class ConvTranspose3d(_ConvTranspose):
    """torch.nn.ConvTranspose3d: functional.conv_transpose3d with its own filters (in, out/groups, kd, kh, kw)."""

    axes = 3
