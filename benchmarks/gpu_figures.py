"""What benchmarks/gpu.py counts and prints: operations, bytes, the roofline, the table. Needs no GPU."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tinynet.nn import Layer, summary

PRECISIONS = ("float32", "tf32", "float16")


class Conv(NamedTuple):
    """One convolution of the grid, square."""

    name: str
    n: int
    c: int
    size: int
    o: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def out(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1


GRID = (
    Conv("VGG conv1", 32, 3, 224, 64, 3, 1, 1), Conv("VGG conv2", 32, 64, 112, 128, 3, 1, 1),
    Conv("VGG conv3", 32, 256, 56, 256, 3, 1, 1), Conv("VGG conv5", 32, 512, 14, 512, 3, 1, 1),
    Conv("AlexNet conv1", 64, 3, 224, 64, 11, 4, 2), Conv("AlexNet conv2", 64, 64, 27, 192, 5, 1, 2),
    Conv("ZFNet conv1", 32, 3, 224, 96, 7, 2, 1), Conv("ResNet stem", 32, 3, 224, 64, 7, 2, 3),
    Conv("ResNet 3x3/2", 32, 128, 56, 128, 3, 2, 1), Conv("pointwise", 32, 256, 56, 64, 1),
    Conv("small maps", 64, 512, 7, 512, 3, 1, 1),
    Conv("depthwise", 32, 144, 56, 144, 3, 1, 1, 144), Conv("CIFAR", 128, 32, 32, 64, 3, 1, 1),
)
PASSES = ("forward", "input gradient", "weight gradient")


def ways(conv: Conv, what: str, precision: str, gpu: bool) -> list[str]:
    """The algorithms that a pass of a convolution can be asked for by name. gpu: whether the CUDA kernels run."""
    found = ["im2col"]
    if (conv.kernel, conv.stride, conv.groups) == (3, 1, 1):
        found.append("winograd4x4")
    if gpu and precision == "float32" and (what == "forward" or (what == "input gradient" and conv.stride == 1)):
        found.append("direct")
    return found


class Work(NamedTuple):
    """What a kernel must do at least: multiplications and additions, and bytes that go between memory and the chip once."""

    operations: float
    bytes: float

    def floor(self, rate: float, bandwidth: float) -> float:
        """Seconds below which no kernel can be (the roofline). rate: operations a second; bandwidth: bytes a second."""
        return max(self.operations / rate, self.bytes / bandwidth)


def conv_work(conv: Conv, itemsize: int = 4) -> Work:
    """Of each of the three passes alike: two of the arrays x, w, y are read, the third is written."""
    x, y = conv.n * conv.c * conv.size**2, conv.n * conv.o * conv.out**2
    w = conv.o * conv.c // conv.groups * conv.kernel**2
    return Work(2 * y * conv.c // conv.groups * conv.kernel**2, itemsize * (x + w + y))


def pool_work(n: int, c: int, size: int, kernel: int, stride: int) -> Work:
    """Max-pooling with switches of int64: x is read, y and the switches are written; a comparison a cell of a window."""
    out = (size - kernel) // stride + 1
    y = n * c * out**2
    return Work(y * kernel**2, 4 * n * c * size**2 + (4 + 8) * y)


def elementwise(numbers: int, operations: float, arrays: float) -> Work:
    """A kernel that does so many operations a number, and reads or writes so many arrays of float32 once."""
    return Work(operations * numbers, 4 * arrays * numbers)


def network_work(model: Layer, n: int, input: tuple[int, int, int]) -> Work:
    """Inference: the products of convolutions and linear layers; weights and photos are read, what is between may stay inside."""
    table = summary(model, input)
    return Work(2 * n * table.multiply_adds, 4 * (table.parameters + n * math.prod(input)))


def training_work(model: Layer, n: int, input: tuple[int, int, int]) -> Work:
    """A step: three passes through every layer but for the input gradient of the first; parameters updated with momentum.

    Bytes besides those of inference: the gradient written and read, the momentum and the weights read and written.
    """
    table, forward = summary(model, input), network_work(model, n, input)
    first = next(row.multiply_adds for row in table.rows if row.multiply_adds)
    return Work(3 * forward.operations - 2 * n * first, forward.bytes + 4 * 6 * table.parameters)


def loss_work(n: int, classes: int) -> Work:
    """Softmax and cross-entropy with its gradient: logits read, gradient written, targets read; about 5 operations a logit."""
    return Work(5 * n * classes, 2 * 4 * n * classes + 8 * n)


@dataclass
class Row:
    """One line of the table. ms: medians. operations, bytes: see Work; 0 where they are not counted. way: asked for by name."""

    group: str
    name: str
    what: str
    precision: str
    ours_ms: float
    torch_ms: float
    images: int
    operations: float = 0.0
    bytes: float = 0.0
    peak_mib: float = 0.0
    torch_peak_mib: float = 0.0
    way: str = ""

    @property
    def ratio(self) -> float:
        """Our time over PyTorch's: below 1 is faster."""
        return self.ours_ms / self.torch_ms


