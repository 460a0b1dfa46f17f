"""The checkpoints in a training's folder, and what a new training must not destroy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, FileError
from .checkpoint import load_checkpoint

LAST, BEST = "last.safetensors", "best.safetensors"


def check_unused(
    folder: str | os.PathLike[str], config: dict[str, Any], seed: int, epochs: int, flag: str = "{}=True", output: str = "output"
) -> None:
    """Raise ArgumentError for a folder whose run a new one would destroy: one that is not finished, or one of its own.

    A finished run of the same config, seed and epochs may be replaced: it is what the new one makes again. flag, output: how the
    error calls the options resume and overwrite, and the folder.
    """
    path, ways = Path(folder) / LAST, f"{flag.format('overwrite')} replaces it, or give another {output}"
    if not path.exists():
        return
    try:
        record = load_checkpoint(path).record
        state, stopped, theirs = record["state"], record.get("stopped"), (record["config"], record["seed"])
        steps, done, total = int(state["step"]), int(state["epoch"]), int(state.get("epochs") or 0)
        command = theirs[0].get("command")
    except (FileError, KeyError, TypeError, ValueError, AttributeError) as error:
        why = str(error).removeprefix(f"{path}: ")
        raise FileError(f"{path}: not replaced, for it is no checkpoint that can be read ({why}); {ways}") from None
    epochs_done = f"{done} of {total} epochs" if total else f"{done} epochs"
    if steps and not stopped and (done < total or not total):
        goes_on = f"{flag.format('resume')} goes on with it"
        raise ArgumentError(f"{path}: holds an unfinished training ({epochs_done}); {goes_on}, {ways}")
    if steps and (*theirs, total) != (json.loads(json.dumps(config)), seed, epochs):
        raise ArgumentError(f"{path}: holds another training ({epochs_done}{f'; {command}' if command else ''}); {ways}")


def kept_epochs(folder: str | os.PathLike[str]) -> int | None:
    """How many epochs the run in this folder was to have; None: there is no run, or its file is older than this record of it."""
    path = Path(folder) / LAST
    if not path.is_file():
        return None
    epochs = load_checkpoint(path).record.get("state", {}).get("epochs")
    return epochs if isinstance(epochs, int) else None


__all__ = ["BEST", "LAST", "check_unused", "kept_epochs"]
