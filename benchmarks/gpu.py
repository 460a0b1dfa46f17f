"""tinynet on CuPy against PyTorch on the same GPU: convolutions, pooling, loss, whole nets, projections; times, rates, rooflines.

    python benchmarks/gpu.py                    all of it: writes results/gpu.json and prints the table
    python benchmarks/gpu.py --only conv --quick

PyTorch runs eagerly, cuDNN in benchmark mode. Times are medians by CUDA events, behind a warm-up, over several input sets in
turn, the two libraries in turn within each round. Without a GPU it refuses.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tinynet
from tinynet import backend, interpret, nn, optim
from tinynet import functional as F
from tinynet.errors import DeviceError, TinynetError
from tinynet.models import create, names

if __package__ in (None, ""):                                   # run as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.gpu_figures import GRID, PRECISIONS, Conv, Row, Work, conv_work, loss_work, pool_work, table

RESULTS = Path(__file__).parent / "results"


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


def to_torch(model: nn.Layer) -> Any:
    """The same network as torch.nn modules with the same weights, for a Sequential of the common layers."""
    import torch

    def module(layer: Any) -> Any:
        if isinstance(layer, nn.Sequential):
            return torch.nn.Sequential(*[module(child) for _, child in layer.named_children()])
        make = getattr(torch.nn, type(layer).__name__, None)
        if make is None:
            raise TinynetError(f"to_torch: no module of PyTorch for {type(layer).__name__}")
        options = {name: getattr(layer, name) for name in layer.config_names}
        if layer.parameter_names and not isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            options["bias"] = layer.bias is not None
        made = make(**options)
        state = {name: torch.as_tensor(np.array(backend.to_host(x))) for name, x in layer.state_dict().items()}
        made.load_state_dict(state)
        return made

    return module(model)


class Bench:
    """Where both libraries run. device: PyTorch's. move: a host array to ours. clock: milliseconds of a call. peak: its MiB."""

    def __init__(
        self, device: str, move: Callable[[np.ndarray], Any], clock: Clock, peak: Callable[[Any], float], rounds: int, sets: int
    ) -> None:
        self.device, self.move, self.clock, self.peak, self.rounds, self.sets = device, move, clock, peak, rounds, sets
        self.rng = np.random.default_rng(0)

    def inputs(self, *shape: int) -> tuple[list[Any], list[Any]]:
        """Several input sets of normal numbers, ours and PyTorch's."""
        import torch

        hosts = [self.rng.standard_normal(shape, dtype=np.float32) for _ in range(self.sets)]
        return [self.move(host) for host in hosts], [torch.from_numpy(host).to(self.device) for host in hosts]

    def row(
        self, group: str, name: str, what: str, precision: str, images: int, work: Work | None, ours: Any, theirs: Any
    ) -> Row:
        with backend.gpu_options(precision=precision), torch_precision(precision, self.device):
            mine, its = measure((ours, theirs), self.clock, self.rounds, self.sets)
            peak = self.peak(lambda: ours(0))
        operations, size = work or (0.0, 0.0)
        return Row(group, name, what, precision, mine, its, images, operations, size, peak)

    def convolutions(self, grid: Iterable[Conv], precisions: Iterable[str]) -> Iterable[Row]:
        for conv in grid:
            for what, ours, theirs in self.convolution(conv):
                for precision in precisions:
                    yield self.row("convolutions", conv.name, what, precision, conv.n, conv_work(conv), ours, theirs)

    def convolution(self, conv: Conv) -> list[tuple[str, Any, Any]]:
        """(pass, ours, PyTorch's) of the three passes."""
        import torch

        x, tx = self.inputs(conv.n, conv.c, conv.size, conv.size)
        w, tw = self.inputs(conv.o, conv.c // conv.groups, conv.kernel, conv.kernel)
        dy, tdy = self.inputs(conv.n, conv.o, conv.out, conv.out)
        how: Any = {"stride": conv.stride, "padding": conv.padding, "groups": conv.groups}
        x_size, w_size = tuple(x[0].shape), tuple(w[0].shape)

        def gradient(which: int, i: int) -> Any:
            return torch.ops.aten.convolution_backward(
                tdy[i], tx[i], tw[i], None, [conv.stride] * 2, [conv.padding] * 2, [1, 1], False, [0, 0], conv.groups,
                [which == 0, which == 1, False],
            )[which]

        return [
            ("forward", lambda i: F.conv2d(x[i], w[i], **how), lambda i: torch.nn.functional.conv2d(tx[i], tw[i], **how)),
            ("input gradient", lambda i: F.conv2d_input_gradient(x_size, w[i], dy[i], **how), partial(gradient, 0)),
            ("weight gradient", lambda i: F.conv2d_weight_gradient(x[i], w_size, dy[i], **how), partial(gradient, 1)),
        ]

    def others(self, n: int, c: int, size: int, classes: int) -> Iterable[Row]:
        """Max-pooling with switches, unpooling, and the loss with its gradient."""
        import torch

        torch_f = torch.nn.functional
        x, tx = self.inputs(n, c, size, size)
        work = pool_work(n, c, size, 2, 2)
        yield self.row(
            "pooling and loss", f"max-pool 2x2 of {size}²", "with switches", "float32", n, work,
            lambda i: F.max_pool2d(x[i], 2, return_indices=True), lambda i: torch_f.max_pool2d(tx[i], 2, return_indices=True))
        pooled, theirs = F.max_pool2d(x[0], 2, return_indices=True), torch_f.max_pool2d(tx[0], 2, return_indices=True)
        yield self.row(
            "pooling and loss", f"unpool 2x2 to {size}²", "overwrite", "float32", n, work,
            lambda i: F.max_unpool2d(*pooled, 2, output_size=(size, size)),
            lambda i: torch_f.max_unpool2d(*theirs, 2, output_size=(size, size)))
        logits, tl = self.inputs(n, classes)
        target = self.rng.integers(0, classes, n)
        ours_target, torch_target = self.move(target), torch.from_numpy(target).to(self.device)
        loss = nn.CrossEntropyLoss()

        def both(i: int) -> Any:
            leaf = tl[i].detach().requires_grad_()
            value = torch_f.cross_entropy(leaf, torch_target)
            return value, torch.autograd.grad(value, leaf)

        yield self.row("pooling and loss", f"cross-entropy of {classes}", "with gradient", "float32", n, loss_work(n, classes),
                       lambda i: loss(logits[i], ours_target), both)

    def network(
        self, name: str, model: nn.Sequential, n: int, size: int, classes: int, precisions: Iterable[str]
    ) -> Iterable[Row]:
        """A step of training, inference, and the projection of a unit for each image (Captum's, for PyTorch)."""
        import torch
        from captum.attr import NeuronDeconvolution

        theirs = to_torch(model).to(self.device)
        model.to(dtype=np.float32)
        for _, layer, attribute in model._state():
            setattr(layer, attribute, self.move(np.asarray(backend.to_host(getattr(layer, attribute)))))
        x, tx = self.inputs(n, 3, size, size)
        target = self.rng.integers(0, classes, n)
        ours_target, torch_target = self.move(target), torch.from_numpy(target).to(self.device)
        optimizer = optim.SGD(model.named_parameters(), lr=1e-4, momentum=0.9)
        torch_optimizer = torch.optim.SGD(theirs.parameters(), lr=1e-4, momentum=0.9, foreach=True)
        loss, rng = nn.CrossEntropyLoss(), np.random.default_rng(0)

        def step(i: int) -> None:
            logits, saved = model.forward(x[i], train=True, rng=rng)
            _, gradients = nn.backward(model, saved, loss(logits, ours_target)[1], input_gradient=False)
            optimizer.step(gradients)

        def torch_step(i: int) -> None:
            theirs.train()
            torch_optimizer.zero_grad()
            torch.nn.functional.cross_entropy(theirs(tx[i]), torch_target).backward()
            torch_optimizer.step()

        def torch_infer(i: int) -> None:
            theirs.eval()
            with torch.no_grad():
                theirs(tx[i])

        rows = [("train", step, torch_step), ("inference", lambda i: model(x[i]), torch_infer)]
        layer = [path for path, child in model.layers() if isinstance(child, nn.Conv2d)][-1]
        place = [path for path, child in model.layers() if path and not list(child.children())].index(layer)
        convolution = [m for m in theirs.modules() if not list(m.children())][place]
        project, captum = interpret.deconvnet(model), NeuronDeconvolution(theirs, convolution)

        def torch_project(i: int) -> None:
            theirs.eval()
            captum.attribute(tx[i].detach().requires_grad_(), lambda y: y[:, 0].amax(dim=(1, 2)))

        rows.append(("projection", lambda i: project.attribute(x[i], layer=layer, unit=(0, "max")), torch_project))

        def atlas(i: int) -> None:                              # the strongest units of one image each, one after the other
            for channel in range(4):
                project.attribute(x[i][:1], layer=layer, unit=(channel, "max"))

        def torch_atlas(i: int) -> None:
            for channel in range(4):
                captum.attribute(tx[i][:1].detach().requires_grad_(), lambda y, channel=channel: y[:, channel].amax(dim=(1, 2)))

        rows.append(("atlas", atlas, torch_atlas))
        for what, mine, its in rows:
            group = "networks" if what in ("train", "inference") else "projections"
            for precision in precisions:
                yield self.row(group, name, what, precision, n, None, mine, its)


@contextmanager
def torch_precision(precision: str, device: str) -> Iterator[None]:
    """PyTorch in that precision: TF32 allowed or not, float16 by autocast."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    half = torch.autocast(device.partition(":")[0], dtype=torch.float16, enabled=precision == "float16")
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=precision == "tf32"), half:
        yield


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

    def peak(call: Callable[[], Any]) -> float:
        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.used_bytes()
        call()
        cupy.cuda.Device().synchronize()
        return (pool.total_bytes() - before) / (1 << 20)

    bench = Bench("cuda", cupy.asarray, clock, peak, 5 if options.quick else 30, 3)
    precisions = PRECISIONS[:1] if options.quick else PRECISIONS
    rows: list[Row] = []
    if options.only in (None, "conv"):
        rows += bench.convolutions(GRID, precisions)
    if options.only in (None, "others"):
        rows += bench.others(64, 64, 112, 1000)
    if options.only in (None, "networks"):
        for name in ("vgg11", "alexnet"):
            if name not in names():
                print(f"gpu: no model {name} here, left out")
                continue
            model = create(name, rng=np.random.default_rng(0))
            rows += bench.network(name, model, 32, 224, 1000, precisions)  # type: ignore[arg-type]
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    record = {
        "gpu": properties["name"].decode(), "driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda": cupy.cuda.runtime.runtimeGetVersion(), "cupy": cupy.__version__, "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(), "numpy": np.__version__, "tinynet": tinynet.__version__,
        "python": platform.python_version(), "peaks": peaks(cupy, clock), "rows": [asdict(row) for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "gpu.md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
