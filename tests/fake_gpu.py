"""A GPU that is not there: the device double under CuPy's name, so that `device("cuda")` finds it.

What a transfer, a stream and an event do in time cannot be had; that they are used, and in which order, is noted in `log`, and
`blocked` says where the host may have waited: every stream has a clock of what comes before in it and in the streams that it
waited for, and what the host has waited for once is done.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.device_double import DeviceArray, device_module


class FakeCuda:
    """cupy.cuda, as far as tinynet uses it."""

    def __init__(self, count: int = 1) -> None:
        self.log: list[str] = []
        self.blocked: list[int] = []
        """For every wait of the host for something that was not done for certain: how many events were recorded behind it."""
        log, blocked = self.log, self.blocked
        clocks: dict[str, Counter[str]] = {"current": Counter(), "own": Counter()}
        done: Counter[str] = Counter()
        self._inside = inside = threading.local()

        class Device:
            def __init__(self, number: int = 0) -> None:
                assert 0 <= number < count
                self.id = number

            def __enter__(self) -> Any:
                inside.stack = [*getattr(inside, "stack", []), self.id]
                return self

            def __exit__(self, *error: object) -> None:
                inside.stack.pop()

            def synchronize(self) -> None:
                log.append("synchronize device")

        class Event:
            def record(self, stream: Any = None) -> None:
                self.stream = str(stream or "current")
                log.append(f"record on {self.stream}")
                clocks[self.stream][self.stream] += 1
                self.clock = clocks[self.stream].copy()

            def synchronize(self) -> None:
                log.append("wait for event")
                if not self.clock <= done:
                    blocked.append(clocks[self.stream][self.stream] - self.clock[self.stream])
                done.update(self.clock - done)

        class Stream:
            def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
                assert non_blocking

            def __enter__(self) -> Any:
                log.append("enter stream")
                return self

            def __exit__(self, *error: object) -> None:
                log.append("leave stream")

            def __str__(self) -> str:
                return "own"

            def record(self, event: Any = None) -> Any:
                event = event or Event()
                event.record(self)
                return event

            def wait_event(self, event: Any) -> None:
                log.append("own waits for event")
                clocks["own"] |= event.clock

        class Current:
            def __str__(self) -> str:
                return "current"

            def wait_event(self, event: Any) -> None:
                log.append("current waits for event")
                clocks["current"] |= event.clock

        current = Current()
        self.Device, self.Event, self.Stream = Device, Event, Stream
        self.get_current_stream = lambda: current
        self.runtime = SimpleNamespace(getDeviceCount=lambda: count)

    @property
    def number(self) -> int:
        """The current GPU of this thread."""
        return [0, *getattr(self._inside, "stack", [])][-1]

    def alloc_pinned_memory(self, size: int) -> Any:
        self.log.append("pinned memory")
        return np.full(size, 0xCC, np.uint8).data               # a buffer, as PinnedMemoryPointer is; maybe larger than asked


@contextmanager
def fake_gpu(count: int = 1) -> Iterator[FakeCuda]:
    """Within the block there are `count` GPUs, and their arrays are those of the strict double."""
    with pytest.MonkeyPatch.context() as patch:
        cuda = FakeCuda(count)
        for name in ("cublas", "get_cublas_handle"):            # of cuda_on_cpu, where that is on
            if hasattr(getattr(device_module, "cuda", None), name):
                setattr(cuda, name, getattr(device_module.cuda, name))
        patch.setattr(device_module, "cuda", cuda, raising=False)
        patch.setitem(sys.modules, "cupy", device_module)
        assert isinstance(device_module.asarray(0), DeviceArray)
        yield cuda
