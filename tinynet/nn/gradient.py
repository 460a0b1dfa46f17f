"""Training's walk back: the gradient rule at every layer, parameter gradients collected into a value."""

from __future__ import annotations

from typing import Any

from ..backend import Array
from .layer import Layer, Saved, join


def backward(model: Layer, saved: Saved, dy: Array, input_gradient: bool = True) -> tuple[Array | None, dict[str, Array]]:
    """(∂ℓ/∂x, gradients) from dy = ∂ℓ/∂y and the record of a forward pass.

    gradients: dotted name → array, with the names of model.named_parameters(); the shares of a layer that is used twice add up.
    input_gradient False: ∂ℓ/∂x is not wanted, so the layers that take the input itself spare that work, and it is None.
    """
    gradients: dict[str, Array] = {}
    first_path: dict[int, str] = {}
    for path, layer in model.layers():
        first_path.setdefault(id(layer), path)
    entries = set() if input_gradient else model.entries()

    def step(path: str, layer: Layer, kept: Any, signal: Array) -> Any:
        for name, gradient in layer.parameter_gradients(kept, signal).items():
            name = join(first_path[id(layer)], name)
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        return None if path in entries else layer.input_gradient(kept, signal)

    dx = model.reverse(saved, dy, step)
    return (dx if input_gradient else None), gradients
