"""tinynet against PyTorch on a CPU: single ops and whole networks, with the same number of threads.

    python benchmarks/speed.py                     everything, ten minutes; writes results/speed.json and README.md's tables
    python benchmarks/speed.py --only ops          or: nets, looking
    python benchmarks/speed.py --tables            writes the tables anew from the results

Each case runs in turns, tinynet, PyTorch, tinynet, PyTorch, …, in one process; PyTorch once with contiguous and once with
channels_last memory, of which the better counts. Times are medians, with the smallest beside them in the results. A ratio
below 1 means that tinynet is faster. Needs the test extra (torch, captum).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info
from twin import twin

import tinynet
from tinynet import interpret, nn, optim
from tinynet.distributed import Shards, available_cores
from tinynet.models import create

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "speed.json"
SECONDS = 0.8
"""What a case takes for each side, at least three rounds. Interpretation, which takes long, goes once."""

# name: layer, input. Forward, and the gradients of the input and of the parameters.
OPS: dict[str, tuple[Callable[[np.random.Generator], nn.Layer], tuple[int, ...]]] = {
    "conv 3→64 3×3, 224²": (lambda rng: nn.Conv2d(3, 64, 3, padding=1, rng=rng), (4, 3, 224, 224)),
    "conv 64→64 3×3, 224²": (lambda rng: nn.Conv2d(64, 64, 3, padding=1, rng=rng), (2, 64, 224, 224)),
    "conv 64→128 3×3, 112²": (lambda rng: nn.Conv2d(64, 128, 3, padding=1, rng=rng), (4, 64, 112, 112)),
    "conv 256→256 3×3, 56²": (lambda rng: nn.Conv2d(256, 256, 3, padding=1, rng=rng), (4, 256, 56, 56)),
    "conv 512→512 3×3, 28²": (lambda rng: nn.Conv2d(512, 512, 3, padding=1, rng=rng), (4, 512, 28, 28)),
    "conv 512→512 3×3, 14²": (lambda rng: nn.Conv2d(512, 512, 3, padding=1, rng=rng), (8, 512, 14, 14)),
    "conv 32→64 3×3, 32²": (lambda rng: nn.Conv2d(32, 64, 3, padding=1, rng=rng), (64, 32, 32, 32)),
    "conv 128→128 3×3, 8²": (lambda rng: nn.Conv2d(128, 128, 3, padding=1, rng=rng), (64, 128, 8, 8)),
    "conv 64→128 3×3/2, 56²": (lambda rng: nn.Conv2d(64, 128, 3, 2, padding=1, rng=rng), (8, 64, 56, 56)),
    "conv 96→256 5×5/2, 55²": (lambda rng: nn.Conv2d(96, 256, 5, 2, rng=rng), (8, 96, 55, 55)),
    "conv 3→96 7×7/2, 224²": (lambda rng: nn.Conv2d(3, 96, 7, 2, padding=1, rng=rng), (8, 3, 224, 224)),
    "conv 3→64 11×11/4, 224²": (lambda rng: nn.Conv2d(3, 64, 11, 4, padding=2, rng=rng), (16, 3, 224, 224)),
    "conv 256→64 1×1, 56²": (lambda rng: nn.Conv2d(256, 64, 1, rng=rng), (8, 256, 56, 56)),
    "conv 64→256 1×1, 13²": (lambda rng: nn.Conv2d(64, 256, 1, rng=rng), (16, 64, 13, 13)),
    "conv 96 3×3 depthwise, 56²": (lambda rng: nn.Conv2d(96, 96, 3, padding=1, groups=96, rng=rng), (8, 96, 56, 56)),
    "conv 128→128 3×3, 8 groups, 28²": (lambda rng: nn.Conv2d(128, 128, 3, padding=1, groups=8, rng=rng), (8, 128, 28, 28)),
    "max-pool 2×2, 112²": (lambda rng: nn.MaxPool2d(2), (8, 64, 112, 112)),
    "max-pool 3×3/2, 55²": (lambda rng: nn.MaxPool2d(3, 2), (16, 96, 55, 55)),
    "average pool 2×2, 112²": (lambda rng: nn.AvgPool2d(2), (8, 64, 112, 112)),
    "ReLU, 112²": (lambda rng: nn.ReLU(), (8, 64, 112, 112)),
    "batch norm, 56²": (lambda rng: nn.BatchNorm2d(128), (8, 128, 56, 56)),
    "linear 4096→4096": (lambda rng: nn.Linear(4096, 4096, rng=rng), (32, 4096)),
    "linear 256→10": (lambda rng: nn.Linear(256, 10, rng=rng), (64, 256)),
}


def cifar_vgg(classes: int = 10, rng: np.random.Generator | None = None) -> nn.Sequential:
    """Six 3×3 convolutions on 32×32, in pairs before each pooling."""
    layers: list[nn.Layer] = []
    channels = 3
    for maps in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(channels, maps, 3, padding=1, rng=rng), nn.ReLU()]
            channels = maps
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 16, classes, rng=rng))


# name: (builder of the registry or function, input, its own arguments)
NETS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "LeNet, 32² (28² framed), batch 64": ("lenet5", (64, 1, 32, 32), {}),
    "cat net, 224², batch 16": ("photonet", (16, 3, 224, 224), {}),
    "CIFAR VGG, 32², batch 64": (cifar_vgg, (64, 3, 32, 32), {}),
    "AlexNet, 224², batch 16": ("alexnet", (16, 3, 224, 224), {}),
    "ZFNet, 224², batch 16": ("zfnet", (16, 3, 224, 224), {}),
    "VGG11, 224², batch 8": ("vgg11", (8, 3, 224, 224), {}),
    "SqueezeNet 1.1, 224², batch 8": ("squeezenet1_1", (8, 3, 224, 224), {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=["ops", "nets", "looking"])
    parser.add_argument("--tables", action="store_true", help="write the tables from the results, measure nothing")
    options = parser.parse_args()
    record = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if not options.tables:
        refuse_pinned()
        workers = available_cores()
        torch.set_num_threads(workers)
        record["machine"] = machine(workers)
        print(json.dumps(record["machine"]))
        for name, measure in (("ops", measure_ops), ("nets", measure_nets), ("looking", measure_looking)):
            if options.only in (None, name):
                record[name] = measure(workers)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_tables(record)


def refuse_pinned() -> None:
    """A BLAS that is told to take an older processor for this one gives figures that nobody else would see."""
    import os

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
        "processor": platform.processor() or platform.machine(), "threads": workers, "python": platform.python_version(),
        "numpy": np.__version__, "torch": torch.__version__, "tinynet": tinynet.__version__,
        "BLAS": [f"{info['internal_api']} {info.get('version')} {info.get('architecture')}" for info in threadpool_info()],
        "matrix product": {"tinynet": round(work / ours["min"]), "torch": round(work / theirs["min"])},
    }


def alternate(*sides: Callable[[], Any], rounds: int = 3) -> list[dict[str, float]]:
    """Run the sides in turns; for each the median and the smallest time, seconds. rounds: at least; 1: once, cold."""
    times: list[list[float]] = [[] for _ in sides]
    began = time.perf_counter()
    while len(times[0]) < rounds or (rounds > 1 and time.perf_counter() - began < SECONDS * len(sides) and len(times[0]) < 30):
        for side, mine in zip(sides, times, strict=True):
            time.sleep(0.02)                                    # the other side's threads spin for a while after their work
            for _ in range(2 if rounds > 1 else 0):
                side()                                          # and this side's need a while to wake up
            for _ in range(3 if rounds > 1 else 1):
                start = time.perf_counter()
                side()
                mine.append(time.perf_counter() - start)
    return [{"median": statistics.median(mine), "min": min(mine)} for mine in times]


def row(name: str, ours: dict[str, float], *theirs: dict[str, float], **more: Any) -> dict[str, Any]:
    """One line of the results: both times, and the ratio to the better of PyTorch's."""
    best = min(theirs, key=lambda times: times["median"])
    found = {"name": name, "tinynet": ours, "torch": best, "ratio": round(ours["median"] / best["median"], 3), **more}
    print(f"{name:<44} {1e3 * ours['median']:9.2f} ms {1e3 * best['median']:9.2f} ms   {found['ratio']:.2f}", flush=True)
    return found


