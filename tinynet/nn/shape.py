"""Layers that change the shape: flatten, pad, resize, and the identity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from .. import functional as F
from ..backend import Array
from ..errors import ArgumentError, ShapeError
from ..functional._check import axis, check_array
from .layer import Layer, Nothing
from .pool import _FromSize


class Identity(Layer):
    """y = x."""

    each_cell = True

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Nothing]:
        return x, Nothing()

    def input_gradient(self, saved: Nothing, dy: Array) -> Array:
        return dy


class Flatten(_FromSize):
    """Axes start_dim … end_dim as one: (N, C, H, W) → (N, C·H·W)."""

    config_names = ("start_dim", "end_dim")

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromSize.Saved]:
        check_array("Flatten", "input", x)
        first = axis("Flatten", "start_dim", self.start_dim, x.ndim)
        last = axis("Flatten", "end_dim", self.end_dim, x.ndim)
        if first > last:
            raise ShapeError(f"Flatten: expected start_dim before end_dim, got {first} and {last} for {tuple(x.shape)}")
        y = x.reshape(*x.shape[:first], prod(x.shape[first : last + 1]), *x.shape[last + 1 :])
        return y, self.Saved(tuple(x.shape))

    def input_gradient(self, saved: _FromSize.Saved, dy: Array) -> Array:
        return dy.reshape(saved.size)


class Pad(_FromSize):
    """functional.pad as a layer. pad: (before, after) of the last axis, then of the one before it, …"""

    config_names = ("pad", "mode", "value")

    def __init__(self, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> None:
        if not isinstance(pad, Iterable):
            raise ArgumentError(f"Pad: expected pad (before, after) of the last axis, then of the one before it, …, got {pad!r}")
        self.pad, self.mode, self.value = tuple(pad), mode, value

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromSize.Saved]:
        return F.pad(x, self.pad, self.mode, self.value), self.Saved(tuple(x.shape))

    def input_gradient(self, saved: _FromSize.Saved, dy: Array) -> Array:
        return F.pad_input_gradient(dy, saved.size, self.pad, self.mode)


class Upsample(_FromSize):
    """functional.interpolate as a layer."""

    config_names = ("size", "scale_factor", "mode", "align_corners")

    def __init__(
        self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest", align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ) -> None:
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners, self.recompute_scale_factor = align_corners, recompute_scale_factor

    def _arguments(self) -> tuple[Any, ...]:
        return self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, _FromSize.Saved]:
        return F.interpolate(x, *self._arguments()), self.Saved(tuple(x.shape))

    def input_gradient(self, saved: _FromSize.Saved, dy: Array) -> Array:
        return F.interpolate_input_gradient(dy, saved.size, *self._arguments())
