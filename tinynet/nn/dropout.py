"""Dropout as a layer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import functional as F
from ..backend import Array, array_module
from ..errors import ArgumentError
from ..functional._check import check_array
from ..functional.dropout import check_probability, dropout_mask
from .layer import Layer


class Dropout(Layer):
    """In training each number is 0 with probability p and the others are scaled by 1 / (1 − p); at inference the identity."""

    config_names = ("p",)
    each_cell = True

    class Saved(NamedTuple):
        mask: Array | None
        """What the input was multiplied by; None where nothing was dropped."""

    def __init__(self, p: float = 0.5) -> None:
        check_probability("Dropout", p)
        self.p = p

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        check_array("Dropout", "input", x)
        if not train or self.p == 0:
            return x, self.Saved(None)
        if rng is None:
            raise ArgumentError("Dropout: expected rng in training: forward(x, train=True, rng=numpy.random.default_rng(0))")
        mask = dropout_mask(x.shape, self.p, rng, dtype=x.dtype, xp=array_module(x))
        return x * mask, self.Saved(mask)

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        return dy if saved.mask is None else F.dropout_input_gradient(dy, saved.mask)
