"""The plain gradient of a unit, and the methods that are made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..distributed.memory import MOST, KeptMemory
from ..errors import ArgumentError, ShapeError
from ..functional._check import integer
from ..nn import Layer
from .attribution import Attribution
from .fork import Fork
from .units import Unit, record, select, targets


class saliency(Attribution):
    """The gradient of a unit with respect to the pixels (Simonyan, Vedaldi & Zisserman 2014).

    absolute: its magnitude, as Captum's default; otherwise with its sign.
    """

    name = "saliency"
    local = True

    def __init__(self, model: Layer, absolute: bool = False, workers: int | None = None) -> None:
        super().__init__(model, workers)
        self.absolute = absolute

    def attribute(self, x: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None) -> Array:
        gradient = super().attribute(x, target, layer=layer, unit=unit)
        return abs(gradient) if self.absolute else gradient


class input_x_gradient(Attribution):
    """x · gradient (Shrikumar et al. 2016).

    Of a network of linear layers, poolings and ReLUs without biases the sum is the unit's value.
    """

    name = "input × gradient"
    local = True

    def attribute(self, x: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None) -> Array:
        return x * super().attribute(x, target, layer=layer, unit=unit)


class _Averaged(Attribution):
    """A weighted sum of the gradients at many inputs, `batch_size` of them at a time, whichever images they belong to."""

    def __init__(self, model: Layer, batch_size: int, workers: int | None) -> None:
        super().__init__(model, workers)
        self.batch_size = integer(self.name, "batch_size", batch_size, 1)

    def unit(self, x: Array, target: Any, layer: str | None, unit: Unit | None) -> Array:
        """The mask of the units in question, chosen at x: they stay the same for all inputs, also for "max"."""
        return self.share(lambda x, target: select(record(self.model, x, layer), target, unit), x, targets(x, target))

    def summed(
        self, x: Array, mask: Array, layer: str | None, points: Iterable[tuple[float, int, Array]], others: Sequence[Layer] = ()
    ) -> Array:
        """Σ weight · gradient of image i's unit at the input (C, …), over the points (weight, i, input).

        Of the model and of the others beside it, of which `layer` is None: (1 + others, *x's shape).
        """
        xp, points, fork = array_module(x), iter(points), Fork(self.model, others)
        total = xp.zeros((1 + len(others), *x.shape), dtype=x.dtype)

        def gradients(x: Array, mask: Array) -> Array:          # (N, networks, …)
            if layer is None:
                return xp.stack(fork.back(self, x, mask), axis=1)
            return self.back(record(self.model, x, layer), mask)[:, None]

        with KeptMemory(MOST):                                  # from one batch to the next
            while batch := list(islice(points, self.batch_size)):
                found = self.share(gradients, xp.stack([x for _, _, x in batch]), xp.stack([mask[i] for _, i, _ in batch]))
                for (weight, i, _), gradient in zip(batch, found, strict=True):
                    total[:, i] += x.dtype.type(weight) * gradient
        return total


class integrated_gradients(_Averaged):
    """(x − b) · the mean gradient on the straight line from a baseline b to x (Sundararajan, Taly & Yan 2017).

    The sum over all pixels tends to the unit's value at x minus that at b (completeness). steps: points of the
    Gauss-Legendre rule. batch_size: inputs at a time.
    """

    name = "integrated gradients"

    def __init__(self, model: Layer, steps: int = 50, batch_size: int = 16, workers: int | None = None) -> None:
        super().__init__(model, batch_size, workers)
        self.steps = integer(self.name, "steps", steps, 1)

    def attribute(
        self, x: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None, baseline: Array | float = 0.0
    ) -> Array:
        """As Attribution.attribute. baseline: an array of x's shape or one image's, or a number; 0 is the mean colour."""
        return self._along(x, self.unit(x, target, layer, unit), layer, baseline, ())[0]

    def of_each(self, others: Sequence[Layer], x: Array, target: Any = None, baseline: Array | float = 0.0) -> list[Array]:
        """What `attribute` gives for a class, of the model and of each other network, at little more than what they differ in
        (Fork). target: as in attribute; None: the class that the model says.
        """
        return list(self._along(x, self.unit(x, target, None, None), None, baseline, others))

    def _along(self, x: Array, mask: Array, layer: str | None, baseline: Array | float, others: Sequence[Layer]) -> Array:
        xp = array_module(x)
        start = xp.asarray(baseline, dtype=x.dtype)
        if tuple(start.shape) not in ((), tuple(x.shape), tuple(x.shape[1:])):
            raise ShapeError(f"integrated_gradients: expected baseline {tuple(x.shape)}, got {tuple(start.shape)}")
        difference = x - start
        points, weights = np.polynomial.legendre.leggauss(self.steps)
        line = (
            (weight, i, x[i] - x.dtype.type(1 - point) * difference[i])
            for i in range(len(x)) for point, weight in zip((points + 1) / 2, weights / 2, strict=True)
        )
        return self.summed(x, mask, layer, line, others) * difference


class smoothgrad(_Averaged):
    """The mean gradient over noisy copies of the image (Smilkov et al. 2017).

    noise: standard deviation as a share of the image's range (largest minus smallest value). samples: copies. seed: of the noise.
    batch_size: copies at a time.
    """

    name = "SmoothGrad"

    def __init__(
        self, model: Layer, samples: int = 25, noise: float = 0.15, seed: int = 0, batch_size: int = 16,
        workers: int | None = None,
    ) -> None:
        super().__init__(model, batch_size, workers)
        if samples < 1 or not noise >= 0:
            raise ArgumentError(f"smoothgrad: expected samples of at least 1 and noise of at least 0, got {samples}, {noise}")
        self.samples, self.noise, self.seed_ = samples, noise, seed

    def attribute(self, x: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None) -> Array:
        return self._around(x, self.unit(x, target, layer, unit), layer, ())[0]

    def of_each(self, others: Sequence[Layer], x: Array, target: Any = None) -> list[Array]:
        """What `attribute` gives for a class, of the model and of each other network, with the same noise for all, at little more
        than what they differ in (Fork). target: as in attribute; None: the class that the model says.
        """
        return list(self._around(x, self.unit(x, target, None, None), None, others))

    def _around(self, x: Array, mask: Array, layer: str | None, others: Sequence[Layer]) -> Array:
        xp, rng = array_module(x), np.random.default_rng(self.seed_)
        axes = tuple(range(1, x.ndim))
        sigma = self.noise * (x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True))

        def copies() -> Iterator[tuple[float, int, Array]]:
            for _ in range(self.samples):
                noisy = x + sigma * xp.asarray(rng.standard_normal(x.shape).astype(str(x.dtype)))
                yield from ((1.0, i, copy) for i, copy in enumerate(noisy))

        return self.summed(x, mask, layer, copies(), others) / self.samples
