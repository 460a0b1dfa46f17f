"""tinynet against PyTorch on a CPU: single ops and whole networks, with the same number of threads.

    python benchmarks/speed.py                     everything, fifteen minutes; writes results/speed.json and README.md's tables
    python benchmarks/speed.py --only ops          or: nets, looking, loading, footprint, growth
    python benchmarks/speed.py --tables            writes the tables anew from the results

Each case runs in turns, tinynet, PyTorch, tinynet, PyTorch, …, in one process; PyTorch once with contiguous and once with
channels_last memory, of which the better counts. Times are medians, with the smallest beside them in the results. A ratio
below 1 means that tinynet is faster. Needs the test extra (torch, captum).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF
from cases import NETS, OPS, network
from floors import copy, floor
from footprint import measure_footprint
from growth import draw_growth, measure_growth
from loading import measure_loading
from looking import measure_looking
from measuring import alternate, machine, refuse_pinned, row
from targets import targets_table
from twin import twin

from tinynet import functional as F
from tinynet import nn, optim
from tinynet.distributed import Shards, available_cores
from tinynet.models import create

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "speed.json"

def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=list(PARTS))
    parser.add_argument("--tables", action="store_true", help="write the tables from the results, measure nothing")
    options = parser.parse_args()
    record = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if not options.tables:
        refuse_pinned()
        workers = available_cores()
        torch.set_num_threads(workers)
        record["machine"] = machine(workers)
        print(json.dumps(record["machine"]))
        for name, measure in PARTS.items():
            if options.only in (None, name):
                record[name] = measure(workers)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_tables(record)


def measure_ops(workers: int) -> list[dict[str, Any]]:
    """Forward, and forward with backward, of every op, the batch shared over the threads as in a network's step."""
    rows: list[dict[str, Any]] = []
    for name, (build, size) in OPS.items():
        rng = np.random.default_rng(0)
        layer, x = build(rng), rng.standard_normal(size, dtype=np.float32)
        module = twin(layer).train()
        dy = np.ones_like(layer.forward(x, train=True)[0])
        work = nn.summary(layer, size[1:]).multiply_adds * len(x)
        inputs, signal = [torch.from_numpy(x)], torch.from_numpy(dy)
        if x.ndim == 4:
            inputs.append(inputs[0].contiguous(memory_format=torch.channels_last))
        with Shards(workers) as shards:

            def forth(part: Any, layer: nn.Layer = layer) -> None:
                layer.forward(part, train=True) if isinstance(layer, nn.BatchNorm2d) else layer(part)

            def both(part: Any, signal: Any, layer: nn.Layer = layer) -> None:
                _, saved = layer.forward(part, train=True)
                layer.gradients(saved, signal)

            def backward(given: torch.Tensor, module: Any = module, dy: torch.Tensor = signal) -> None:
                given = given.detach().requires_grad_()
                module.zero_grad()
                module(given).backward(dy)

            def forward(given: torch.Tensor, module: Any = module) -> None:
                with torch.no_grad():
                    module(given)

            ours, *theirs = alternate(
                lambda s=shards, x=x, forth=forth: s.apply(forth, x, in_step=True),
                *[lambda given=given, f=forward: f(given) for given in inputs],
            )
            least = alternate(floor(layer, size, False, shards))[0]
            rows.append(row(f"{name}: forward", ours, *theirs, floor=least, multiply_adds=work))
            ours, *theirs = alternate(
                lambda s=shards, x=x, dy=dy, both=both: s.apply(both, x, dy, in_step=True),
                *[lambda given=given, f=backward: f(given) for given in inputs],
            )
            least = alternate(floor(layer, size, True, shards))[0]
            rows.append(row(f"{name}: forward and backward", ours, *theirs, floor=least, multiply_adds=3 * work))
    return rows + measure_losses()


Both = tuple[Callable[[], Any], Callable[[], Any]]


