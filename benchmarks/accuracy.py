"""The accuracy table of the README: three seeds of a training, written to benchmarks/results and printed as a table.

    python benchmarks/accuracy.py embedded
    python benchmarks/accuracy.py photos --data DIR            DIR/train/{cat,notcat}, DIR/test/{cat,notcat}; 600 of each, 224×224
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import numpy as np

import tinynet
from tinynet.distributed import available_cores
from tinynet.train.classifier import recipe_for, train_classifier
from tinynet.train.photos import embedded_parts, folder_parts

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["embedded", "photos"])
    parser.add_argument("--data", help="folder of photos, for `photos`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--resume", action="store_true", help="go on with interrupted runs, evaluate finished ones anew")
    parser.add_argument("--output", default="runs/accuracy", help="folder for the models (default: runs/accuracy)")
    options = parser.parse_args()
    runs = [
        one(options.what, options.data, seed, Path(options.output) / f"{options.what}-{seed}", options.resume)
        for seed in options.seeds
    ]
    record = {
        "what": options.what, "tinynet": tinynet.__version__, "numpy": np.__version__, "python": platform.python_version(),
        "cores": available_cores(), "load at the end": round(os.getloadavg()[0], 1), "runs": runs,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"accuracy-{options.what}.json").write_text(json.dumps(record, indent=2) + "\n")
    print("\n| seed | epochs | train | validation | test | minutes |\n|---|---|---|---|---|---|")
    for run in runs:
        shares = [f"{100 * run['accuracy'][part]:.1f} %" for part in ("train", "validation", "test")]
        print(f"| {run['seed']} | {run['epochs']} | {' | '.join(shares)} | {run['seconds'] / 60:.1f} |")
    means = [100 * np.mean([run["accuracy"][part] for run in runs]) for part in ("train", "validation", "test")]
    print(f"| mean | | {' | '.join(f'{mean:.1f} %' for mean in means)} | {np.mean([run['seconds'] for run in runs]) / 60:.1f} |")


def one(what: str, data: str | None, seed: int, output: Path, resume: bool) -> dict:
    """Train with one seed, and say how well and how long (training and validation, as the history has it)."""
    recipe = recipe_for(32 if what == "embedded" else 224)
    if what == "embedded":
        parts = embedded_parts(seed)
    elif data is None:
        raise SystemExit("accuracy: photos needs --data DIR with train/ and test/")
    else:
        parts = folder_parts(data, per_class=600, cache=recipe.cache, seed=seed)
    result = train_classifier(
        parts, recipe, output, seed=seed, positive="cat", resume=resume and (output / "last.safetensors").is_file(),
        overwrite=not resume,
    )
    history = json.loads((output / "history.json").read_text())
    return {
        "seed": seed, "epochs": recipe.epochs, "seconds": round(sum(row["seconds"] for row in history), 1),
        "accuracy": {part: round(evaluation.accuracy, 4) for part, evaluation in result.evaluations.items()},
    }


if __name__ == "__main__":
    main()