def measure_ops(workers: int) -> list[dict[str, Any]]:
    """Forward, and forward with backward, of every op, the batch shared over the threads."""
    rows = []
    for name, (build, size) in OPS.items():
        rng = np.random.default_rng(0)
        layer, x = build(rng), rng.standard_normal(size, dtype=np.float32)
        module = twin(layer).train()
        dy = np.ones_like(layer.forward(x, train=True)[0])
        inputs, signal = [torch.from_numpy(x)], torch.from_numpy(dy)
        if x.ndim == 4:
            inputs.append(inputs[0].contiguous(memory_format=torch.channels_last))
        with Shards(workers) as shards:

            def both(part: Any, signal: Any, layer: nn.Layer = layer) -> None:
                _, saved = layer.forward(part, train=True)
                layer.parameter_gradients(saved, signal)
                layer.input_gradient(saved, signal)

            def backward(given: torch.Tensor, module: Any = module, dy: torch.Tensor = signal) -> None:
                given = given.detach().requires_grad_()
                module.zero_grad()
                module(given).backward(dy)

            def forward(given: torch.Tensor, module: Any = module) -> None:
                with torch.no_grad():
                    module(given)

            ours, *theirs = alternate(
                lambda s=shards, x=x, layer=layer: s.apply(layer if not isinstance(layer, nn.BatchNorm2d) else
                                                           lambda part: layer.forward(part, train=True), x),
                *[lambda given=given, f=forward: f(given) for given in inputs],
            )
            rows.append(row(f"{name}: forward", ours, *theirs))
            ours, *theirs = alternate(
                lambda s=shards, x=x, dy=dy, both=both: s.apply(both, x, dy),
                *[lambda given=given, f=backward: f(given) for given in inputs],
            )
            rows.append(row(f"{name}: forward and backward", ours, *theirs))
    return rows


