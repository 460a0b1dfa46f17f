"""What is freed stays at hand: the C library keeps memory instead of giving it back and asking for it anew in every step.

A large array normally comes from the system as pages that must be filled with zeros first, one page fault after the other, and
goes back as soon as it is dropped. A training step does that with every activation and every gradient; in a large network it is a
fifth of the time.
"""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType
from typing import Any

# malloc.h of the GNU C library: parameters of mallopt, and what it begins with.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_USUAL_TRIM, _USUAL_MMAPS = 1 << 26, 1 << 16
MOST = (1 << 31) - 1
"""mallopt takes an int."""

_lock = threading.Lock()
_blocks: list[int] = []


class KeptMemory:
    """Within the block freed memory is kept, up to `limit` bytes at the end of the heap; behind the last block it goes back.

    It holds for the whole process, whose threads share one heap from then on: heaps of single threads consist of pieces of 64 MB,
    which come and go. A no-op with limit 0, and where the C library is not GNU's (macOS, Windows, musl).
    """

    def __init__(self, limit: int) -> None:
        self.limit = min(limit, MOST)

    def __enter__(self) -> KeptMemory:
        with _lock:
            _blocks.append(self.limit)
            _set()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with _lock:
            _blocks.remove(self.limit)
            _set()


def _set() -> None:
    library = _gnu()
    if library is None:
        return
    limit = max(_blocks, default=0)
    if limit:
        library.mallopt(_ARENA_MAX, 1)                          # the library knows no way back from this
    library.mallopt(_TRIM_THRESHOLD, max(limit, _USUAL_TRIM))
    library.mallopt(_MMAP_MAX, 0 if limit else _USUAL_MMAPS)    # none: even large arrays come from the heap
    if not limit:
        library.malloc_trim(0)


def _gnu() -> Any:
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
    except (OSError, TypeError):                                # Windows takes no None
        return None