def losses() -> dict[str, tuple[Both, Both]]:
    """name: (forward, with the gradient) of tinynet, and of PyTorch. Of one array each; the losses are of the whole batch."""
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((256, 1000), dtype=np.float32), rng.integers(0, 1000, 256)
    other = rng.standard_normal(x.shape, dtype=np.float32)
    given, labels, aim = torch.from_numpy(x), torch.from_numpy(target), torch.from_numpy(other)

    def torch_both(f: Callable[[torch.Tensor], torch.Tensor]) -> Both:
        def forward() -> torch.Tensor:
            with torch.no_grad():
                return f(given)

        def backward() -> None:
            f(given.detach().requires_grad_()).sum().backward()

        return forward, backward

    ones = np.ones_like(x)

    def softmax_back() -> None:
        F.softmax_input_gradient(ones, F.softmax(x, 1), 1)

    return {
        "cross-entropy, 256 of 1000": (
            (lambda: F.cross_entropy(x, target), lambda: nn.CrossEntropyLoss()(x, target)),
            torch_both(lambda given: TF.cross_entropy(given, labels)),
        ),
        "mean squared error, 256 × 1000": (
            (lambda: F.mse_loss(x, other), lambda: (F.mse_loss(x, other), F.mse_loss_input_gradient(x, other))),
            torch_both(lambda given: TF.mse_loss(given, aim)),
        ),
        "softmax, 256 × 1000": ((lambda: F.softmax(x, 1), softmax_back), torch_both(lambda given: TF.softmax(given, 1))),
    }


def measure_losses() -> list[dict[str, Any]]:
    """Losses and softmax: what a training computes once, of the whole batch."""
    rows = []
    for name, (ours, theirs) in losses().items():
        for words, mine, its in zip(("forward", "forward and backward"), ours, theirs, strict=True):
            rows.append(row(f"{name}: {words}", *alternate(mine, its), floor=alternate(copy(256 * 1000))[0]))
    return rows


def measure_nets(workers: int) -> list[dict[str, Any]]:
    """Inference and a training step (forward, loss, backward, SGD with momentum) of whole networks."""
    rows = []
    for name, (_, size, _) in NETS.items():
        rng = np.random.default_rng(0)
        model = network(name, rng)
        x = rng.standard_normal(size, dtype=np.float32)
        work = nn.summary(model, size[1:]).multiply_adds * len(x)
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

            def step(s: Any = shards, o: Any = sgd, given: Any = (model, loss, x, target, rngs)) -> None:
                o.step(s.step(*given).gradients, each=s.each)

            more = {"images": len(x), "difference": difference}
            ours, *theirs = alternate(lambda s=shards, m=model, x=x: s.infer(m, x), lambda f=infer: f(0), lambda f=infer: f(1))
            least = alternate(floor(model, size, False, shards))[0]
            rows.append(row(f"{name}: inference", ours, *theirs, floor=least, multiply_adds=work, **more))
            ours, *theirs = alternate(step, lambda f=train: f(0), lambda f=train: f(1))
            least = alternate(floor(model, size, True, shards))[0]
            rows.append(row(f"{name}: training step", ours, *theirs, floor=least, images=len(x), multiply_adds=3 * work))
    return [*rows, measure_body(workers)]


def measure_body(workers: int) -> dict[str, Any]:
    """VGG11's eight convolutions with their ReLUs and poolings, forward: the share of the peak is the figure here."""
    body, x = create("vgg11", rng=np.random.default_rng(0)).layer("features"), np.ones((8, 3, 224, 224), np.float32)
    module, given = twin(body).eval(), torch.from_numpy(x)
    inputs = [given, given.contiguous(memory_format=torch.channels_last)]

    def forward(given: torch.Tensor) -> None:
        with torch.inference_mode():
            module(given)

    with Shards(workers) as shards:
        ours, *theirs = alternate(lambda: shards.infer(body, x), *[lambda given=given: forward(given) for given in inputs])
        least = alternate(floor(body, x.shape, False, shards))[0]
    work, name = nn.summary(body, x.shape[1:]).multiply_adds * len(x), "VGG11's convolutions alone, 224², batch 8: inference"
    return row(name, ours, *theirs, floor=least, images=len(x), multiply_adds=work)


