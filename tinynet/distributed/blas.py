"""BLAS with one thread, while the threads are ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_controller: Any = None
_limit: Any = None
_open = 0
"""Blocks that are open now, in all threads."""


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within the block BLAS has one thread, in all the process; of blocks that overlap the first limits it, the last lets go."""
    global _controller, _limit, _open
    with _lock:
        if _controller is None:                                 # looking for the libraries takes a while
            from threadpoolctl import ThreadpoolController

            _controller = ThreadpoolController()
        if not _open:
            _limit = _controller.limit(limits=1, user_api="blas").__enter__()
        _open += 1
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if not _open:
                for library in _controller.lib_controllers:     # from 3.8 on only the thread that set a limit may lift it
                    getattr(library, "clear_controlling_thread", _nothing)(force=True)
                _limit.__exit__(None, None, None)


def _nothing(force: bool) -> None:
    """What older versions of threadpoolctl need instead."""
