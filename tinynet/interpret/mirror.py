"""The inverse network, layer by layer, to look at and to run: the deconvnet as the paper's figure 1 draws it.

deconvnet.py does the same by rules over the record of a forward pass; here convolutions, max-poolings, rectifiers and local
response normalisation get their mirror images as layers, a convolution's with the very array of its original. The others keep
their rules, which are told in words. The two agree to the last bits, and a test says so.
"""

from __future__ import annotations

import textwrap
from functools import singledispatch
from typing import Any, NamedTuple

from .. import functional as F
from .. import nn
from ..backend import Array
from ..functional._check import integers
from ..nn import Layer
from ..nn.activation import _Rectifier
from ..nn.containers import Container
from ..nn.conv import _Conv, _ConvTranspose
from ..nn.norm import _BatchNorm
from ..nn.pool import _MaxPool
from .deconvnet import MEANING, deconv, deconvnet


class Pair(NamedTuple):
    """A layer and its mirror image. mirror None: there is the rule alone, and `words` says what it does."""

    path: str
    layer: Layer
    mirror: Layer | None
    words: str


def mirror(model: Layer) -> Mirror:
    """The inverse network of a model: print it, or run it with mirror(model).attribute(x, layer=…, unit=…)."""
    return Mirror(model)


class Mirror(deconvnet):
    """A model's layers with their mirror images or rules, last layer first."""

    name = "mirror"

    def __init__(self, model: Layer) -> None:
        super().__init__(model)
        self.pairs = [_pair(path, layer) for path, layer in model.layers() if not isinstance(layer, Container)][::-1]
        self._mirrors = {pair.path: pair.mirror for pair in self.pairs}

    def step(self, path: str, layer: Layer, saved: Any, signal: Array) -> Array:
        image = self._mirrors[path]
        if isinstance(layer, _Conv) and image is not None:
            axes = layer.axes
            op = getattr(F, f"conv_transpose{axes}d")
            if isinstance(layer, _ConvTranspose) or isinstance(layer.padding, str):
                return deconv(layer, saved, signal)
            rest = [  # the cells behind the last window, where the stride does not divide
                (s + 2 * p - d * (k - 1) - 1) % step
                for s, p, d, k, step in zip(
                    saved.input.shape[-axes:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
                )
            ]
            weight: Array = image.weight                        # type: ignore[attr-defined]
            return op(signal, weight, None, layer.stride, layer.padding, rest, layer.groups, layer.dilation)
        if isinstance(layer, _MaxPool) and not _overlaps(layer):
            return image(signal, saved.indices, saved.size)     # type: ignore[misc,call-arg]
        return deconv(layer, saved, signal)

    def __str__(self) -> str:
        width = max((len(pair.path) for pair in self.pairs), default=0)
        kind = max((len(type(pair.layer).__name__) for pair in self.pairs), default=0)
        lines = (f"{p.path:<{width}}  {type(p.layer).__name__:<{kind}} ↔ {p.words}" for p in self.pairs)
        return "\n".join([*lines, "", *textwrap.wrap(MEANING, 100)])

    __repr__ = __str__


def _pair(path: str, layer: Layer) -> Pair:
    image, words = _image(layer)
    return Pair(path, layer, image, words)


@singledispatch
def _image(layer: Layer) -> tuple[Layer | None, str]:
    if deconv.dispatch(type(layer)) is deconv.dispatch(object):
        return None, "no rule: a projection through it is an error"
    return None, "its adjoint"


@_image.register
def _(layer: _Conv) -> tuple[Layer | None, str]:
    axes = layer.axes
    if isinstance(layer, _ConvTranspose):
        return None, f"the {axes}-D convolution with the same filters, no bias"
    image: Any = getattr(nn, f"ConvTranspose{axes}d").__new__(getattr(nn, f"ConvTranspose{axes}d"))
    image.__dict__.update(layer.__dict__)
    image.in_channels, image.out_channels = layer.out_channels, layer.in_channels
    image.bias, image.output_padding = None, (0,) * axes
    size = "×".join(map(str, layer.kernel_size))
    channels = f"{layer.out_channels} → {layer.in_channels}"
    words = f"ConvTranspose{axes}d({channels}, {size}, stride {layer.stride[0]}), the same filters, no bias"
    return image, words


@_image.register
def _(layer: _MaxPool) -> tuple[Layer | None, str]:
    image = getattr(nn, f"MaxUnpool{layer.axes}d")(layer.kernel_size, layer.stride, layer.padding)
    shared = "; windows overlap: values that meet are added" if _overlaps(layer) else ""
    return image, f"MaxUnpool{layer.axes}d({layer.kernel_size}, stride {layer.stride}) with its switches{shared}"


@_image.register
def _(layer: nn.Linear) -> tuple[Layer | None, str]:
    return None, f"the same matrix transposed ({layer.out_features} → {layer.in_features}), no bias"


@_image.register
def _(layer: _Rectifier) -> tuple[Layer | None, str]:
    return layer if isinstance(layer, nn.ReLU) else nn.ReLU(), "ReLU"


@_image.register
def _(layer: _BatchNorm) -> tuple[Layer | None, str]:
    return None, "a gain for each channel, γ/√(σ² + ε); no shift"


@_image.register
def _(layer: nn.LocalResponseNorm) -> tuple[Layer | None, str]:
    return nn.Identity(), "passed through"


@_image.register
def _(layer: nn.Flatten) -> tuple[Layer | None, str]:
    return None, "back to maps"


def _overlaps(layer: _MaxPool) -> bool:
    kernel, stride, dilation = (
        integers("mirror", name, getattr(layer, name), layer.axes) for name in ("kernel_size", "stride", "dilation")
    )
    return any(d * (k - 1) + 1 > s for k, s, d in zip(kernel, stride, dilation, strict=True))
