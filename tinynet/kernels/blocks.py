"""Elementwise work in several steps, a block at a time, so that what a step leaves is still in cache for the next."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..backend import Array, array_module

BLOCK = 1 << 18
"""Numbers of a block. Fewer would stay nearer, but every call may have to wait for the other threads' calls (see NOTES.md)."""


def blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Views of the same parts of all arrays, which have one shape; one part, the whole, of what is small, not in one piece, or on
    a GPU.
    """
    if array_module(*arrays) is np and arrays[0].size > BLOCK and all(x.flags.c_contiguous for x in arrays):
        lines = [x.reshape(-1) for x in arrays]
        for first in range(0, lines[0].size, BLOCK):
            yield tuple(line[first : first + BLOCK] for line in lines)
    else:
        yield arrays
