"""How the benchmarks take times: in turns, in one process, and never with a BLAS that is told to be another."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info

import tinynet
from tinynet.distributed import Shards

SECONDS = 0.8
"""What a case takes for each side, at least three rounds. Interpretation, which takes long, goes once."""


WARM = 0.15
"""Seconds that each side runs before its times are taken, at each turn. For a tenth of a second behind work of many threads, the
system may have two threads share a core."""


def refuse_pinned() -> None:
    """A BLAS that is told to take an older processor for this one gives figures that nobody else would see."""
    pinned = [name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ]
    if pinned:
        sys.exit(f"speed: the BLAS is pinned by {' and '.join(pinned)}; run: env {' '.join('-u ' + n for n in pinned)} python …")


def machine(workers: int) -> dict[str, Any]:
    """Versions, threads, and the matrix product's peak of either side, GFLOP/s."""
    a = np.random.default_rng(0).standard_normal((3072, 3072), dtype=np.float32)
    b = torch.from_numpy(a)
    with Shards(workers) as shards:
        halves = lambda: shards.apply(lambda part: part @ a, a)     # noqa: E731 - each thread its half
        ours, theirs = alternate(halves, lambda: b @ b)
    work = 2 * 3072**3 / 1e9
    return {
        "processor": processor(), "threads": workers, "python": platform.python_version(),
        "numpy": np.__version__, "torch": torch.__version__, "tinynet": tinynet.__version__,
        "BLAS": [f"{info['internal_api']} {info.get('version')} {info.get('architecture')}" for info in threadpool_info()],
        "matrix product": {"tinynet": round(work / ours["min"]), "torch": round(work / theirs["min"])},
    }


def processor() -> str:
    """The processor's name as the system has it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def alternate(*sides: Callable[[], Any], rounds: int = 3) -> list[dict[str, float]]:
    """Run the sides in turns; for each the median and the smallest time, seconds. rounds: at least; 1: once, cold."""
    times: list[list[float]] = [[] for _ in sides]
    began = time.perf_counter()
    while len(times[0]) < rounds or (rounds > 1 and time.perf_counter() - began < SECONDS * len(sides) and len(times[0]) < 30):
        for side, mine in zip(sides, times, strict=True):
            time.sleep(0.02)                                    # the other side's threads spin for a while after their work
            if rounds > 1:                                      # and this side's take a while to be on a core each
                warm = time.perf_counter() + WARM
                side()
                while time.perf_counter() < warm:
                    side()
            for _ in range(3 if rounds > 1 else 1):
                start = time.perf_counter()
                side()
                mine.append(time.perf_counter() - start)
    return [{"median": statistics.median(mine), "min": min(mine)} for mine in times]


def row(name: str, ours: dict[str, float], *theirs: dict[str, float], **more: Any) -> dict[str, Any]:
    """One line of the results: both times, and the ratio to the better of PyTorch's.

    more: images, which gives images/s; multiply_adds of the whole case, which gives GFLOP/s as of direct computation.
    """
    best = min(theirs, key=lambda times: times["median"])
    found = {"name": name, "tinynet": ours, "torch": best, "ratio": round(ours["median"] / best["median"], 3), **more}
    print(f"{name:<52} {1e3 * ours['median']:9.2f} ms {1e3 * best['median']:9.2f} ms   {found['ratio']:.2f}", flush=True)
    return found
