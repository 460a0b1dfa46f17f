"""The GPU benchmark where no GPU is: it refuses in one line; its counts, its table and its bodies hold, on the host and tiny."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu, gpu_bench, gpu_networks, gpu_operations
from benchmarks import gpu_figures as figures
from benchmarks.twin import twin
from tests.device_double import device_module
from tinynet import nn
from tinynet.models import create

ROOT = Path(__file__).parents[2]


def test_it_refuses_in_one_line_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("here is a GPU")
    run = subprocess.run([sys.executable, "benchmarks/gpu.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and run.stderr.startswith("gpu: CUDA was asked for") and run.stderr.count("\n") == 1, run.stderr
    assert not (ROOT / "benchmarks" / "results" / "gpu.json").exists(), "no figures without a GPU"


@pytest.mark.parametrize("conv", figures.GRID, ids=lambda conv: conv.name)
def test_the_operations_of_a_convolution_are_pytorchs(conv: figures.Conv) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.empty((conv.n, conv.c, conv.size, conv.size), device="meta")
    w = torch.empty((conv.o, conv.c // conv.groups, conv.kernel, conv.kernel), device="meta")
    with FlopCounterMode(display=False) as counter:
        y = torch.nn.functional.conv2d(x, w, None, conv.stride, conv.padding, 1, conv.groups)
    work = figures.conv_work(conv)
    assert work.operations == counter.get_total_flops()
    assert work.bytes == 4 * (x.numel() + w.numel() + y.numel())


def test_the_roofline_is_the_slower_of_the_two() -> None:
    assert figures.Work(1e12, 1e9).floor(1e12, 1e12) == 1
    assert figures.Work(1e9, 3e12).floor(1e12, 1e12) == 3
    assert figures.pool_work(1, 1, 5, 2, 2) == figures.Work(16, 4 * 25 + 12 * 4)
    assert figures.loss_work(2, 10) == figures.Work(100, 8 * 20 + 16)


def test_the_median_is_taken_over_rounds_in_turn_and_over_input_sets() -> None:
    calls: list[tuple[str, int]] = []
    times = iter([9.0, 1.0, 5.0, 2.0, 7.0, 3.0])

    def clock(call: Any) -> float:
        call()
        return next(times)

    sides = [lambda i, name=name: calls.append((name, i)) for name in "ab"]
    assert gpu_bench.measure(sides, clock, 3, 2) == [7.0, 2.0]
    assert calls[:4] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]             # the warm-up
    assert calls[4:] == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 0), ("b", 0)]


def test_the_table_says_rates_shares_and_means() -> None:
    rows = [
        figures.Row("convolutions", "one", "forward", "float32", 2.0, 1.0, 10, 1e10, 1e9, 5.0, 7.0),
        figures.Row("convolutions", "two", "forward", "float32", 0.5, 1.0, 10, 1e9, 1e6),
        figures.Row("networks", "net", "train", "tf32", 4.0, 2.0, 8),
        figures.Row("ways", "one", "forward", "float32", 1.5, 1.0, 10, 1e10, 1e9, 5.0, 0.0, "winograd4x4"),
        figures.Row("ways", "one", "forward", "float32", 1.8, 1.0, 10, 1e10, 1e9, 5.0, 0.0, "im2col"),
        figures.Row("ways", "two", "forward", "float32", 0.49, 1.0, 10, 1e9, 1e6, 0.0, 0.0, "im2col"),
    ]
    record = {
        **{name: name.upper() for name in ("gpu", "driver", "cuda", "cupy", "torch", "cudnn")},
        "peaks": {"float32": 1e13, "tf32": 2e13, "bandwidth": 1e12}, "rows": [asdict(row) for row in rows],
    }
    lines = figures.table(record).splitlines()
    assert lines[0].startswith("GPU, driver DRIVER, CUDA CUDA; CuPy CUPY, PyTorch TORCH, cuDNN CUDNN. Measured peaks: cuBLAS")
    assert "| one, forward | float32 | 2.000 | 1.000 | 2.00 | 5,000 | 5.00 | 50% | 50% | 5 | 7 |" in lines
    assert "| net, train | tf32 | 4.000 | 2.000 | 2.00 | 2,000 |  |  |  | 0 | 0 |" in lines
    assert "| one, forward by winograd4x4 | float32 | 1.500 | 1.000 | 1.50 | 6,667 | 6.67 | 67% | 67% | 5 | 0 |" in lines
    assert "| convolutions | 1.00 |  |  |" in lines and "| networks |  | 2.00 |  |" in lines and "| ways |" not in "".join(lines)
    wrong = lines.index("| chosen wrongly (tinynet/kernels/cuda/choice.py) | ms | better | ms |")
    assert lines[wrong + 2 : wrong + 4] == ["| one, forward, float32 | 2.000 | winograd4x4 | 1.500 |", ""]
    fine = figures.table({**record, "rows": [asdict(row) for row in (rows[1], rows[-1])]})
    assert "No other way of a convolution was quicker than the chosen one" in fine


def net(rng: np.random.Generator) -> nn.Sequential:
    return nn.Sequential(
        conv1=nn.Conv2d(3, 4, 3, padding=1, rng=rng), norm=nn.BatchNorm2d(4), relu1=nn.ReLU(), pool=nn.MaxPool2d(2),
        inner=nn.Sequential(conv2=nn.Conv2d(4, 5, 3, stride=2, rng=rng), relu2=nn.ReLU()), average=nn.AdaptiveAvgPool2d(2),
        flatten=nn.Flatten(), drop=nn.Dropout(0.5), fc=nn.Linear(20, 3, rng=rng),
    )


def test_the_twin_is_the_same_network() -> None:
    model, x = net(np.random.default_rng(0)), np.random.default_rng(1).standard_normal((2, 3, 12, 12)).astype(np.float32)
    with torch.no_grad():
        expected = twin(model).eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("name", gpu.NETWORKS)
def test_the_operations_of_the_networks_are_pytorchs(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = create(name, rng=np.random.default_rng(0))
    theirs, x = twin(model).to("meta"), torch.empty((2, 3, 224, 224), device="meta")
    with FlopCounterMode(display=False) as forward:
        y = theirs.eval()(x)
    assert figures.network_work(model, 2, (3, 224, 224)).operations == forward.get_total_flops()
    with FlopCounterMode(display=False) as step:
        theirs(x).sum().backward()                              # x asks for no gradient: the first layer computes none
    assert figures.training_work(model, 2, (3, 224, 224)).operations == step.get_total_flops()
    numbers = sum(p.numel() for p in theirs.parameters())
    assert figures.network_work(model, 2, (3, 224, 224)).bytes == 4 * (numbers + x.numel())
    assert y.shape == (2, 1000)


@pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")
@pytest.mark.parametrize("move", [lambda x: x, device_module.asarray], ids=["host", "double"])
def test_every_body_of_the_benchmark_runs(move: Any) -> None:
    def clock(call: Any) -> float:
        begin = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - begin) + 1e-6

    bench = gpu_bench.Bench("cpu", move, clock, lambda *calls: (0.0, 0.0), 1, 2)
    grid = [figures.Conv("a", 2, 3, 9, 4, 3, 2, 1), figures.Conv("b", 1, 4, 5, 8, 3, 1, 1, 2), figures.Conv("c", 1, 2, 6, 2, 3)]
    rows = [*gpu_operations.convolutions(bench, grid, ["float32"]), *gpu_operations.others(bench, 2, 3, 6, 5)]
    rows += gpu_operations.optimisers(bench, [(3, 4), (5,)])
    rows += gpu_networks.network(bench, "net", net(np.random.default_rng(0)), 2, 12, 3, ["float32"])
    assert [(row.name, row.what) for row in rows if not row.way][:3] == [("a", what) for what in figures.PASSES]
    assert {(row.name, row.way) for row in rows if row.way} == {
        ("a", "im2col"), ("b", "im2col"), ("c", "im2col"), ("c", "winograd4x4")
    }
    assert figures.ways(grid[2], "forward", "float32", True) == ["im2col", "winograd4x4", "direct"]
    assert figures.ways(grid[0], "input gradient", "float32", True) == ["im2col"]
    assert figures.ways(grid[1], "forward", "tf32", True) == ["im2col"]
    assert [row.what for row in rows[-4:]] == ["train", "inference", "projection", "atlas"]
    assert all(row.ratio > 0 for row in rows) and len(rows) == 9 + 9 + 3 + 8 + 3 + 4
    assert all(row.operations > 0 and row.bytes > 0 for row in rows[:-2])     # of a walk back there is no least work to name
