"""What the published networks have in common: how their layers begin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..backend import Array
from ..nn import Conv2d, Linear, init

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
"""draw(rng, shape) → the initial weight."""

he_fan_in: Draw = init.kaiming_uniform
he_normal: Draw = init.kaiming_normal
he_fan_out: Draw = partial(init.kaiming_normal, mode="fan_out")


def gaussian(std: float) -> Draw:
    """N(0, std²)."""
    return partial(init.normal, std=std)


def conv(draw: Draw, rng: np.random.Generator, *arguments: Any, **options: Any) -> Conv2d:
    """Conv2d(…) with weights drawn so, and biases of 0."""
    layer = Conv2d(*arguments, **options, rng=init.no_draws)
    layer.weight = draw(rng, layer.weight.shape)
    return layer


def linear(draw: Draw, rng: np.random.Generator, in_features: int, out_features: int) -> Linear:
    """Linear(…) with weights drawn so, and biases of 0."""
    layer = Linear(in_features, out_features, rng=init.no_draws)
    layer.weight = draw(rng, layer.weight.shape)
    return layer
