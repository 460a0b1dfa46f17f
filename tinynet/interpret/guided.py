"""Guided backpropagation: the gradient's walk, but at a ReLU only positive signals to active units pass.

(Springenberg, Dosovitskiy, Brox & Riedmiller 2015.) Gradient: g·[x > 0]. Deconvnet: max(g, 0). Guided: both.
"""

from __future__ import annotations

from ..backend import Array, array_module
from ..nn import Layer
from ..nn.activation import _Rectifier
from ..nn.layer import Saved
from .attribution import Attribution


class guided_backprop(Attribution):
    """guided_backprop(model).attribute(x, target=class). Sharp, and largely unrelated to the class (see deconvnet)."""

    name = "guided backprop"
    local = True

    def step(self, path: str, layer: Layer, saved: Saved, signal: Array) -> Array:
        if isinstance(layer, _Rectifier):
            signal = array_module(signal).maximum(signal, 0)
        return layer.input_gradient(saved, signal)
