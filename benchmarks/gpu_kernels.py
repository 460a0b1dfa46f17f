"""What each kernel of an operation on a GPU does at least, how long it took, and how far that is from the roofline. Needs no GPU.

A kernel is watched where it is launched (tinynet.kernels.cuda.launch.watching), and counted by its arguments: every array is read
or written once, of a chunk the part that belongs to it. Lookups by neighbours that a cache may serve are not counted again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu_figures import Work

LINES = {
    "winograd_filters": (12, 3 + 6), "winograd_input": (19, 6 + 6), "winograd_output": (13, 6 + 4),
    "winograd_signal": (11, 4 + 6), "winograd_weight_gradient": (15, 6 + 3),
}
"""Operations of a line of each transform of winograd.cu, and lines a tile."""


Counted = Callable[[Any, Any], tuple[float, float]]
"""(arguments, the arrays among them) → (operations, bytes)."""


def kernel_work(kernel: str, arguments: Sequence[Any]) -> Work:
    """Of one launch, or of a product by cuBLAS. arguments: as launch.watching gives them."""
    arrays = [x for x in arguments if x is not None and hasattr(x, "nbytes") and getattr(x, "ndim", 0) > 0]
    return Work(*COUNTED[kernel](arguments, arrays))


def _all(arrays: Sequence[Any]) -> float:
    return float(sum(x.nbytes for x in arrays))


def _each(operations: float, which: int = 0) -> Counted:
    """So many operations for each number of one of the arguments; all arrays go through memory once."""
    return lambda arguments, arrays: (operations * arguments[which].size, _all(arrays))


def _windows(window: Any) -> tuple[int, int]:
    """(outputs of a plane, cells of a window)."""
    return math.prod(window["out"].tolist()), math.prod(window["kernel"].tolist())


def _taps(outputs: int, window: int) -> Counted:
    """A product and a sum for each cell of a window of each output: numbers of the arguments."""
    return lambda arguments, arrays: (2 * arguments[outputs].size * _windows(arguments[window])[1], _all(arrays))


def _rows(maps: int, rows: int, operations: float = 0.0) -> Counted:
    """Between a chunk of rows and as many numbers of the maps; so many operations for each."""

    def count(arguments: Any, arrays: Sequence[Any]) -> tuple[float, float]:
        bias = _all(arrays) - arguments[maps].nbytes - arguments[rows].nbytes
        return operations * arguments[rows].size, 2 * arguments[rows].nbytes + bias

    return count


def _columns(maps: int, columns: int, operations: float = 0.0) -> Counted:
    """Between a chunk of columns and its share of the maps; the third argument is the window, the sixth the chunk's size."""

    def count(arguments: Any, arrays: Sequence[Any]) -> tuple[float, float]:
        out = math.prod(arguments[2]["out"].tolist())
        share = int(arguments[5]) / (arguments[maps].shape[0] * out)
        return operations * arguments[columns].size, arguments[columns].nbytes + share * arguments[maps].nbytes

    return count


