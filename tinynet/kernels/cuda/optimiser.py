"""One optimiser step over all parameters in a few launches on a GPU; the formulas of optim/sgd.py and optim/adam.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Any

import numpy as np

from ...backend import Array
from .launch import THREADS, launch

CAPACITY = 64
"""Parameters that one launch carries."""
TENSORS = np.dtype([
    *((name, np.uint64, CAPACITY) for name in ("parameter", "gradient", "first", "second", "third")),
    ("size", np.int64, CAPACITY),
])
Row = Sequence[Any]
"""(parameter, gradient, first, second and third slot or None), device arrays of one shape and dtype in C order."""


def sgd(
    rows: Sequence[Row], *, lr: float, momentum: float, dampening: float, weight_decay: float, nesterov: bool, maximize: bool,
    fresh: bool, ok: Array | None = None,
) -> None:
    """p ← p − lr · b over all rows (parameter, gradient, buffer or None). fresh: the buffers hold nothing yet.

    ok: bool (1,) on the device or None: where it is False nothing is changed.
    """
    for T, tensors, arrays, grid in _batches(rows):
        launch("optimiser", "sgd", (T,), (
            tensors, ok, T(lr), T(momentum), T(dampening), T(weight_decay), np.int32(nesterov), np.int32(maximize),
            np.int32(fresh)), threads=1, grid=grid, also=arrays)


def adam(
    rows: Sequence[Row], *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float, decoupled: bool, step: int,
    maximize: bool, ok: Array | None = None,
) -> None:
    """Adam, or AdamW where decoupled, over all rows (parameter, gradient, m, v, largest v or None). ok: as for sgd.

    step: t, 1 for the first.
    """
    beta1, beta2 = betas
    for T, tensors, arrays, grid in _batches(rows):
        launch("optimiser", "adam", (T,), (
            tensors, ok, T(beta1), T(beta2), T(lr / (1 - beta1**step)), T(sqrt(1 - beta2**step)), T(eps),
            T(0 if decoupled else weight_decay), T(1 - lr * weight_decay if decoupled else 1), np.int32(maximize)),
            threads=1, grid=grid, also=arrays)


def _batches(rows: Sequence[Row]) -> Iterator[tuple[Any, np.ndarray, list[Array], tuple[int, int]]]:
    """(scalar type, struct Tensors, its arrays, grid) of every launch: up to CAPACITY rows of one dtype."""
    for dtype in {row[0].dtype for row in rows}:
        alike = [row for row in rows if row[0].dtype == dtype and row[0].size]
        for begin in range(0, len(alike), CAPACITY):
            part = alike[begin : begin + CAPACITY]
            tensors = np.zeros((), dtype=TENSORS)
            for number, row in enumerate(part):
                for name, array in zip(("parameter", "gradient", "first", "second", "third"), row, strict=False):
                    tensors[name][number] = 0 if array is None else array.data.ptr
                tensors["size"][number] = row[0].size
            largest = max(row[0].size for row in part)
            blocks = min(-(-largest // (4 * THREADS)), 1024)    # four numbers a thread, more where a parameter is huge
            arrays = [array for row in part for array in row if array is not None]
            yield dtype.type, tensors, arrays, (blocks, len(part))
