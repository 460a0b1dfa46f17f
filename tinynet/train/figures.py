"""What the host must know of a step, read with one wait, behind which a GPU works on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import Array, array_module


class StepFigures:
    """The loss of a step, the norm of its gradients, and how many were right; numbers, or 0-d arrays on a device.

    finite: whether loss and norm are: a bool, or on a GPU an array (1,) of bool that the host has not seen. There the figures are
    copied into pinned memory as soon as they are there, and `read` waits for that copy alone, not for what is queued after it.
    """

    def __init__(self, loss: Array, norm: Any, right: Any) -> None:
        xp, values = array_module(loss), (loss, norm, right)
        if not hasattr(xp, "cuda"):
            self._values = float(loss), float(norm), float(right)
            self.finite: Any = math.isfinite(self._values[0]) and math.isfinite(self._values[1])
            return
        together = xp.stack([
            value.astype(np.float64).reshape(()) if hasattr(value, "get") else xp.full((), float(value), dtype=np.float64)
            for value in values
        ])
        self.finite = xp.isfinite(together[:2]).all().reshape(1)
        self._pinned = np.frombuffer(xp.cuda.alloc_pinned_memory(together.nbytes), np.float64, len(values))
        together.get(out=self._pinned, blocking=False)
        self._copied = xp.cuda.Event()
        self._copied.record()

    def read(self) -> tuple[float, float, float]:
        """(loss, norm, right)."""
        if hasattr(self, "_copied"):
            self._copied.synchronize()
            return tuple(self._pinned.tolist())
        return self._values
