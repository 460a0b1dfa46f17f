"""What is freed is kept within the block and given back behind it, in fresh processes: the heap of this one has a history."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tinynet.distributed import memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")

FAULTS = """
import resource
import numpy as np
from tinynet.distributed import Shards

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def pages():
    return int(open("/proc/self/statm").read().split()[1])

def work(part):
    for _ in range(20):
        np.ones(1 << 19, np.float32)            # 2 MB: 512 pages

x = np.zeros(2)
try:
    with Shards(2, keep=KEEP) as shards:
        shards.apply(work, x)                   # once to have it
        before = faults()
        shards.apply(work, x)
        within = faults() - before
        held = np.ones(1 << 25, np.float32)     # 128 MB
        with_array = pages()
        del held
        kept = pages() > with_array - 1000
        raise ZeroDivisionError
except ZeroDivisionError:
    print(within, kept, pages() > with_array - 1000)
"""


def run(keep: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", FAULTS.replace("KEEP", keep)], capture_output=True, text=True, check=True)
    within, kept, behind = done.stdout.split()
    return int(within), kept, behind


def test_arrays_that_come_and_go_fault_no_pages_and_go_back_behind_the_block_also_after_an_error() -> None:
    within, kept, behind = run("1 << 30")
    assert within < 2048                        # one array a thread, if they were not side by side before; all forty: 20,480
    assert kept == "True" and behind == "False"


def test_no_more_than_the_limit_is_kept() -> None:
    """What lies above it at the end of the heap goes back at once; 64 MB are the C library's own measure."""
    assert run("1 << 26")[1:] == ("False", "False")
    assert run("0")[1:] == ("False", "False")


def test_of_blocks_within_one_another_the_largest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the C library is told; the numbers are malloc.h's: M_TRIM_THRESHOLD −1, M_MMAP_MAX −4, M_ARENA_MAX −8."""
    state: dict[int, int] = {}

    class Library:
        def mallopt(self, name: int, value: int) -> None:
            state[name] = value

        def malloc_trim(self, pad: int) -> None:
            state.clear()

    monkeypatch.setattr(memory, "_gnu", Library)
    with memory.KeptMemory(1 << 30):
        assert state == {-1: 1 << 30, -4: 0, -8: 1}
        for limit in (0, 1 << 28, 1 << 40):
            with memory.KeptMemory(limit):
                assert state[-1] == max(1 << 30, min(limit, (1 << 31) - 1)) and state[-4] == 0
            assert state[-1] == 1 << 30
    assert state == {}, "given back"
