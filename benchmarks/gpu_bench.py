"""Two libraries on one GPU: the same inputs for both, calls in turn, and what a row of the table is made of."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu_figures import Row, Work
from benchmarks.gpu_kernels import KernelRow, Launched, kernel_rows
from tinynet import backend

Clock = Callable[[Callable[[], Any]], float]
"""Milliseconds of a call."""


def measure(sides: Sequence[Callable[[int], Any]], clock: Clock, rounds: int, sets: int) -> list[float]:
    """The median time of each side, milliseconds. A side is called with the number of an input set; all are warmed up first."""
    for side in sides:
        for number in range(sets):
            side(number)
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(rounds):
        for side, found in zip(sides, times, strict=True):
            found.append(clock(partial(side, turn % sets)))
    return [statistics.median(found) for found in times]


class Bench:
    """Where both libraries run. device: PyTorch's. move: a host array to ours. clock: milliseconds of a call.

    peak: MiB that a call takes at most beside what is there before, of ours and of PyTorch's. launches: the kernels of a call.
    """

    def __init__(
        self, device: str, move: Callable[[np.ndarray], Any], clock: Clock, peak: Callable[[Any, Any], tuple[float, float]],
        rounds: int, sets: int, launches: Callable[[Callable[[], Any]], Launched] = lambda call: [],
    ) -> None:
        self.launches = launches
        self.kernels: list[KernelRow] = []
        self.device, self.move, self.clock, self.peak, self.rounds, self.sets = device, move, clock, peak, rounds, sets
        self.rng = np.random.default_rng(0)

    def inputs(self, *shape: int) -> tuple[list[Any], list[Any]]:
        """Several input sets of normal numbers, ours and PyTorch's."""
        import torch

        hosts = [self.rng.standard_normal(shape, dtype=np.float32) for _ in range(self.sets)]
        return [self.move(host) for host in hosts], [torch.from_numpy(host).to(self.device) for host in hosts]

    def row(
        self, group: str, name: str, what: str, precision: str, images: int, work: Work | None, ours: Any, theirs: Any,
        way: str = "",
    ) -> Row:
        with backend.gpu_options(precision=precision), torch_precision(precision, self.device):
            mine, its = measure((ours, theirs), self.clock, self.rounds, self.sets)
            peaks = self.peak(partial(ours, 0), partial(theirs, 0))
            calls = [self.launches(partial(ours, turn % self.sets)) for turn in range(self.rounds)]
        self.kernels += kernel_rows((name, what, precision, way), calls)
        operations, size = work or (0.0, 0.0)
        return Row(group, name, what, precision, mine, its, images, operations, size, *peaks, way)


@contextmanager
def torch_precision(precision: str, device: str) -> Iterator[None]:
    """PyTorch in that precision: TF32 allowed or not, float16 by autocast."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    half = torch.autocast(device.partition(":")[0], dtype=torch.float16, enabled=precision == "float16")
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=precision == "tf32"), half:
        yield
