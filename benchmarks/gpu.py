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
from tinynet.distributed import Shards
from tinynet.errors import DeviceError
from tinynet.interpret.patches import unit_walk
from tinynet.interpret.unit_walks import Photo, UnitWalks
from tinynet.interpret.units import record
from tinynet.kernels.cuda import here
from tinynet.kernels.cuda.launch import watching
from tinynet.models import create
from tinynet.nn.receptive_field import receptive_field

if __package__ in (None, ""):                                   # run as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.gpu_figures import (
    GRID,
    PRECISIONS,
    Conv,
    Row,
    Work,
    conv_work,
    elementwise,
    loss_work,
    network_work,
    pool_work,
    table,
    training_work,
    ways,
)  # fmt: skip
from benchmarks.gpu_kernels import KernelRow, Launched, kernel_rows, kernel_table, kernel_work

RESULTS = Path(__file__).parent / "results"
NETWORKS = ("vgg11", "alexnet")

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

    def convolutions(self, grid: Iterable[Conv], precisions: Sequence[str]) -> Iterable[Row]:
        """Each convolution as it is chosen, and in each way that it can be done."""
        for conv in grid:
            for what, ours, theirs in self.convolution(conv):
                for precision in precisions:
                    yield self.row("convolutions", conv.name, what, precision, conv.n, conv_work(conv), ours, theirs)
                    for way in ways(conv, what, precision, here(self.move(np.zeros(1)))):
                        yield self.row("ways", conv.name, what, precision, conv.n, conv_work(conv), partial(ours, algorithm=way),
                                       theirs, way)

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
            ("forward", lambda i, **way: F.conv2d(x[i], w[i], **how, **way),
             lambda i: torch.nn.functional.conv2d(tx[i], tw[i], **how)),
            ("input gradient", lambda i, **way: F.conv2d_input_gradient(x_size, w[i], dy[i], **how, **way),
             partial(gradient, 0)),
            ("weight gradient", lambda i, **way: F.conv2d_weight_gradient(x[i], w_size, dy[i], **how, **way),
             partial(gradient, 1)),
        ]

    def others(self, n: int, c: int, size: int, classes: int) -> Iterable[Row]:
        """The kernels beside convolutions: pooling and its ways back, normalisation, bias + ReLU, dropout, the loss."""
        import torch

        torch_f, aten, group = torch.nn.functional, torch.ops.aten, "pooling and loss"
        x, tx = self.inputs(n, c, size, size)
        work = pool_work(n, c, size, 2, 2)

        def one(name: str, what: str, work: Work, ours: Any, theirs: Any, group: str = "other kernels") -> Row:
            return self.row(group, name, what, "float32", n, work, ours, theirs)

        yield one(f"max-pool 2x2 of {size}²", "with switches", work, lambda i: F.max_pool2d(x[i], 2, return_indices=True),
                  lambda i: torch_f.max_pool2d(tx[i], 2, return_indices=True), group)
        layer = nn.MaxPool2d(2)
        pooled, saved = layer.forward(x[0])
        theirs = torch_f.max_pool2d(tx[0], 2, return_indices=True)
        windows = [2, 2], [2, 2], [0, 0], [1, 1], False
        yield one(f"max-pool 2x2 of {size}²", "gradient", work, lambda i: layer.input_gradient(saved, pooled),
                  lambda i: aten.max_pool2d_with_indices_backward(theirs[0], tx[0], *windows, theirs[1]), group)
        yield one(f"unpool 2x2 to {size}²", "overwrite", work,
                  lambda i: F.max_unpool2d(pooled, saved.indices, 2, output_size=(size, size)),
                  lambda i: torch_f.max_unpool2d(*theirs, 2, output_size=(size, size)), group)
        logits, tl = self.inputs(n, classes)
        target = self.rng.integers(0, classes, n)
        ours_target, torch_target = self.move(target), torch.from_numpy(target).to(self.device)
        loss = nn.CrossEntropyLoss()

        def both(i: int) -> Any:
            leaf = tl[i].detach().requires_grad_()
            value = torch_f.cross_entropy(leaf, torch_target)
            return value, torch.autograd.grad(value, leaf)

        yield one(f"cross-entropy of {classes}", "with gradient", loss_work(n, classes),
                  lambda i: loss(logits[i], ours_target), both, group)

        dy, tdy = self.inputs(n, c, size, size)
        bias, torch_bias = (side[0] for side in self.inputs(c))
        numbers = n * c * size**2
        norm = nn.BatchNorm2d(c)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(norm, name, self.move(np.asarray(getattr(norm, name))))
        torch_norm = torch.nn.BatchNorm2d(c).to(self.device)

        def norm_ours(i: int) -> None:
            kept = norm.forward(x[i], train=True)[1]
            norm.input_gradient(kept, dy[i])
            norm.parameter_gradients(kept, dy[i])

        def norm_theirs(i: int) -> None:
            leaf = tx[i].detach().requires_grad_()
            torch.autograd.grad(torch_norm(leaf), (leaf, torch_norm.weight, torch_norm.bias), tdy[i])

        yield one(f"batch norm of {size}²", "forward", elementwise(numbers, 8, 2), lambda i: norm.forward(x[i], train=True),
                  lambda i: torch_norm(tx[i]))
        yield one(f"batch norm of {size}²", "forward and gradients", elementwise(numbers, 20, 5), norm_ours, norm_theirs)
        dropout, rng = nn.Dropout(0.5), np.random.default_rng(0)
        yield one(f"dropout of {size}²", "forward", elementwise(numbers, 2, 2), lambda i: dropout.forward(x[i], True, rng),
                  lambda i: torch_f.dropout(tx[i], 0.5, True))
        w, torch_w = self.inputs(c, c, 1, 1)
        product = conv_work(Conv("", n, c, size, c, 1))
        yield one(f"1x1, bias, ReLU of {size}²", "inference", product, lambda i: F.conv_relu(2, x[i], w[i], bias),
                  lambda i: torch_f.relu(torch_f.conv2d(tx[i], torch_w[i], torch_bias)))

    def optimisers(self, sizes: Sequence[tuple[int, ...]]) -> Iterable[Row]:
        """One step over many parameters, against PyTorch's fused step where the device has one."""
        import torch

        count = sum(int(np.prod(size)) for size in sizes)
        for name, ours, theirs, operations, arrays in (
            ("SGD, momentum", partial(optim.SGD, momentum=0.9), partial(torch.optim.SGD, momentum=0.9), 4, 5),
            ("AdamW", optim.AdamW, torch.optim.AdamW, 12, 7),
            ("Adam, amsgrad", partial(optim.Adam, amsgrad=True), partial(torch.optim.Adam, amsgrad=True), 13, 9),
        ):
            pairs = [self.inputs(*size) for size in sizes]
            parameters = {str(k): mine[0] for k, (mine, _) in enumerate(pairs)}
            gradients = {str(k): mine[-1] for k, (mine, _) in enumerate(pairs)}
            tensors = [its[0].requires_grad_() for _, its in pairs]
            for tensor, (_, its) in zip(tensors, pairs, strict=True):
                tensor.grad = its[-1]
            mine, other = ours(parameters, lr=1e-6), theirs(tensors, lr=1e-6, fused=True)
            yield self.row("other kernels", name, f"step of {count / 1e6:,.1f} M numbers", "float32", 0,
                           elementwise(count, operations, arrays), partial(_step, mine, gradients), partial(_step, other))

    def network(
        self, name: str, model: nn.Sequential, n: int, size: int, classes: int, precisions: Iterable[str]
    ) -> Iterable[Row]:
        """A step of training, inference, and the projection of a unit for each image (Captum's, for PyTorch)."""
        import torch
        from captum.attr import NeuronDeconvolution

        from benchmarks.twin import twin

        theirs = twin(model).to(self.device)
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

        inference, training = network_work(model, n, (3, size, size)), training_work(model, n, (3, size, size))
        rows = [("train", step, torch_step, training), ("inference", lambda i: model(x[i]), torch_infer, inference)]
        layer = [path for path, child in model.layers() if isinstance(child, nn.Conv2d)][-1]
        place = [path for path, child in model.layers() if path and not list(child.children())].index(layer)
        convolution = [m for m in theirs.modules() if not list(m.children())][place]
        project, captum = interpret.deconvnet(model), NeuronDeconvolution(theirs, convolution)

        def torch_project(i: int) -> None:
            theirs.eval()
            captum.attribute(tx[i].detach().requires_grad_(), lambda y: y[:, 0].amax(dim=(1, 2)))

        rows.append(("projection", lambda i: project.attribute(x[i], layer=layer, unit=(0, "max")), torch_project, None))

        # What an atlas does with a photo: to the GPU and up once, down from the strongest place of some maps, and the pictures
        # back to the host. Captum goes up every time, from a photo that is there, and leaves the pictures there.
        field, photos = receptive_field(model, layer), []
        for photo in (backend.to_host(some[:1]) for some in x):
            maps = backend.to_host(record(model, self.move(photo), layer).output)[0]
            places = [np.unravel_index(int(map.argmax()), map.shape) for map in maps[:4]]
            walks = [unit_walk(k, [int(p) for p in place], field, photo) for k, place in enumerate(places)]
            photos.append(Photo(0, photo, walks))

        def atlas(i: int) -> None:
            list(UnitWalks([project], layer).run([photos[i : i + 1]], Shards(1), lambda found: None))

        def torch_atlas(i: int) -> None:
            for channel in range(4):
                captum.attribute(tx[i][:1].detach().requires_grad_(), lambda y, channel=channel: y[:, channel].amax(dim=(1, 2)))

        rows.append(("atlas", atlas, torch_atlas, None))
        for what, mine, its, work in rows:
            group = "networks" if what in ("train", "inference") else "projections"
            for precision in precisions:
                yield self.row(group, name, what, precision, n if what != "atlas" else 1, work, mine, its)


def _step(optimizer: Any, *gradients: Any) -> Any:
    """One step of either library's optimiser; the last argument is the number of an input set, which plays no part."""
    return optimizer.step(*gradients[:-1])


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
        rows += bench.convolutions(GRID, precisions)
    if options.only in (None, "others"):
        rows += bench.others(64, 64, 112, 1000)
        rows += bench.optimisers([p.shape for p in create(NETWORKS[0], rng=np.random.default_rng(0)).named_parameters().values()])
    if options.only in (None, "networks"):
        for name in NETWORKS:
            rows += bench.network(name, create(name, rng=np.random.default_rng(0)), 32, 224, 1000, precisions)  # type: ignore[arg-type]
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