def geometric_mean(ratios: Iterable[float]) -> float:
    """exp of the mean logarithm; nan of nothing."""
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def wrong_choices(rows: list[Row]) -> list[str]:
    """Where another way of a convolution took less time than the one that was chosen, by more than a twentieth."""
    lines: list[str] = []
    for row in rows:
        key = row.name, row.what, row.precision
        others = [other for other in rows if other.way and (other.name, other.what, other.precision) == key]
        if row.group == "convolutions" and others:
            best = min(others, key=lambda other: other.ours_ms)
            if best.ours_ms < 0.95 * row.ours_ms:
                lines.append(f"| {', '.join(key)} | {row.ours_ms:.3f} | {best.way} | {best.ours_ms:.3f} |")
    if not any(row.way for row in rows):
        return []
    head = ["", "| chosen wrongly (tinynet/kernels/cuda/choice.py) | ms | better | ms |", "|---|---|---|---|"]
    return [*head, *lines] if lines else ["", "No other way of a convolution was quicker than the chosen one by more than 5 %."]


def table(record: dict[str, Any]) -> str:
    """The results as a Markdown table, and the geometric means of the ratios by group and precision."""
    peaks, rows = record["peaks"], [Row(**row) for row in record["rows"]]
    lines = [
        f"{record['gpu']}, driver {record['driver']}, CUDA {record['cuda']}; CuPy {record['cupy']}, PyTorch {record['torch']}, "
        f"cuDNN {record['cudnn']}. Measured peaks: "
        + ", ".join(f"cuBLAS {name} {peaks[name] / 1e12:.1f} TFLOP/s" for name in PRECISIONS if name in peaks)
        + f", memory {peaks['bandwidth'] / 1e9:,.0f} GB/s.",
        "",
        "| what | precision | ours ms | PyTorch ms | ratio | images/s | TFLOP/s | of cuBLAS | of roofline | MiB | PyTorch's |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate = row.operations / row.ours_ms * 1e3
        floor = Work(row.operations, row.bytes).floor(peaks.get(row.precision, math.inf), peaks["bandwidth"])
        counted = ["", "", ""]
        if row.operations:
            counted = [f"{rate / 1e12:.2f}", f"{rate / peaks[row.precision]:.0%}", f"{floor / row.ours_ms * 1e3:.0%}"]
        lines.append(
            f"| {row.name}, {row.what}{row.way and f' by {row.way}'} | {row.precision} | "
            f"{row.ours_ms:.3f} | {row.torch_ms:.3f} | {row.ratio:.2f} | "
            f"{row.images / row.ours_ms * 1e3:,.0f} | {' | '.join(counted)} | {row.peak_mib:,.0f} | {row.torch_peak_mib:,.0f} |"
        )
    lines += wrong_choices(rows)
    lines += ["", "| geometric mean of the ratios | " + " | ".join(PRECISIONS) + " |", "|---|" + "---|" * len(PRECISIONS)]
    for group in dict.fromkeys(row.group for row in rows if not row.way):
        means = [geometric_mean(row.ratio for row in rows if (row.group, row.precision) == (group, p)) for p in PRECISIONS]
        lines.append(f"| {group} | " + " | ".join("" if math.isnan(mean) else f"{mean:.2f}" for mean in means) + " |")
    return "\n".join(lines) + "\n"
