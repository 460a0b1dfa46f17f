"""The checkpoints of a training: what is written when, what is said of it, and what a new training must not destroy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, FileError
from .callbacks import improves
from .checkpoint import load_checkpoint, save_checkpoint
from .diagnosis import NonFiniteError, non_finite_array
from .history import EpochRecord
from .state import capture, restore

if TYPE_CHECKING:
    from .trainer import Trainer

LAST, BEST = "last.safetensors", "best.safetensors"


class Keeper:
    """Of a trainer's checkpoints."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def save(self, path: str | os.PathLike[str]) -> None:
        """See Trainer.save."""
        trainer = self.trainer
        bad, step, lr = non_finite_array(trainer.model), trainer.state.step - 1, trainer.optimizer.lr
        if bad is not None:
            message = f"{bad} is not finite after step {step} at learning rate {lr:.3g}; {self.advice()}"
            raise NonFiniteError(message, step, lr, bad)
        save_checkpoint(path, capture(trainer))

    def load(self, path: str | os.PathLike[str]) -> None:
        """See Trainer.load."""
        trainer = self.trainer
        restore(trainer, path)
        trainer._rollback.buffers, trainer._rollback.updating = None, False
        trainer._queue.steps.clear()

    def save_epoch(self, record: EpochRecord) -> None:
        """All files of an epoch that has ended, the best checkpoint if it is better."""
        trainer = self.trainer
        value = getattr(record, trainer.monitor)
        better = improves(trainer.monitor, value, trainer.state.best)
        if better:
            trainer.state.best = value
        if trainer.output is None:
            return
        if better:
            self.save(self.file(BEST))
        self.save(self.file(LAST))
        trainer.history.write_json(self.file("history.json"))
        trainer.history.write_csv(self.file("history.csv"))

    def save_interrupted(self) -> str:
        """Save the state between two steps, and say in one line what was done and how to go on."""
        trainer = self.trainer
        trainer._queue.settle()
        state, path = trainer.state, None if trainer.output is None else self.file(LAST)
        epoch = min(state.epoch + 1, trainer.epochs)
        done = f"interrupted after {state.step} steps (epoch {epoch} of {trainer.epochs})"
        if trainer._rollback.updating:  # a second Ctrl-C, in the middle of an update: some parameters are a step ahead
            done = f"interrupted within step {state.step}, half of which is not saved"
            if path is None or not path.is_file():
                return f"{done}; there is no checkpoint"
            saved = f"the last checkpoint is {path}"
        else:
            trainer._rollback.restore()
            if path is None:
                return f"{done}; nothing is saved, for want of an output folder"
            self.save(path)
            saved = f"saved as {path}"
        return f"{done}; {saved}; resume with {trainer.resume_hint or f'fit(resume={str(path)!r})'}"

    def advice(self) -> str:
        """What may help where numbers are no longer finite."""
        if self.trainer.output is None or not self.file(LAST).is_file():
            return "try a lower learning rate or max_norm"
        return f"the last good checkpoint is {self.file(LAST)}; try a lower learning rate or max_norm"

    def file(self, name: str) -> Path:
        """Of that name in the output folder. Raises ArgumentError where there is none."""
        if self.trainer.output is None:
            raise ArgumentError(f"Trainer: {name} needs an output folder")
        return self.trainer.output / name


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


__all__ = ["BEST", "LAST", "Keeper", "check_unused", "kept_epochs"]
