"""What the host must know of a step, read with one wait, behind which a GPU works on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..data.pinned import Fetched


class StepFigures:
    """The loss of a step, the norm of its gradients, and how many were right; numbers, or 0-d arrays on a device.

    before: the figures of the step before, if they are not read yet. finite: whether loss and norm are, here and there: a bool,
    or on a GPU an array (1,) of bool that the host has not seen. There `late` is true: `read` waits for a copy that is queued
    behind the step, so it is better read when the next step is queued, too.
    """

    def __init__(self, loss: Array, norm: Any, right: Any, before: StepFigures | None = None) -> None:
        xp, values = array_module(loss), (loss, norm, right)
        self.late = hasattr(xp, "cuda")
        if not self.late:
            self._values = float(loss), float(norm), float(right)
            self.finite: Any = math.isfinite(self._values[0]) and math.isfinite(self._values[1])
            return
        together = xp.stack([
            value.astype(np.float64).reshape(()) if hasattr(value, "get") else xp.full((), float(value), dtype=np.float64)
            for value in values
        ])
        self.finite = xp.isfinite(together[:2]).all().reshape(1)
        if before is not None:
            self.finite = self.finite & before.finite           # behind a step that is held back, all are
        self._together = Fetched(together)

    def read(self) -> tuple[float, float, float]:
        """(loss, norm, right)."""
        return tuple(self._together.read().tolist()) if self.late else self._values