def _tiles(kernel: str, maps: int, tiles: int) -> Counted:
    """Between a chunk of tiles (36, channels, size) and its share of the maps."""
    each, lines = LINES[kernel]

    def count(arguments: Any, arrays: Sequence[Any]) -> tuple[float, float]:
        whole, part = arguments[maps], arguments[tiles]
        window = next(x for x in arguments if getattr(getattr(x, "dtype", None), "names", None))
        in_all = whole.shape[0] * math.prod(-(-out // 4) for out in window["out"].tolist()[1:])
        others = _all(arrays) - whole.nbytes - part.nbytes
        return each * lines * part.size / 36, part.nbytes + part.shape[-1] / in_all * whole.nbytes + others

    return count


def _filters(kernel: str) -> Counted:
    each, lines = LINES[kernel]
    return lambda arguments, arrays: (each * lines * sum(x.size for x in arrays) / (36 + 9), _all(arrays))


def _direct(arguments: Any, arrays: Sequence[Any]) -> tuple[float, float]:
    w, y = arguments[1], arguments[3]
    return 2 * y.size * math.prod(w.shape[1:]), _all(arrays)


def _product(arguments: Any, arrays: Sequence[Any]) -> tuple[float, float]:
    a, b = arguments
    batch = max(math.prod(a.shape[:-2]), math.prod(b.shape[:-2]))
    y = batch * (a.shape[-2] if a.ndim > 1 else 1) * (b.shape[-1] if b.ndim > 1 else 1)
    return 2 * y * a.shape[-1], a.nbytes + b.nbytes + max(a.itemsize, 4) * y     # of float16, too, the sums are float32


def _update(operations: float) -> Counted:
    """An optimiser's step: all that belongs to a parameter is read, and all but the gradient written."""

    def count(arguments: Any, arrays: Sequence[Any]) -> tuple[float, float]:
        tensors = arguments[0]
        lists = [tensors[name].tolist() for name in ("parameter", "gradient", "first", "second", "third")]
        sizes, itemsize = tensors["size"].tolist(), arrays[-1].itemsize
        numbers = sum(sizes)
        arrays_each = [sum(map(bool, addresses)) for addresses in zip(*lists, strict=True)]
        moved = sum(size * count for size, count in zip(sizes, arrays_each, strict=True))
        return operations * numbers, itemsize * (2 * moved - numbers)

    return count


COUNTED: dict[str, Counted] = {
    "product": _product, "direct_conv2d": _direct,
    "im2col": _columns(0, 1), "col2im": _columns(1, 0, 1),
    "rows_to_maps": _rows(2, 0, 2), "maps_to_rows": _rows(0, 1),
    "bias_relu": lambda arguments, arrays: (2 * arguments[0].size, _all(arrays) + arguments[0].nbytes),
    "depthwise": _taps(3, 4), "depthwise_input_gradient": _taps(0, 3), "depthwise_weight_gradient": _taps(1, 3),
    "winograd_filters": _filters("winograd_filters"), "winograd_weight_gradient": _filters("winograd_weight_gradient"),
    "winograd_input": _tiles("winograd_input", 0, 1), "winograd_signal": _tiles("winograd_signal", 0, 1),
    "winograd_output": _tiles("winograd_output", 2, 0),
    "max_pool": lambda arguments, arrays: (arguments[1].size * _windows(arguments[3])[1], _all(arrays)),
    "unpool_windows": _each(1), "unpool_sorted": _each(1), "stray_switches": _each(1),
    "channel_sums": lambda arguments, arrays: ((1 if arguments[1] is None else 3) * arguments[0].size, _all(arrays)),
    "gradient_sums": _each(4), "normalise": _each(3), "normalise_gradient": _each(6),
    "cross_entropy": _each(5), "target_weight": _each(1), "sum_losses": _each(1), "dropout_mask": _each(1),
    "add_along": _each(1), "sgd": _update(4), "adam": _update(12),
}
"""Every kernel, and the products. Operations where memory is the limit by far are counted coarsely."""


@dataclass
class KernelRow:
    """One kernel in one operation. launches, operations, bytes: of one call in all; ms: their median."""

    operation: str
    what: str
    precision: str
    way: str
    kernel: str
    launches: int
    ms: float
    operations: float
    bytes: float


Launched = list[tuple[str, Work, float]]
"""Kernel, what it had to do, and milliseconds of every launch of a call, in order."""


def kernel_rows(names: tuple[str, str, str, str], calls: Sequence[Launched]) -> list[KernelRow]:
    """names: operation, what, precision, way. calls: of several calls of that operation."""
    found = []
    for kernel in dict.fromkeys(kernel for kernel, _, _ in calls[0]):
        works = [work for name, work, _ in calls[0] if name == kernel]
        ms = statistics.median(sum(ms for name, _, ms in call if name == kernel) for call in calls)
        operations, size = (float(sum(part)) for part in zip(*works, strict=True))
        found.append(KernelRow(*names, kernel, len(works), ms, operations, size))
    return found


def kernel_table(rows: Sequence[KernelRow], peaks: dict[str, float]) -> str:
    """A Markdown table: of every kernel in every operation, as it is chosen, its time and its share of the roofline."""
    lines = [
        "Each kernel by itself: the median of what CUDA events around its launches add up to, in one call. (Of a kernel of a few",
        "microseconds that is the launch; a share above 100 % is of arrays that lie in the cache.)",
        "",
        "| in | precision | kernel | launches | ms | GB/s | TFLOP/s | of roofline |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.way:
            continue
        # TF32 and float16 are of the products alone.
        rate = peaks[row.precision if row.kernel == "product" else "float32"]
        floor = 1e3 * Work(row.operations, row.bytes).floor(rate, peaks["bandwidth"])
        speeds = ["", "", ""]
        if row.ms > 0:
            speeds = [f"{row.bytes / row.ms / 1e6:,.0f}", f"{row.operations / row.ms / 1e9:.2f}", f"{floor / row.ms:.0%}"]
        figures = " | ".join([str(row.launches), f"{row.ms:.3f}", *speeds])
        lines.append(f"| {row.operation}, {row.what} | {row.precision} | {row.kernel} | {figures} |")
    return "\n".join(lines) + "\n"
