"""What a GPU's memory does not hold is told in one line that names the allocation, and what helps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from ...backend import current_gpu_options
from ...errors import DeviceMemoryError


def chunks(count: int, bytes_each: int) -> Iterator[tuple[int, int]]:
    """(start, size) of runs of positions, or tiles, that fit the workspace of the options, or are one."""
    size = max(1, min(count, current_gpu_options().workspace // bytes_each))
    for start in range(0, count, size):
        yield start, min(size, count - start)


@contextmanager
def allocating(what: str, shape: Sequence[int], dtype: Any, workspace: bool = False) -> Iterator[None]:
    """Around an allocation: MemoryError (CuPy's OutOfMemoryError is one) becomes a DeviceMemoryError.

    workspace: the array is one that tinynet.backend.gpu_options(workspace=…) bounds.
    """
    try:
        yield
    except DeviceMemoryError:                                   # another one, which has said so itself
        raise
    except MemoryError:
        size = prod(shape) * np.dtype(dtype).itemsize / (1 << 20)
        smaller = max(current_gpu_options().workspace >> 22, 1)
        advice = (
            f"try a smaller workspace, tinynet.backend.gpu_options(workspace={smaller} << 20), or smaller batches"
            if workspace else "try smaller batches"
        )
        raise DeviceMemoryError(
            f"out of memory on the GPU: {what}, {tuple(shape)} of {np.dtype(dtype)}, takes {size:,.1f} MiB; {advice}"
        ) from None
