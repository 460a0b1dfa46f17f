"""What tinynet and PyTorch take besides time: memory of a training step and of inference, start, disk.

speed.py calls this, and each figure is that of a fresh process, which has loaded one of the two and not the other.
"""

from __future__ import annotations

import importlib.metadata
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

NETS = ("VGG11, 224², batch 8", "cat net, 224², batch 16", "SqueezeNet 1.1, 224², batch 8")
WORDS = {"nothing": "libraries and weights alone", "inference": "inference", "train": "training"}
STEPS = 3                                                       # by then every buffer that is kept is there


def measure_footprint(workers: int) -> dict[str, Any]:
    """Peak memory of each net and work, MB; the time of an import, s; installed size, MB. Of either side."""
    import torch
    from cases import NETS as CASES
    from cases import network
    from twin import twin

    memory = []
    for net in NETS:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "module.pt"
            torch.save((twin(network(net, np.random.default_rng(0))), CASES[net][1]), file)
            for work, words in WORDS.items():
                ours, theirs = _peak("tinynet", net, work, workers), _peak("torch", str(file), work, workers)
                memory.append({"name": f"{net}: {words}", "tinynet": ours, "torch": theirs, "ratio": round(ours / theirs, 3)})
                print(f"{memory[-1]['name']:<52} {ours:9.0f} MB {theirs:9.0f} MB   {memory[-1]['ratio']:.2f}", flush=True)
    found = {
        "memory": memory, "import": {side: _import_time(side) for side in ("tinynet", "torch")},
        "installed": {side: _installed(side) for side in ("tinynet", "torch")},
    }
    print(f"import, s: {found['import']}; installed, MB: {found['installed']}", flush=True)
    return found


def _peak(side: str, what: str, work: str, workers: int) -> float:
    """MB, the largest of two processes."""
    command = [sys.executable, __file__, side, what, work, str(workers)]
    found = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2)]
    return round(max(map(float, found)), 1)


def _import_time(side: str) -> float:
    """Seconds from the start of Python to the end of the import, less those of a Python that imports nothing; best of five."""
    def best(code: str) -> float:
        times = []
        for _ in range(6):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - start)
        return min(times[1:])                                   # the first may find nothing in the system's cache

    return round(best(f"import {side}") - best("pass"), 3)


def _installed(side: str) -> float:
    """MB of a package and of everything it needs, as installed here; tinynet's own files are those of its folder."""
    total, waiting, seen = 0.0, [side], set()
    while waiting:
        package = waiting.pop()
        if package in seen:
            continue
        seen.add(package)
        try:
            distribution = importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError:         # needed on other systems only
            continue
        if package == "tinynet":                                # here in place, not copied
            folder = Path(__file__).resolve().parent.parent / "tinynet"
            total += sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
        else:
            paths = [Path(str(file.locate())) for file in distribution.files or [] if file.suffix != ".pyc"]
            total += sum(path.stat().st_size for path in paths if path.is_file())
        for line in distribution.requires or []:
            if "extra ==" not in line:
                waiting.append(re.split(r"[^A-Za-z0-9_.-]", line)[0].lower())
    return round(total / 1e6, 1)


def _tinynet(net: str, work: str, workers: int) -> None:
    from cases import NETS as CASES
    from cases import network

    from tinynet import nn, optim
    from tinynet.distributed import Shards

    model = network(net, np.random.default_rng(0))
    x, target = _batch(CASES[net][1])
    with Shards(workers) as shards:
        if work == "inference":
            for _ in range(STEPS):
                shards.infer(model, x)
        if work == "train":
            loss, sgd = nn.CrossEntropyLoss(), optim.SGD(model.named_parameters(), lr=1e-6, momentum=0.9)
            rngs = [np.random.default_rng(i) for i in range(workers)]
            for _ in range(STEPS):
                sgd.step(shards.step(model, loss, x, target, rngs, factored=True).gradients, each=shards.each)


def _torch(file: str, work: str, workers: int) -> None:
    import torch

    torch.set_num_threads(workers)
    module, size = torch.load(file, weights_only=False)         # written by this benchmark a moment ago
    x, target = map(torch.from_numpy, _batch(size))
    if work == "inference":
        with torch.inference_mode():
            for _ in range(STEPS):
                module.eval()(x)
    if work == "train":
        sgd = torch.optim.SGD(module.train().parameters(), lr=1e-6, momentum=0.9)
        for _ in range(STEPS):
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(module(x), target).backward()
            sgd.step()


def _most() -> float:
    """The most memory this process has held, MB."""
    try:                                                        # Linux's ru_maxrss begins with that of the parent
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _batch(size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32), np.zeros(size[0], np.int64)


if __name__ == "__main__":
    side, what, work, workers = sys.argv[1:]
    {"tinynet": _tinynet, "torch": _torch}[side](what, work, int(workers))
    print(_most())
