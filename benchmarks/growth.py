"""Cost against the size of the batch, of the photo, and the number of workers, as a picture.

    python benchmarks/speed.py --only growth       measures and draws results/growth-<processor>.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import network
from measuring import alternate
from twin import twin

from tinynet import nn, optim
from tinynet.distributed import Shards

NET = "SqueezeNet 1.1, 224², batch 8"
BATCHES, SIDES = (1, 2, 4, 8, 16, 32), (64, 96, 128, 160, 224, 320)


def measure_growth(workers: int) -> dict[str, list[dict[str, Any]]]:
    """SqueezeNet 1.1, inference and a training step; ms a photo. From a batch of 8 at 224², one thing at a time changes."""
    found: dict[str, list[dict[str, Any]]] = {"batch": [], "side": [], "workers": []}
    for batch in BATCHES:
        found["batch"].append(_point(batch, batch, 224, workers))
    for side in SIDES:
        found["side"].append(_point(side, 8, side, workers))
    for count in range(1, workers + 1):
        found["workers"].append(_point(count, 8, 224, count))
    torch.set_num_threads(workers)
    return found


def _point(at: int, batch: int, side: int, workers: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    model = network(NET, rng)
    x, target = rng.standard_normal((batch, 3, side, side), dtype=np.float32), np.arange(batch)
    loss, sgd = nn.CrossEntropyLoss(), optim.SGD(model.named_parameters(), lr=1e-6)
    rngs = [np.random.default_rng(i) for i in range(workers)]
    module, given, labels = twin(model).to(memory_format=torch.channels_last), torch.from_numpy(x), torch.from_numpy(target)
    given = given.contiguous(memory_format=torch.channels_last)
    theirs = torch.optim.SGD(module.parameters(), lr=1e-6)
    torch.set_num_threads(workers)

    def infer() -> None:
        with torch.inference_mode():
            module.eval()(given)

    def train() -> None:
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(module.train()(given), labels).backward()
        theirs.step()

    with Shards(workers) as shards:
        inference = alternate(lambda: shards.infer(model, x), infer)
        step = alternate(
            lambda: sgd.step(shards.step(model, loss, x, target, rngs, factored=True).gradients, each=shards.each), train
        )
    point: dict[str, Any] = {"at": at}
    for work, sides in (("inference", inference), ("training", step)):
        for name, times in zip(("tinynet", "torch"), sides, strict=True):
            point[f"{name} {work}"] = round(1e3 * times["median"] / batch, 3)
    print(point, flush=True)
    return point


def draw_growth(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Three panels with the same two colours; full lines are training, dashed ones inference."""
    from matplotlib.figure import Figure

    words = {
        "batch": ("photos in a batch", "ms a photo"), "side": ("side of the photo, pixels", "ms a photo"),
        "workers": ("workers (threads)", "ms a photo"),
    }
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, (key, (across, up)) in zip(panels, words.items(), strict=True):
        points = found[key]
        at = [point["at"] for point in points]
        for side, colour in (("tinynet", "#c1440e"), ("torch", "#555555")):
            for work, line in (("training", "o-"), ("inference", "o--")):
                label = f"{'PyTorch' if side == 'torch' else side}, {work}"
                panel.plot(at, [point[f"{side} {work}"] for point in points], line, color=colour, label=label, markersize=4)
        panel.set(xlabel=across, ylabel=up, ylim=(0, None))
        if key != "workers":
            panel.set_xscale("log", base=2)
        panel.set_xticks(at, [str(a) for a in at])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle("SqueezeNet 1.1 on a CPU: what a photo costs (batch of 8 at 224² unless said)", fontsize=11)
    figure.savefig(path, dpi=110)
