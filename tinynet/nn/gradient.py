"""Training's walk back: the gradient rule at every layer, parameter gradients collected into a value."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..backend import Array
from ..kernels.factors import Product, total
from .layer import Layer, Saved, join


def backward(
    model: Layer, saved: Saved, dy: Array, input_gradient: bool = True, only: Collection[str] | None = None, keep: bool = True,
    factored: bool = False,
) -> tuple[Array | None, dict[str, Any]]:
    """(∂ℓ/∂x, gradients) from dy = ∂ℓ/∂y and the record of a forward pass.

    gradients: dotted name → array, with the names of model.named_parameters(); the shares of a layer that is used twice add up.
    only: the names that are wanted (None: all); the layers of the others are frozen and compute none.
    input_gradient False: ∂ℓ/∂x is not wanted and is None; the walk then ends at the lowest layer with a wanted parameter.
    keep False: the record is for this walk alone, which lets go of what each layer kept as it passes.
    factored: a gradient may be a `Product` that is not computed yet, where its factors are much smaller.
    """
    gradients: dict[str, Any] = {}
    first_path: dict[int, str] = {}
    wanted: dict[int, set[str]] = {}                            # a layer's names of its parameters, as far as they are wanted
    for path, layer in model.layers():
        if id(layer) not in first_path:
            first_path[id(layer)] = path
            wanted[id(layer)] = {n for n in layer.parameter_names if only is None or join(path, n) in only}
    trained = {key for key, names in wanted.items() if names}
    ends = set() if input_gradient else model.ends(trained)[0]

    def step(path: str, layer: Layer, kept: Any, signal: Array) -> Any:
        names = wanted[id(layer)]
        if not names:
            return None if path in ends else layer.input_gradient(kept, signal)
        end, found = path in ends, layer.factored_gradients(kept, signal) if factored else None
        if found is not None:
            dx = None if end else layer.input_gradient(kept, signal)
        else:
            dx, found = (None, layer.parameter_gradients(kept, signal)) if end else layer.gradients(kept, signal)
        for name, gradient in found.items():
            if name in names:
                name = join(first_path[id(layer)], name)
                gradients[name] = _sum(gradients[name], gradient) if name in gradients else gradient
        return dx

    dx = model.reverse(saved, dy, step, keep=keep)
    return (dx if input_gradient else None), gradients


def _sum(first: Any, second: Any) -> Any:
    """The gradients of a layer that stands in two places: a product only as long as that saves."""
    both = total([first, second])
    return both.value() if isinstance(both, Product) and not both.saves else both
