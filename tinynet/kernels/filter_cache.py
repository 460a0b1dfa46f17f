"""Transformed filters, kept as long as the filters live and hold the same numbers."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LIMIT = 1 << 29
"""Bytes that all kept transforms may take together; the one that was asked for longest ago goes first."""
PIECE = 1 << 16
"""Numbers of the filters that one thread transforms at a time."""

Room = Callable[[np.ndarray, Any], np.ndarray]
"""room(w, how): an empty array for the transform of filters w (O, …); its axis 1 counts the filters."""
Transform = Callable[[np.ndarray, Any, np.ndarray], None]
"""transform(w, how, out): the transform of some filters, written to out."""


_Key = tuple[int, Any]
"""id of the filters, and how they are transformed."""


class _Entry(NamedTuple):
    alive: weakref.ref[np.ndarray]
    numbers: np.ndarray
    """What the filters held when they were transformed."""
    transformed: np.ndarray


class _Making:
    """A transform that is being made, piece by piece, by all threads that want it."""

    def __init__(self, w: np.ndarray, how: Any, room: Room, transform: Transform) -> None:
        self._w, self._how, self._transform = w, how, transform
        self.numbers, self.transformed = np.empty(w.shape, w.dtype), room(w, how)
        filters = max(1, PIECE * len(w) // max(1, w.size))
        self._pieces = deque(slice(first, min(first + filters, len(w))) for first in range(0, len(w), filters))
        self._missing, self._failed = len(self._pieces), False
        self._changed = threading.Condition()

    def made(self) -> bool:
        """Take part until all is there. False: another thread failed at its piece."""
        while self._pieces and not self._failed:
            try:
                piece = self._pieces.popleft()
            except IndexError:                                  # another thread was quicker
                break
            try:
                self.numbers[piece] = self._w[piece]
                self._transform(self.numbers[piece], self._how, self.transformed[:, piece])
            except BaseException:
                self._tell(failed=True)
                raise
            self._tell()
        with self._changed:
            self._changed.wait_for(lambda: self._failed or not self._missing)
            return not self._failed

    def _tell(self, failed: bool = False) -> None:
        with self._changed:
            self._missing, self._failed = self._missing - 1, self._failed or failed
            if self._failed or not self._missing:
                self._changed.notify_all()


class FilterCache:
    """Remembers the transforms of filters (O, …), in one way (anything hashable) or several.

    Anyone may change weights in place, and a training does so at each step; so every number is compared each time. That
    costs a fraction of the transform, and nothing is ever computed with filters that are no more.
    """

    def __init__(self, room: Room, transform: Transform, limit: int = LIMIT) -> None:
        self._room, self._transform, self._limit = room, transform, limit
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._making: dict[_Key, _Making] = {}
        self._lock = threading.Lock()
        self._dead: deque[_Key] = deque()

    def get(self, w: np.ndarray, how: Any) -> np.ndarray:
        """The transform of w, made anew only where it must be; threads that ask for the same at once make it together."""
        key = (id(w), how)
        while True:
            with self._lock:
                entry, making = self._entries.get(key), self._making.get(key)
            if making is None:
                if entry is not None and entry.alive() is w and np.array_equal(entry.numbers, w):
                    self._keep(key, entry)
                    return entry.transformed
                with self._lock:
                    if self._entries.get(key) is not entry:     # another thread was quicker
                        continue
                    making = self._making.get(key)
                    if making is None:
                        making = self._making[key] = _Making(w, how, self._room, self._transform)
            try:
                if making.made():
                    self._keep(key, _Entry(weakref.ref(w, lambda _: self._forget(key)), making.numbers, making.transformed))
                    return making.transformed
            finally:
                with self._lock:
                    if self._making.get(key) is making:
                        del self._making[key]

    def _keep(self, key: _Key, entry: _Entry) -> None:
        with self._lock:
            self._drop_dead()
            self._entries[key] = entry
            self._entries.move_to_end(key)
            while len(self._entries) > 1 and self._bytes() > self._limit:
                self._entries.popitem(last=False)

    def _bytes(self) -> int:
        return sum(entry.numbers.nbytes + entry.transformed.nbytes for entry in self._entries.values())

    def _forget(self, key: _Key) -> None:
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
