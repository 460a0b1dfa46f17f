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
BODY_PEAK = 1 / 1.40
"""Of VGG11's convolutions: their time over that of direct convolution at the peak of the matrix product, at most."""
OPS_MEAN, OPS_WORST = 0.70, 1.5
"""Of the single operations: geometric mean, and each."""


def targets_table(records: dict[str, dict[str, Any]]) -> str:
    """A row for each target: what was measured on each processor, what its floor would give, and what follows."""
    names = list(records)
    lines = [
        f"| work | at most | {' | '.join(f'{name} | its floor' for name in names)} | |", "|---" * (3 + 2 * len(names)) + "|",
    ]
    found = [_ratios(record) for record in records.values()]
    for name, target in [*TARGETS.items(), (BODY, BODY_PEAK), (MEAN, OPS_MEAN), (WORST, OPS_WORST)]:
        pairs = [(ratios[name][0], ratios[name][1]) if name in ratios else (None, None) for ratios in found]
        if any(measured is not None for measured, _ in pairs):
            cells = " | ".join(f"{_number(measured)} | {_number(least)}" for measured, least in pairs)
            lines.append(f"| {name} | {target:.2f} | {cells} | {_verdict(target, names, pairs)} |")
    return "\n".join(lines)


BODY = "VGG11's convolutions, forward: of direct convolution's time at the product's peak"
MEAN, WORST = "single ops: geometric mean", "single ops: the worst"
Ratio = tuple[float, float | None]
"""Measured, and of the floor."""


def _ratios(record: dict[str, Any]) -> dict[str, Ratio]:
    found = {r["name"]: (r["ratio"], _floor_ratio(r)) for part in ("nets", "looking") for r in record.get(part, [])}
    for r in record.get("nets", []):
        if r["name"].startswith("VGG11's convolutions alone"):
            at_peak = 2e-9 * r["multiply_adds"] / record["machine"]["matrix product"]["tinynet"]
            found[BODY] = r["tinynet"]["median"] / at_peak, r["floor"]["median"] / at_peak
    if ops := record.get("ops"):
        floors = [ratio for r in ops if (ratio := _floor_ratio(r)) is not None]
        whole = len(floors) == len(ops)
        found[MEAN] = statistics.geometric_mean(r["ratio"] for r in ops), statistics.geometric_mean(floors) if whole else None
        found[WORST] = max(r["ratio"] for r in ops), max(floors, default=None)
    return found


def _floor_ratio(row: dict[str, Any]) -> float | None:
    return row["floor"]["median"] / row["torch"]["median"] if row.get("floor") else None


def _number(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _verdict(target: float, names: list[str], pairs: list[tuple[float | None, float | None]]) -> str:
    """In a word where all processors agree, else of each."""
    words = {}
    for name, (measured, least) in zip(names, pairs, strict=True):
        if measured is not None:
            missed = "out of reach: the floor is above it" if least is not None and least > target else "open"
            words[name] = "reached" if measured <= target else missed
    return words.popitem()[1] if len(set(words.values())) == 1 else "; ".join(f"{name}: {word}" for name, word in words.items())