def measure_nets(workers: int) -> list[dict[str, Any]]:
    """Inference and a training step (forward, loss, backward, SGD with momentum) of whole networks."""
    rows = []
    for name, (net, size, arguments) in NETS.items():
        rng = np.random.default_rng(0)
        model = net(rng=rng) if callable(net) else create(net, rng=rng, **arguments)
        x = rng.standard_normal(size, dtype=np.float32)
        with Shards(workers) as shards:
            logits = shards.infer(model, x)
            target = rng.integers(0, logits.shape[1], len(x))
            loss, sgd = nn.CrossEntropyLoss(), optim.SGD(model.named_parameters(), lr=1e-6, momentum=0.9)
            module, labels = twin(model), torch.from_numpy(target)
            formats = [torch.contiguous_format, torch.channels_last]
            inputs = [torch.from_numpy(x).contiguous(memory_format=f) for f in formats]
            twins = [twin(model).to(memory_format=f) for f in formats]
            difference = float((module.eval()(inputs[0]).detach() - torch.from_numpy(logits)).abs().max())
            rngs = [np.random.default_rng(i) for i in range(workers)]
            steppers = [torch.optim.SGD(t.parameters(), lr=1e-6, momentum=0.9) for t in twins]

            def infer(i: int, twins: Any = twins, inputs: Any = inputs) -> None:
                with torch.inference_mode():
                    twins[i].eval()(inputs[i])

            def train(i: int, twins: Any = twins, inputs: Any = inputs, labels: Any = labels, steppers: Any = steppers) -> None:
                twins[i].train()
                steppers[i].zero_grad()
                torch.nn.functional.cross_entropy(twins[i](inputs[i]), labels).backward()
                steppers[i].step()

            step_of = shards.step

            def step(do: Any = step_of, o: Any = sgd, given: Any = (model, loss, x, target, rngs)) -> None:
                o.step(do(*given).gradients)

            ours, *theirs = alternate(lambda s=shards, m=model, x=x: s.infer(m, x), lambda f=infer: f(0), lambda f=infer: f(1))
            rows.append(row(f"{name}: inference", ours, *theirs, images=len(x), difference=difference))
            ours, *theirs = alternate(step, lambda f=train: f(0), lambda f=train: f(1))
            rows.append(row(f"{name}: training step", ours, *theirs, images=len(x)))
    return rows


def measure_looking(workers: int) -> list[dict[str, Any]]:
    """Interpretation against Captum: one unit of VGG11 projected in 64 photos, and occlusion of one photo at stride 8."""
    import warnings

    from captum.attr import Deconvolution, Occlusion

    warnings.filterwarnings("ignore")
    model = create("vgg11", rng=np.random.default_rng(0))
    module = twin(model).eval()
    x = np.random.default_rng(1).standard_normal((64, 3, 224, 224), dtype=np.float32)
    photos, target = torch.from_numpy(x), 7
    deconvnet, theirs = interpret.deconvnet(model), Deconvolution(module)
    rows = []

    def captum_projects() -> None:
        for i in range(0, 64, 8):
            theirs.attribute(photos[i : i + 8], target=target)

    def projects() -> None:
        for i in range(0, 64, 8):
            deconvnet.attribute(x[i : i + 8], target=target)

    rows.append(row("VGG11: projection of one unit in 64 photos", *alternate(projects, captum_projects, rounds=1)))
    one = torch.from_numpy(x[:1])
    rows.append(row("VGG11: occlusion of one photo, patch 32, stride 8", *alternate(
        lambda: interpret.occlusion(model, x[0], patch=32, stride=8, target=target, workers=workers),
        lambda: Occlusion(module).attribute(one, (3, 32, 32), (3, 8, 8), 0.0, target, perturbations_per_eval=16), rounds=1,
    )))
    return rows


def write_tables(record: dict[str, Any]) -> None:
    """Put the tables between the marks in README.md."""
    page = (HERE / "README.md").read_text(encoding="utf-8")
    for part in ("nets", "looking", "ops"):
        begin, end = f"<!-- speed {part} -->", f"<!-- speed {part} end -->"
        if part in record and begin in page:
            before, rest = page.split(begin)
            after = rest.split(end)[1]
            page = f"{before}{begin}\n{table(record[part])}\n{end}{after}"
    (HERE / "README.md").write_text(page, encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a table, and the geometric mean of the ratios."""
    lines = ["| case | tinynet, ms | PyTorch, ms | ratio |", "|---|---|---|---|"]
    for r in rows:
        ours, theirs = 1e3 * r["tinynet"]["median"], 1e3 * r["torch"]["median"]
        lines.append(f"| {r['name']} | {ours:.1f} | {theirs:.1f} | {r['ratio']:.2f} |")
    mean = statistics.geometric_mean(r["ratio"] for r in rows)
    return "\n".join([*lines, f"| geometric mean of {len(rows)} | | | {mean:.2f} |"])


if __name__ == "__main__":
    main()
