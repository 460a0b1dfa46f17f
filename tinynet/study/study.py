"""All experiments of the paper that a model and a folder of photos allow, with their pictures, figures and words."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Dataset
from ..errors import FileError
from ..files import make_folder, write_text
from ..interpret.control import untrained
from ..interpret.fingerprints import model_fingerprint, photos_fingerprint
from ..models import TrainedModel
from . import experiments
from .training import training, transfer
from .words import findings
from .workbench import Skip, Workbench, check_unused, plain

STATE = "state.json"
"""The file in a study's folder from which it goes on after an interruption."""


@dataclass
class Study:
    """What was done. figures: plain JSON values by experiment. skipped: experiment → why. warnings, findings: sentences."""

    output: Path
    figures: dict[str, Any] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def run_study(
    trained: TrainedModel, photos: Dataset, output: str | os.PathLike[str], *, epochs: int = 0, quick: bool = False,
    boxes: Mapping[str, Any] | None = None, others: Dataset | None = None, seed: int = 0, workers: int | None = None,
    command: str = "", resume: bool = False, overwrite: bool = False, say: Callable[[str], None] = print,
) -> Study:
    """Do every experiment that can be done and write pictures, figures.json and findings.txt into the folder `output`.

    epochs: train variants of the model on the photos for that many epochs each, for evolution and ablation; 0: leave these out.
    quick: fewer photos, positions and steps, for a first look. boxes: {"photos": indices, "parts": {name: boxes (N, 4) in pixels
    of the input}}, for correspondence. others: photos of other classes, for transfer; None: the same photos.
    seed: of which photos are taken, and of what is drawn.
    resume: go on where an earlier run with the same arguments was interrupted; each experiment is kept when it is done, the
    variants of an ablation and the layers of a transfer one by one. Raises FileError for the state of another study.
    overwrite: begin anew also where the folder holds a study that was interrupted; without, that is an ArgumentError.
    """
    if not resume and not overwrite:
        check_unused(Path(output) / STATE, *(["--{}"] if command else []))
    done = Study(make_folder(output))
    why = untrained(trained.model)
    if why:
        done.warnings.append(f"the model looks untrained ({why}): what follows shows what a random network gives")
        say(f"warning: {done.warnings[-1]}")
    question = _question(trained, photos, others, (epochs, quick, seed, plain(boxes)))
    bench = Workbench(trained, photos, done.output, quick=quick, seed=seed, workers=workers, command=command,
                      state=done.output / STATE, question=question)
    if resume:
        bench.resume()
    else:
        for old in (STATE, "top.safetensors"):
            (done.output / old).unlink(missing_ok=True)
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        name: lambda name=name: {name: getattr(experiments, name)(bench)}  # type: ignore[misc]
        for name in ("activations", "filters", "maximisation", "occlusion", "invariance")
    }
    steps["correspondence"] = lambda: {"correspondence": experiments.correspondence(bench, boxes)}
    steps["transfer"] = lambda: {"transfer": transfer(bench, photos if others is None else others)}
    steps["evolution and ablation"] = lambda: dict(zip(("ablation", "evolution"), training(bench, epochs, say), strict=True))
    for name, step in steps.items():
        try:
            kept = bench.once(name, lambda step=step: _with_pictures(bench, step))  # type: ignore[misc]
        except Skip as reason:
            done.skipped[name] = str(reason)
            say(f"{name}: left out, {reason}")
            continue
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted at {name}; what was found is in {done.output / STATE}: resume (--resume) to go on from it"
            ) from None
        done.figures |= kept["figures"]
        for picture in kept["pictures"]:
            done.pictures.append(done.output / picture)
            say(f"{name}: {done.pictures[-1]}")
    done.findings = findings(done.figures)
    record = {
        "command": command, "model": trained.name, "photos": len(photos), "warnings": done.warnings, "skipped": done.skipped,
        "findings": done.findings, **done.figures,
    }
    write_text(done.output / "figures.json", json.dumps(plain(record), indent=1, allow_nan=False) + "\n")
    write_text(done.output / "findings.txt", "\n\n".join([*done.warnings, *done.findings]) + "\n")
    bench.finish()
    return done


def _with_pictures(bench: Workbench, step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    bench.pictures = []
    figures = step()
    return {"figures": figures, "pictures": [path.name for path in bench.pictures]}


def _question(trained: TrainedModel, photos: Dataset, others: Dataset | None, options: Any) -> str:
    """A hash of what a study is of."""
    transform = trained.preprocessing.transform()
    parts = [model_fingerprint(trained.model), photos_fingerprint(photos, transform), options]
    parts.append(None if others is None else photos_fingerprint(others, transform))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def read_boxes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON file {"photos": [0, 5, …], "parts": {"left eye": [[top, left, height, width], …], …}}; pixels of the
    model's input.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        photos = [int(i) for i in record["photos"]]
        parts = {str(name): np.array(boxes, dtype=np.int64).reshape(len(photos), 4) for name, boxes in record["parts"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path}: expected boxes as {{'photos': [numbers], 'parts': {{name: [[top, left, height, width], …]}}}} "
                        f"({type(error).__name__}: {error})") from None
    return {"photos": photos, "parts": parts}


__all__ = ["STATE", "Study", "read_boxes", "run_study"]
