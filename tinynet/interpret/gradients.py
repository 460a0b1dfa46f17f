"""The plain gradient of a unit, and the methods that are made of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..errors import ArgumentError, ShapeError
from ..nn import Layer
from .attribution import Attribution
from .units import Unit, record, select


class saliency(Attribution):
    """The gradient of a unit with respect to the pixels (Simonyan, Vedaldi & Zisserman 2014).

    absolute: its magnitude, as Captum's default; otherwise with its sign.
    """

    name = "saliency"

    def __init__(self, model: Layer, absolute: bool = False) -> None:
        super().__init__(model)
        self.absolute = absolute

    def attribute(self, x: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None) -> Array:
        gradient = super().attribute(x, target, layer=layer, unit=unit)
        return abs(gradient) if self.absolute else gradient


class input_x_gradient(Attribution):
    """x · gradient (Shrikumar et al. 2016): of a network without biases the sum is the unit's value."""

    name = "input × gradient"

    def attribute(self, x: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None) -> Array:
        return x * super().attribute(x, target, layer=layer, unit=unit)


class integrated_gradients(Attribution):
    """(x − b) · the mean gradient on the straight line from a baseline b to x (Sundararajan, Taly & Yan 2017).

    The sum over all pixels tends to the unit's value at x minus that at b (completeness). steps: points of the
    Gauss-Legendre rule. batch_size: images at a time.
    """

    name = "integrated gradients"

    def __init__(self, model: Layer, steps: int = 50, batch_size: int = 32) -> None:
        super().__init__(model)
        if steps < 1 or batch_size < 1:
            raise ArgumentError(f"integrated_gradients: expected steps and batch_size of at least 1, got {steps}, {batch_size}")
        self.steps, self.batch_size = steps, batch_size

    def attribute(
        self, x: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None, baseline: Array | float = 0.0
    ) -> Array:
        """As Attribution.attribute. baseline: an array of x's shape or one image's, or a number; 0 is the mean colour."""
        xp = array_module(x)
        if hasattr(baseline, "shape") and tuple(baseline.shape) not in ((), tuple(x.shape), tuple(x.shape[1:])):
            raise ShapeError(f"integrated_gradients: expected baseline {tuple(x.shape)}, got {tuple(baseline.shape)}")
        difference = x - xp.asarray(baseline, dtype=x.dtype)
        points, weights = np.polynomial.legendre.leggauss(self.steps)
        at_x = record(self.model, x, layer)
        mask = select(at_x, target, unit)                       # the same unit all along the way, also for "max"
        total = xp.zeros_like(x)
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            step = x - x.dtype.type(1 - point) * difference
            for i in range(0, len(x), self.batch_size):
                part = slice(i, i + self.batch_size)
                total[part] += x.dtype.type(weight) * self.back(record(self.model, step[part], layer), mask[part])
        return total * difference


class smoothgrad(Attribution):
    """The mean gradient over noisy copies of the image (Smilkov et al. 2017).

    noise: standard deviation as a share of the image's range (largest minus smallest value). samples: copies. seed: of the noise.
    """

    name = "SmoothGrad"

    def __init__(self, model: Layer, samples: int = 25, noise: float = 0.15, seed: int = 0) -> None:
        super().__init__(model)
        if samples < 1 or not noise >= 0:
            raise ArgumentError(f"smoothgrad: expected samples of at least 1 and noise of at least 0, got {samples}, {noise}")
        self.samples, self.noise, self.seed_ = samples, noise, seed

    def attribute(self, x: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None) -> Array:
        xp, rng = array_module(x), np.random.default_rng(self.seed_)
        mask = select(record(self.model, x, layer), target, unit)
        axes = tuple(range(1, x.ndim))
        sigma = self.noise * (x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True))
        total = xp.zeros_like(x)
        for _ in range(self.samples):
            noise = xp.asarray(rng.standard_normal(x.shape).astype(str(x.dtype)))
            total += self.back(record(self.model, x + sigma * noise, layer), mask)
        return total / self.samples
