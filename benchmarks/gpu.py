"""tinynet on CuPy against PyTorch on the same GPU: convolutions, the other kernels, VGG11 and AlexNet; times, rates, rooflines.

    python benchmarks/gpu.py                    all of it: writes results/gpu.json and prints the table
    python benchmarks/gpu.py --only conv --quick

PyTorch runs eagerly, cuDNN in benchmark mode. Times are medians by CUDA events, behind a warm-up, over several input sets in
turn, the two libraries in turn within each round. Without a GPU it refuses.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import tinynet
from tinynet import backend
from tinynet import functional as F
from tinynet.errors import DeviceError
from tinynet.kernels.cuda.launch import watching
from tinynet.models import create

if __package__ in (None, ""):                                   # run as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.gpu_bench import Bench, Clock, measure
from benchmarks.gpu_figures import GRID, PRECISIONS, Row, table
from benchmarks.gpu_kernels import Launched, kernel_table, kernel_work
from benchmarks.gpu_networks import network
from benchmarks.gpu_operations import convolutions, optimisers, others

RESULTS = Path(__file__).parent / "results"
NETWORKS = ("vgg11", "alexnet")


def peaks(cupy: Any, clock: Clock) -> dict[str, float]:
    """What the GPU reaches at best, measured: operations a second of square products by cuBLAS, bytes a second of a copy."""
    found, n = {}, 8192
    a = cupy.ones((n, n), dtype=np.float32)
    linear = F.linear
    for precision in PRECISIONS:
        with backend.gpu_options(precision=precision):
            found[precision] = 2 * n**3 / measure([lambda _: linear(a, a)], clock, 10, 1)[0] * 1e3
    big, other = (cupy.zeros(1 << 28, dtype=np.float32) for _ in range(2))
    found["bandwidth"] = 2 * big.nbytes / measure([lambda _: cupy.copyto(other, big)], clock, 10, 1)[0] * 1e3
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=["conv", "others", "networks"])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, float32 alone")
    options = parser.parse_args()
    try:
        backend.device("cuda")
    except DeviceError as error:
        raise SystemExit(f"gpu: {error}") from None
    import cupy
    import torch

    warnings.filterwarnings("ignore", message="Setting backward hooks")     # Captum's, at every call
    if not torch.cuda.is_available():
        raise SystemExit("gpu: this PyTorch sees no GPU; install a build with CUDA to compare with")

    def clock(call: Callable[[], Any]) -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin.record()                                          # both libraries use the default stream
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def peak(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float]:
        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.used_bytes()
        ours()
        cupy.cuda.Device().synchronize()
        mine = pool.total_bytes() - before                      # the pool takes what it lacks, and gives nothing back
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        theirs()
        torch.cuda.synchronize()
        return mine / (1 << 20), (torch.cuda.max_memory_allocated() - before) / (1 << 20)

    ahead = [cupy.zeros(1 << 28, dtype=np.float32) for _ in range(2)]

    def launches(call: Callable[[], Any]) -> Launched:
        found = []

        def watch(kernel: str, arguments: Sequence[Any], run: Callable[[], Any]) -> Any:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            result = run()
            end.record()
            found.append((kernel, kernel_work(kernel, arguments), begin, end))
            return result

        torch.cuda.synchronize()
        cupy.copyto(*ahead)                                     # meanwhile the host gets ahead: no kernel waits for it
        with watching(watch):
            call()
        torch.cuda.synchronize()
        return [(kernel, work, begin.elapsed_time(end)) for kernel, work, begin, end in found]

    bench = Bench("cuda", cupy.asarray, clock, peak, 5 if options.quick else 30, 3, launches)
    precisions = PRECISIONS[:1] if options.quick else PRECISIONS
    rows: list[Row] = []
    if options.only in (None, "conv"):
        rows += convolutions(bench, GRID, precisions)
    if options.only in (None, "others"):
        rows += others(bench, 64, 64, 112, 1000)
        parameters = create(NETWORKS[0], rng=np.random.default_rng(0)).named_parameters()
        rows += optimisers(bench, [p.shape for p in parameters.values()])
    if options.only in (None, "networks"):
        for name in NETWORKS:
            rows += network(bench, name, create(name, rng=np.random.default_rng(0)), 32, 224, 1000, precisions)  # type: ignore[arg-type]
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    record = {
        "gpu": properties["name"].decode(), "driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda": cupy.cuda.runtime.runtimeGetVersion(), "cupy": cupy.__version__, "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(), "numpy": np.__version__, "tinynet": tinynet.__version__,
        "python": platform.python_version(), "peaks": peaks(cupy, clock), "rows": [asdict(row) for row in rows],
        "kernels": [asdict(row) for row in bench.kernels],
    }
    text = table(record) + "\n" + kernel_table(bench.kernels, record["peaks"])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "gpu.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
