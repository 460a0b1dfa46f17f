"""Where the time of a step goes, by kinds of layers, beside their floors: what stands between a network and its floor.

The threads' time in each leaf is added up while whole steps run; a ReLU that a convolution does with it counts as convolution.
The rest is what no layer takes: loss, sums, optimiser, containers, waiting for the other thread at the beginning and the end.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from cases import NETS, network
from floors import floor
from measuring import alternate

from tinynet import nn, optim
from tinynet.distributed import Shards

CASES = ("VGG11", "AlexNet", "ZFNet", "cat net", "CIFAR VGG", "SqueezeNet")
KINDS: dict[str, tuple[type, ...]] = {
    "convolutions": (nn.Conv2d,), "linear layers": (nn.Linear,), "poolings": (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    "other layers": (nn.Layer,),
}
_WALKS = ("forward", "infer", "overwrite", "input_gradient", "parameter_gradients", "gradients", "factored_gradients")
_MAKERS = ("fused", "fused_forward")
"""Methods that do a part of a step; and those that return a function which does the part of several layers."""


class Clock:
    """Seconds in the leaves of a model by kind, of all threads together."""

    def __init__(self, model: nn.Layer) -> None:
        self.seconds: Counter[str] = Counter()
        self._own, self._lock = threading.local(), threading.Lock()
        for _, layer in model.layers():
            if not isinstance(layer, nn.Container):
                kind = kind_of(layer)
                for name in _WALKS:
                    setattr(layer, name, self._timed(kind, getattr(layer, name)))
                for name in _MAKERS:
                    setattr(layer, name, self._maker(kind, getattr(layer, name)))

    def _timed(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            if getattr(self._own, "inside", False):             # a method of the same layer's
                return call(*given, **named)
            self._own.inside = True
            start = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                self._own.inside = False
                with self._lock:
                    self.seconds[kind] += time.perf_counter() - start

        return timed

    def _maker(self, kind: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*given: Any) -> Any:
            found = make(*given)
            if found is None:
                return None
            return found._replace(call=self._timed(kind, found.call)) if hasattr(found, "call") else self._timed(kind, found)

        return made


def kind_of(layer: nn.Layer) -> str:
    return next(kind for kind, types in KINDS.items() if isinstance(layer, types))


def measure_where(workers: int) -> list[dict[str, Any]]:
    """Of each case, inference and training: ms of a step, ms of each kind of layer a thread, and of their floors."""
    rows = []
    for name in (name for name in NETS if name.startswith(CASES)):
        rng = np.random.default_rng(0)
        model, size = network(name, rng), NETS[name][1]
        x = rng.standard_normal(size, dtype=np.float32)
        with Shards(workers) as shards:
            target = rng.integers(0, shards.infer(model, x).shape[1], len(x))
            loss, sgd = nn.CrossEntropyLoss(), optim.SGD(model.named_parameters(), lr=1e-6, momentum=0.9)
            rngs = [np.random.default_rng(i) for i in range(workers)]

            def train(s: Shards = shards, o: Any = sgd, given: Any = (model, loss, x, target, rngs)) -> None:
                o.step(s.step(*given, factored=True).gradients, each=s.each)

            floors = [
                {kind: 1e3 * alternate(floor(model, size, training, shards, kind_of, kind))[0]["median"] for kind in KINDS}
                for training in (False, True)
            ]
            clock = Clock(model)
            for what, step, least in zip(
                ("inference", "training step"), (lambda s=shards, m=model, x=x: s.infer(m, x), train), floors, strict=True
            ):
                whole, kinds = clocked(clock, step, workers)
                rows.append({"name": f"{name}: {what}", "step": whole, "kinds": kinds, "floors": least})
                print(rows[-1], flush=True)
    return rows


def clocked(clock: Clock, step: Callable[[], Any], workers: int) -> tuple[float, dict[str, float]]:
    """ms of a step, and of each kind of layer in a thread: medians of seven."""
    step()
    times: list[float] = []
    parts: list[Counter[str]] = []
    for _ in range(7):
        clock.seconds.clear()
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
        parts.append(Counter(clock.seconds))
    return statistics.median(times), {kind: 1e3 * statistics.median(part[kind] for part in parts) / workers for kind in KINDS}


def where_table(rows: list[dict[str, Any]]) -> str:
    """A line for each case: the step, each kind with its floor in brackets, and the rest."""
    lines = [f"| case | step, ms | {' | '.join(f'{kind} (floor)' for kind in KINDS)} | rest |", "|---" * (len(KINDS) + 3) + "|"]
    for row in rows:
        cells = [f"{row['kinds'][kind]:.1f} ({row['floors'][kind]:.1f})" for kind in KINDS]
        rest = row["step"] - sum(row["kinds"].values())
        lines.append(f"| {row['name']} | {row['step']:.1f} | {' | '.join(cells)} | {rest:.1f} |")
    return "\n".join(lines)
