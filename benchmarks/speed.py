"""tinynet against PyTorch on a CPU: single ops and whole networks, with the same number of threads.

    python benchmarks/speed.py                     everything, ten to fifteen minutes
    python benchmarks/speed.py --only ops          or: nets, where, looking, loading, footprint, growth
    python benchmarks/speed.py --tables            writes the pages anew from the results, measures nothing

It writes results/speed-<processor>.json, a page of tables beside it, and in README.md the targets for all processors that were
measured.

Each case runs in turns, tinynet, PyTorch, tinynet, PyTorch, …, in one process; PyTorch once with contiguous and once with
channels_last memory, of which the better counts. Times are medians, with the smallest beside them in the results. A ratio
below 1 means that tinynet is faster. Needs the test extra (torch, captum).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF
from cases import NETS, OPS, network
from floors import copy, floor
from footprint import measure_footprint
from growth import measure_growth
from loading import measure_loading
from looking import measure_looking
from measuring import alternate, machine, processor, refuse_pinned, row
from pages import results, write_pages
from twin import twin
from where import measure_where

from tinynet import functional as F
from tinynet import nn, optim
from tinynet.distributed import Shards, available_cores
from tinynet.models import create


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=list(PARTS))
    parser.add_argument("--tables", action="store_true", help="write the pages from the results, measure nothing")
    options = parser.parse_args()
    if not options.tables:
        refuse_pinned()
        file = results(processor())
        record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        workers = available_cores()
        torch.set_num_threads(workers)
        record["machine"] = machine(workers)
        print(json.dumps(record["machine"]))
        for name, measure in PARTS.items():
            if options.only in (None, name):
                record[name] = measure(workers)
                file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_pages()


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
                o.step(s.step(*given, factored=True).gradients, each=s.each)

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
    "footprint": measure_footprint, "growth": measure_growth, "where": measure_where,
}


if __name__ == "__main__":
    main()
