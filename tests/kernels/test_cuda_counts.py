"""What benchmarks/gpu_kernels.py counts of every kernel, by the launches that an operation makes; the kernels run on the CPU."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinynet.kernels.cuda.launch as launching
from benchmarks import gpu_bench, gpu_networks, gpu_operations
from benchmarks import gpu_figures as figures
from benchmarks import gpu_kernels as counted
from tests.benchmarks.test_gpu import net
from tests.device_double import DeviceArray, device_module
from tests.fake_gpu import fake_gpu
from tests.kernels.cuda_on_cpu import Cpu
from tinynet import backend, nn, optim
from tinynet import functional as F
from tinynet.kernels import cuda as package

SOURCES = Path(package.__file__).parent


@pytest.fixture(autouse=True)
def on_cuda(cuda: Cpu) -> Iterator[None]:
    yield


def launched(call: Callable[[], Any]) -> list[tuple[str, figures.Work]]:
    found: list[tuple[str, figures.Work]] = []

    def watch(kernel: str, arguments: Any, run: Callable[[], Any]) -> Any:
        found.append((kernel, counted.kernel_work(kernel, arguments)))
        return run()

    with launching.watching(watch):
        call()
    assert launching._watch is None
    return found


def array(*shape: int, seed: int = 0) -> DeviceArray:
    return device_module.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def total(found: list[tuple[str, figures.Work]], kernel: str) -> figures.Work:
    return figures.Work(*(sum(part) for part in zip(*(work for name, work in found if name == kernel), strict=True)))


def test_every_kernel_is_counted_and_no_other() -> None:
    text = "".join(re.sub(r"//.*", "", path.read_text(encoding="utf-8")) for path in SOURCES.glob("*.cu"))
    kernels = re.findall(r"__global__\s+void\s+(?:__launch_bounds__\(.*\)\s+)?(\w+)\(", text)
    assert {*kernels, "product"} == set(counted.COUNTED) and len(kernels) > 20


def test_a_watch_sees_every_launch_and_changes_nothing() -> None:
    x, w = array(2, 3, 9, 8), array(4, 3, 3, 3)
    expected = F.conv2d(x, w, padding=1, algorithm="im2col")
    kernels = []

    def watch(kernel: str, arguments: Any, run: Callable[[], Any]) -> Any:
        kernels.append(kernel)
        return run()

    with pytest.raises(KeyError), launching.watching(watch):
        found = F.conv2d(x, w, padding=1, algorithm="im2col")
        raise KeyError
    assert kernels == ["im2col", "product", "rows_to_maps"] and launching._watch is None
    np.testing.assert_array_equal(found.get(), expected.get())


@pytest.mark.parametrize("workspace", [1 << 30, 6000])
def test_columns(workspace: int) -> None:
    conv = figures.Conv("", 3, 4, 9, 6, 3, 2, 1, 2)
    x, w, dy, bias = array(3, 4, 9, 9), array(6, 2, 3, 3), array(3, 6, 5, 5), array(6)
    how: Any = {"stride": 2, "padding": 1, "groups": 2, "algorithm": "im2col"}
    columns, rows = 4 * 4 * 9 * 3 * 25, 4 * 6 * 3 * 25          # bytes
    with backend.gpu_options(workspace=workspace):
        found = launched(lambda: F.conv2d(x, w, bias, **how))
        back = launched(lambda: F.conv2d_input_gradient((3, 4, 9, 9), w, dy, **how))
        weights = launched(lambda: F.conv2d_weight_gradient(x, (6, 2, 3, 3), dy, **how))
    chunks = len(found) // 3
    assert (chunks > 1) == (workspace < 1 << 20)
    for made in (found, back, weights):
        assert total(made, "product").operations == figures.conv_work(conv).operations
    assert total(found, "im2col").bytes == pytest.approx(columns + x.nbytes)
    assert total(found, "product").bytes == columns + rows + w.nbytes * chunks
    assert total(found, "rows_to_maps") == (2 * 6 * 75, 2 * rows + bias.nbytes * chunks)
    assert total(back, "maps_to_rows") == (0, 2 * rows)
    assert total(back, "col2im") == (columns / 4, pytest.approx(columns + x.nbytes))
    assert total(weights, "im2col").bytes == pytest.approx(columns + x.nbytes)


@pytest.mark.parametrize("workspace", [1 << 30, 40_000])
def test_winograd_and_direct(workspace: int) -> None:
    x, w, dy, bias = array(2, 3, 10, 7), array(5, 3, 3, 3), array(2, 5, 10, 7), array(5)
    how: Any = {"padding": 1, "algorithm": "winograd4x4"}
    tiles = 2 * 3 * 2
    with backend.gpu_options(workspace=workspace):
        found = launched(lambda: F.conv2d(x, w, bias, **how))
        weights = launched(lambda: F.conv2d_weight_gradient(x, (5, 3, 3, 3), dy, **how))
    chunks = len([kernel for kernel, _ in found if kernel == "product"])
    assert total(found, "product").operations == 2 * 36 * tiles * 3 * 5
    assert total(found, "winograd_filters") == (12 * 9 * 15, 4 * 15 * 45)
    assert total(found, "winograd_input") == (19 * 12 * 3 * tiles, pytest.approx(x.nbytes + 4 * 36 * 3 * tiles))
    assert total(found, "winograd_output") == (
        13 * 10 * 5 * tiles, pytest.approx(dy.nbytes + 4 * 36 * 5 * tiles + chunks * bias.nbytes))
    assert total(weights, "winograd_signal") == (11 * 10 * 5 * tiles, pytest.approx(dy.nbytes + 4 * 36 * 5 * tiles))
    assert total(weights, "winograd_weight_gradient") == (15 * 9 * 15, 4 * 15 * 45)
    ((kernel, work),) = launched(lambda: F.conv2d(x, w, bias, padding=1, algorithm="direct"))
    assert kernel == "direct_conv2d" and work == (2 * 27 * dy.size, x.nbytes + w.nbytes + bias.nbytes + dy.nbytes)


def test_the_lines_of_winograds_transforms_are_those_of_the_source() -> None:
    text = (SOURCES / "winograd.cu").read_text(encoding="utf-8")
    of = {"filters": "filter", "input": "input", "output": "product", "signal": "signal", "weight_gradient": "filter_gradient"}
    for kernel, (operations, _) in counted.LINES.items():
        body = text.split(f"of_{of[kernel.removeprefix('winograd_')]}(", 1)[1].split("{", 1)[1].split("\n}", 1)[0]
        body = body.replace("/ -6", "/ 6")                      # a sign is no subtraction
        assert len(re.findall(r"[-+*/]", re.sub(r"//.*", "", body))) == operations, kernel


def test_the_other_kernels() -> None:
    x, size = array(2, 4, 6, 6), 4 * 288
    pooled = 4 * 2 * 4 * 9
    layer = nn.MaxPool2d(2)
    _, saved = layer.forward(x)
    (pool,) = launched(lambda: layer.forward(x))
    assert pool == ("max_pool", (4 * 72, size + pooled + 2 * pooled))
    assert launched(lambda: layer.input_gradient(saved, array(2, 4, 3, 3))) == [("unpool_windows", (72, size + 3 * pooled))]
    depthwise = launched(lambda: F.conv2d(x, array(4, 1, 3, 3), padding=1, groups=4))
    assert depthwise == [("depthwise", (2 * 9 * 288, 2 * size + 4 * 36))]
    one = launched(lambda: F.conv_relu(2, x, array(3, 4, 1, 1), array(3)))
    assert one == [("product", (2 * 72 * 12, size + 48 + 864)), ("bias_relu", (2 * 216, 2 * 864 + 12))]
    assert launched(lambda: F.linear(array(5, 7), array(3, 7))) == [("product", (2 * 105, 4 * (35 + 21 + 15)))]
    parameters = {name: array(*shape) for name, shape in (("a", (7, 5)), ("b", (3,)))}
    sgd, adam = optim.SGD(parameters, lr=0.1, momentum=0.9), optim.Adam(parameters, lr=0.1)
    assert launched(lambda: sgd.step(parameters)) == [("sgd", (4 * 38, 4 * 5 * 38))]
    assert launched(lambda: adam.step(parameters)) == [("adam", (12 * 38, 4 * 7 * 38))]


@pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")
def test_the_benchmark_takes_every_kernel_of_every_operation_and_the_table_says_how_far_they_are() -> None:
    clock = iter(range(1, 10**9))

    def launches(call: Callable[[], Any]) -> counted.Launched:
        return [(kernel, work, float(next(clock))) for kernel, work in launched(call)]

    bench = gpu_bench.Bench(
        "cpu", device_module.asarray, lambda call: (call(), 1.0)[1], lambda *calls: (0.0, 0.0), 2, 2, launches
    )
    grid = [figures.Conv("a", 2, 3, 9, 4, 3, 2, 1), figures.Conv("b", 1, 4, 5, 4, 3, 1, 1, 4), figures.Conv("c", 1, 2, 6, 2, 3)]
    rows = [*gpu_operations.convolutions(bench, grid, ["float32", "float16"]), *gpu_operations.others(bench, 2, 3, 6, 5)]
    rows += gpu_operations.optimisers(bench, [(3, 4), (5,)])
    model = net(np.random.default_rng(0))
    with fake_gpu():                                            # streams and pinned memory for the atlas
        rows += gpu_networks.network(bench, "net", model, 2, 12, 3, ["float32"])
    found = {row.kernel for row in bench.kernels}
    assert found >= set(counted.COUNTED) - {"unpool_sorted", "stray_switches", "add_along"}, set(counted.COUNTED) - found
    assert {(row.name, row.what, row.precision, row.way) for row in rows} == {
        (row.operation, row.what, row.precision, row.way) for row in bench.kernels
    }
    assert all(row.bytes > 0 and row.ms > 0 and row.launches > 0 for row in bench.kernels)
    text = counted.kernel_table(
        [
            counted.KernelRow("one", "forward", "tf32", "", "product", 2, 2.0, 4e9, 1e6),
            counted.KernelRow("one", "forward", "tf32", "", "im2col", 1, 4.0, 1e3, 2e9),
            counted.KernelRow("one", "forward", "tf32", "direct", "direct_conv2d", 1, 4.0, 1e3, 2e9),
        ], {"float32": 1e12, "tf32": 4e12, "bandwidth": 1e12},
    )  # fmt: skip
    assert text.splitlines()[-2:] == [
        "| one, forward | tf32 | product | 2 | 2.000 | 0 | 2.00 | 50% |",
        "| one, forward | tf32 | im2col | 1 | 4.000 | 500 | 0.00 | 50% |",
    ]
