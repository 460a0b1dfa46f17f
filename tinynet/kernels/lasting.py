"""Arrays that stay, such as an optimiser's momentum: in pages of their own.

Where freed memory is kept for the next array (distributed/memory.py), one that stays among those that come and go would part the
room that they leave behind, and no large array would fit there any more.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Any

import numpy as np

from ..backend import Array, array_module

LARGE = 1 << 20
"""Bytes from which on an array gets pages of its own."""


def lasting_zeros(like: Array) -> Array:
    """Zeros of the shape, dtype and layout of `like`, for what will be there as long as that is."""
    xp = array_module(like)
    if xp is not np or like.nbytes < LARGE or not like.flags.c_contiguous:
        return xp.zeros_like(like)
    # Private: a process that forks must not share them. Windows knows no such pages, and needs none.
    flags: Any = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    try:
        pages = mmap.mmap(-1, like.nbytes, **flags)
    except OSError as error:
        raise MemoryError(f"no {like.nbytes} bytes for an array of shape {like.shape}") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):                                 # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, like.dtype).reshape(like.shape)
