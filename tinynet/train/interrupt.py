"""Ctrl-C during a training: the step that runs is finished first, so that what is saved is the state between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a training. Its text says what was saved and how to resume. A KeyboardInterrupt: exit code 130."""


class PatientInterrupt:
    """A with block in which the first Ctrl-C is only noted; the second one interrupts at once.

    `between(items)` passes the items on and raises the noted KeyboardInterrupt before the next one; generators among
    them (a loader's, with its threads) are closed at the end of the block, however it ends. Outside the main thread,
    where Python delivers no signals, Ctrl-C is left alone.
    """

    def __init__(self) -> None:
        self.noted = False
        self._before: Any = None
        self._generators: list[Any] = []

    def __enter__(self) -> PatientInterrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
        for generator in self._generators:
            generator.close()

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, one by one, as long as nobody has pressed Ctrl-C."""
        iterator = iter(items)
        if hasattr(iterator, "close"):
            self._generators = [iterator]  # the one before it has ended
        for item in iterator:
            self.check()
            yield item

    def check(self) -> None:
        """Raise the KeyboardInterrupt that was noted."""
        if self.noted:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True
