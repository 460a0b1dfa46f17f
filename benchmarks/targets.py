"""What the benchmark is to reach, and whether the floor (floors.py) lets it."""

from __future__ import annotations

import statistics
from typing import Any

TARGETS = {
    "VGG11, 224², batch 8: training step": 0.60,
    "VGG11, 224², batch 8: inference": 0.40,
    "AlexNet, 224², batch 16: training step": 0.80,
    "AlexNet, 224², batch 16: inference": 0.60,
    "ZFNet, 224², batch 16: training step": 0.80,
    "ZFNet, 224², batch 16: inference": 0.60,
    "cat net, 224², batch 16: training step": 0.60,
    "cat net, 224², batch 16: inference": 0.30,
    "CIFAR VGG, 32², batch 64: training step": 0.90,
    "CIFAR VGG, 32², batch 64: inference": 0.90,
    "SqueezeNet 1.1, 224², batch 8: inference": 0.90,
    "VGG11: projection of one unit in 64 photos": 0.60,
    "VGG11: occlusion of one photo, patch 32, stride 8": 0.10,
}
"""Ratios, tinynet / the better of PyTorch's, at most."""
OPS_MEAN, OPS_WORST = 0.70, 1.5
"""Of the single operations: geometric mean, and each."""


def targets_table(record: dict[str, Any]) -> str:
    """A row for each target: what was measured, what the floor would give, and what follows."""
    rows = {r["name"]: r for part in ("nets", "looking") for r in record.get(part, [])}
    lines = ["| work | at most | measured | the floor would give | |", "|---|---|---|---|---|"]
    for name, target in TARGETS.items():
        if name in rows:
            lines.append(_line(name, target, rows[name]["ratio"], _floor_ratio(rows[name])))
    if ops := record.get("ops"):
        floors = [(r["name"], ratio) for r in ops if (ratio := _floor_ratio(r)) is not None]
        mean = statistics.geometric_mean(ratio for _, ratio in floors) if len(floors) == len(ops) else None
        lines.append(_line("single ops: geometric mean", OPS_MEAN, statistics.geometric_mean(r["ratio"] for r in ops), mean))
        worst, least = max(ops, key=lambda r: r["ratio"]), max(floors, key=lambda found: found[1], default=None)
        words = f"single ops: the worst ({worst['name']}" + (f"; the highest floor: {least[0]})" if least else ")")
        lines.append(_line(words, OPS_WORST, worst["ratio"], least and least[1]))
    return "\n".join(lines)


def _floor_ratio(row: dict[str, Any]) -> float | None:
    return row["floor"]["median"] / row["torch"]["median"] if row.get("floor") else None


def _line(name: str, target: float, measured: float, least: float | None) -> str:
    if measured <= target:
        verdict = "reached"
    elif least is not None and least > target:
        verdict = "out of reach: the floor is above it"
    else:
        verdict = "open"
    return f"| {name} | {target:.2f} | {measured:.2f} | {'' if least is None else f'{least:.2f}'} | {verdict} |"
