"""The paper's transfer experiment with the boxed network: frozen features of each stage, a softmax on top, Caltech-101.

    python benchmarks/transfer.py --data DIR                       # DIR/<class>/*.jpg; writes results and docs/transfer.md
    python benchmarks/transfer.py --data DIR --layers features.12  # one stage

What benchmarks/results/transfer.json has already is not computed again.

Zeiler & Fergus 2014, section 5.2: 15 and 30 photos of each class to train on, up to 50 others to test on, mean of the classes'
accuracies, five folds; beside it the same with all weights redrawn.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np

import tinynet
from tinynet.data import ImageFolder, cached
from tinynet.interpret.control import randomised
from tinynet.models import boxed
from tinynet.study import frozen_features, transfer

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "transfer.json", ROOT / "docs" / "transfer.md"
LAYERS = ["features.1", "features.4", "features.7", "features.10", "features.12"]
SIZES = (15, 30)
COMMAND = "python benchmarks/transfer.py --data DIR"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="class folders of Caltech-101")
    parser.add_argument("--layers", nargs="+", default=LAYERS)
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    trained = boxed()
    folder = ImageFolder(options.data)
    smallest = int(np.bincount(folder.labels).min())
    photos = cached(folder, trained.preprocessing.resize, progress=True)
    record = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"rows": {}}
    record.update(
        tinynet=tinynet.__version__, numpy=np.__version__, python=platform.python_version(), photos=len(photos),
        classes=len(photos.classes), smallest=smallest, folds=options.folds,
    )
    for name, model in (("trained", trained.model), ("redrawn", randomised(trained.model, np.random.default_rng(0)))):
        missing = {
            layer: sizes for layer in options.layers
            if (sizes := [size for size in SIZES if f"{name} {layer} {size}" not in record["rows"]])
        }
        if not missing:
            continue
        features = frozen_features(model, photos, trained.preprocessing.transform(), list(missing))
        for layer, sizes in missing.items():
            alone = replace(features, layers={layer: features.layers[layer]})
            for size in sizes:
                row = transfer(alone, [size], options.folds).rows[0]
                record["rows"][f"{name} {layer} {size}"] = [row.accuracy, row.error]
                print(f"{name} {layer}, {size} per class: {100 * row.accuracy:.1f} %", flush=True)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(record, indent=1) + "\n")
                PAGE.write_text(page(record), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


def page(record: dict) -> str:
    """docs/transfer.md."""
    def cell(name: str, layer: str, size: int) -> str:
        found = record["rows"].get(f"{name} {layer} {size}")
        return "not yet" if found is None else f"{100 * found[0]:.1f} ± {100 * found[1]:.1f} %"

    lines = [
        "# What the features are worth elsewhere", "",
        "The transfer experiment of Zeiler & Fergus (2014, section 5.2) with the network in the box, SqueezeNet 1.1 with",
        f"ImageNet's weights, on Caltech-101: {record['photos']:,} photos in {record['classes']} class folders, of which the",
        f"smallest has {record['smallest']}. The network stays as it is; on the maps of one stage, averaged over at most 4×4",
        "places, a softmax is trained with 15 or 30 photos of each class. Mean of the classes' accuracies over",
        f"{record['folds']} folds, ± one standard error over folds (which share photos). Beside it the same network with all",
        "its weights redrawn.", "",
        "| stage | trained, 15 per class | trained, 30 per class | redrawn, 15 per class | redrawn, 30 per class |",
        "|---|---|---|---|---|",
    ]
    for layer in LAYERS:
        cells = [cell(name, layer, size) for name in ("trained", "redrawn") for size in SIZES]
        if set(cells) != {"not yet"}:
            lines.append(f"| {layer} | {' | '.join(cells)} |")
    return "\n".join([
        *lines, "",
        f"Chance is {100 / record['classes']:.1f} %. The paper's network, of 62 million parameters, has 83.8 % (15) and 86.5 %",
        "(30) with its layer 7; SqueezeNet has 1.2 million.", "",
        f"Made by `{COMMAND}`, NumPy {record['numpy']}, Python {record['python']}.", "",
    ])


if __name__ == "__main__":
    main()