PARTS: dict[str, Callable[[int], Any]] = {
    "ops": measure_ops, "nets": measure_nets, "looking": measure_looking, "loading": measure_loading,
    "footprint": measure_footprint, "growth": measure_growth,
}


def write_tables(record: dict[str, Any]) -> None:
    """Put the tables between the marks in README.md, and draw the picture of growth."""
    page = (HERE / "README.md").read_text(encoding="utf-8")
    peak = record["machine"]["matrix product"]["tinynet"]
    tables = {
        "machine": lambda: machine_words(record["machine"]), "targets": lambda: targets_table(record),
        "nets": lambda: table(record["nets"], peak),
        "looking": lambda: table(record["looking"], peak), "ops": lambda: table(record["ops"], peak),
        "loading": lambda: loading_table(record["loading"]), "footprint": lambda: footprint_table(record["footprint"]),
    }
    for part, text in tables.items():
        begin, end = f"<!-- speed {part} -->", f"<!-- speed {part} end -->"
        if (part in record or part == "targets") and begin in page:
            before, rest = page.split(begin)
            page = f"{before}{begin}\n{text()}\n{end}{rest.split(end)[1]}"
    (HERE / "README.md").write_text(page, encoding="utf-8")
    if "growth" in record:
        draw_growth(record["growth"], RESULTS.parent / "growth.png")


def machine_words(found: dict[str, Any]) -> str:
    """What the figures are of, in a line."""
    peak = found["matrix product"]
    return (
        f"{found['processor']}, {found['threads']} threads; Python {found['python']}, NumPy {found['numpy']} "
        f"({', '.join(name for name in found['BLAS'] if 'blas' in name)}), PyTorch {found['torch']}. "
        f"Matrix product of 3072²: {peak['tinynet']} GFLOP/s in NumPy (the peak below), {peak['torch']} in PyTorch."
    )


def table(rows: list[dict[str, Any]], peak: float) -> str:
    """Rows as a table, and the geometric mean of the ratios. peak: of the matrix product, GFLOP/s."""
    head = ("case", "tinynet, ms", "floor, ms", "PyTorch, ms", "ratio", "images/s", "GFLOP/s", "of the peak")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in rows:
        ours, theirs = 1e3 * r["tinynet"]["median"], 1e3 * r["torch"]["median"]
        rate = f"{1e3 * r['images'] / ours:,.0f}" if r.get("images") else ""
        flops = 2 * r.get("multiply_adds", 0) / ours / 1e6
        speed = f"{flops:.0f} | {100 * flops / peak:.0f} %" if flops else " | "
        least = _ms(1e3 * r["floor"]["median"]) if r.get("floor") else ""
        lines.append(f"| {r['name']} | {_ms(ours)} | {least} | {_ms(theirs)} | {r['ratio']:.2f} | {rate} | {speed} |")
    mean = statistics.geometric_mean(r["ratio"] for r in rows)
    return "\n".join([*lines, f"| geometric mean of {len(rows)} | | | | {mean:.2f} | | | |"])


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.1f}"


def loading_table(rows: list[dict[str, Any]]) -> str:
    return "\n".join(["| | images/s |", "|---|---|", *(f"| {r['name']} | {r['images/s']:,} |" for r in rows)])


def footprint_table(found: dict[str, Any]) -> str:
    """Memory, import and size in one table."""
    lines = ["| | tinynet | PyTorch | ratio |", "|---|---|---|---|"]
    for r in found["memory"]:
        lines.append(f"| peak memory, {r['name']} | {r['tinynet']:,.0f} MB | {r['torch']:,.0f} MB | {r['ratio']:.2f} |")
    for name, unit in (("import", "s"), ("installed", "MB")):
        ours, theirs = found[name]["tinynet"], found[name]["torch"]
        words = {"import": "import", "installed": "installed, with all it needs"}[name]
        lines.append(f"| {words} | {ours:g} {unit} | {theirs:g} {unit} | {ours / theirs:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
