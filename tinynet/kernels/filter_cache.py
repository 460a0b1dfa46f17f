"""Transformed filters, kept as long as the filters live and hold the same numbers."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

LIMIT = 1 << 29
"""Bytes that all kept transforms may take together; the one that was asked for longest ago goes first."""


class _Entry(NamedTuple):
    alive: weakref.ref[np.ndarray]
    numbers: np.ndarray
    """What the filters held when they were transformed."""
    transformed: np.ndarray


class FilterCache:
    """Remembers transform(w, m) for arrays w.

    Anyone may change weights in place, and a training does so at each step; so every number is compared each time. That
    costs a fraction of the transform, and nothing is ever computed with filters that are no more.
    """

    def __init__(self, transform: Callable[[np.ndarray, int], np.ndarray], limit: int = LIMIT) -> None:
        self._transform, self._limit = transform, limit
        self._entries: OrderedDict[tuple[int, int], _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._working: dict[tuple[int, int], threading.Lock] = {}
        self._dead: deque[tuple[int, int]] = deque()

    def get(self, w: np.ndarray, m: int) -> np.ndarray:
        """transform(w, m), made anew only where it must be; by one thread, while others that ask for the same wait."""
        key = (id(w), m)
        with self._lock:
            working = self._working.setdefault(key, threading.Lock())
        with working:
            with self._lock:
                entry = self._entries.get(key)
            if entry is None or entry.alive() is not w or not np.array_equal(entry.numbers, w):
                entry = _Entry(weakref.ref(w, lambda _: self._forget(key)), w.copy(), self._transform(w, m))
            self._keep(key, entry)
            return entry.transformed

    def _keep(self, key: tuple[int, int], entry: _Entry) -> None:
        with self._lock:
            self._drop_dead()
            self._entries[key] = entry
            self._entries.move_to_end(key)
            while len(self._entries) > 1 and self._bytes() > self._limit:
                self._entries.popitem(last=False)

    def _bytes(self) -> int:
        return sum(entry.numbers.nbytes + entry.transformed.nbytes for entry in self._entries.values())

    def _forget(self, key: tuple[int, int]) -> None:
        """Called when filters are gone, at any moment, perhaps in a thread that holds the lock: then later."""
        self._dead.append(key)
        if self._lock.acquire(blocking=False):
            try:
                self._drop_dead()
            finally:
                self._lock.release()

    def _drop_dead(self) -> None:
        while self._dead:
            key = self._dead.popleft()
            entry = self._entries.get(key)
            if entry is not None and entry.alive() is None:             # the same place may have new filters by now
                del self._entries[key]
                self._working.pop(key, None)
