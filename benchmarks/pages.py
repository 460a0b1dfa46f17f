"""What speed.py measured, as pages: one for each processor, and the table of targets in README.md for all of them."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from growth import draw_growth
from targets import targets_table
from where import where_table

HERE = Path(__file__).parent
PARTS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "nets": ("Networks", lambda record: table(record["nets"], peak(record))),
    "where": (
        "Where a step goes\n\nA thread's time in the layers of each kind, of the same networks in another run, and their floors. "
        "Each figure\nis a median of its own, of seven steps, so a small rest may come out below zero.",
        lambda record: where_table(record["where"]),
    ),
    "looking": ("Looking inside, against Captum", lambda record: table(record["looking"], peak(record))),
    "footprint": (
        "Memory, start, size\n\nOf fresh processes that load one of the two alone; training is three steps of SGD with momentum.",
        lambda record: footprint_table(record["footprint"]),
    ),
    "loading": (
        "Loading\n\nThe recipe of the photos at 224² (random resized crop, flip, colour jitter, normalisation, erasing), with "
        "the loader's own\nthreads and nothing beside it; a training waits for its loader where the second figure is below the "
        "third.",
        lambda record: loading_table(record["loading"]),
    ),
    "growth": ("Growth", lambda record: f"![Milliseconds a photo against batch size, photo size and workers]({_growth(record)})"),
    "ops": ("Single ops", lambda record: f"{worst(record['ops'])}\n\n{table(record['ops'], peak(record))}"),
}
"""Part of a record: heading with its words, what stands beneath."""


def short(processor: str) -> str:
    """A processor's name without what is no name."""
    return " ".join(re.sub(r"\((R|TM)\)|Processor|CPU", " ", processor).split()) or "unknown processor"


def results(processor: str) -> Path:
    """Where its figures are kept."""
    return HERE / "results" / f"speed-{'-'.join(re.findall('[a-z0-9]+', short(processor).lower()))}.json"


def write_pages() -> None:
    """Every processor's page, its picture of growth, and the targets in README.md, from the results."""
    records = []
    for file in sorted((HERE / "results").glob("speed-*.json")):
        records.append(record := json.loads(file.read_text(encoding="utf-8")))
        lines = [f"# Speed on {short(record['machine']['processor'])}", "", machine_words(record)]
        for part, (heading, text) in PARTS.items():
            if part in record:
                lines += ["", f"## {heading}", "", text(record)]
        file.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if "growth" in record:
            draw_growth(record["growth"], file.parent / _growth(record))
    page = (HERE / "README.md").read_text(encoding="utf-8")
    begin, end = "<!-- speed targets -->", "<!-- speed targets end -->"
    before, rest = page.split(begin)
    names = [short(record["machine"]["processor"]) for record in records]
    machines = [
        f"* [{name}](results/{results(name).stem}.md): {machine_words(record)}"
        for name, record in zip(names, records, strict=True)
    ]
    text = "\n".join([*machines, "", targets_table(dict(zip(names, records, strict=True)))])
    (HERE / "README.md").write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def peak(record: dict[str, Any]) -> float:
    """Of the matrix product, GFLOP/s."""
    return float(record["machine"]["matrix product"]["tinynet"])


def worst(rows: list[dict[str, Any]]) -> str:
    """Which op is the slowest beside PyTorch, and of which the floor is."""
    most = max(rows, key=lambda r: r["ratio"])
    least = max(rows, key=lambda r: r["floor"]["median"] / r["torch"]["median"])
    return f"The worst ratio is that of {most['name']}, {most['ratio']:.2f}; the highest floor is that of {least['name']}."


def _growth(record: dict[str, Any]) -> str:
    return results(record["machine"]["processor"]).stem.replace("speed", "growth") + ".png"


def machine_words(record: dict[str, Any]) -> str:
    """What the figures are of."""
    found = record["machine"]
    product = found["matrix product"]
    return (
        f"{found['threads']} threads; Python {found['python']}, NumPy {found['numpy']} "
        f"({', '.join(name for name in found['BLAS'] if 'blas' in name)}), PyTorch {found['torch']}. "
        f"Matrix product of 3072²: {product['tinynet']} GFLOP/s in NumPy (the peak), {product['torch']} in PyTorch."
        + (f" {record['note']}" if "note" in record else "")
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
