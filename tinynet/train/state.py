"""The state of a training: what a Trainer counts, what of it a checkpoint holds, and how it is taken back."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..distributed import Shards
from ..errors import ArgumentError, FileError, TinynetError
from .checkpoint import Checkpoint, load_checkpoint
from .history import EpochRecord, History

if TYPE_CHECKING:
    from .trainer import Trainer


@dataclass
class State:
    """How far a training has come; with weights, buffers and optimiser state it is all that a resume needs."""

    step: int = 0  # steps done
    epoch: int = 0  # epochs done
    batch: int = 0  # batches done of the epoch that is under way
    images: int = 0  # samples in these batches, …
    loss_sum: float = 0.0  # … the sum of their losses, …
    right: float = 0.0  # … how many were classified rightly (nan if the targets are no classes), …
    seconds: float = 0.0  # … and the time they took
    best: float | None = None  # the best value of the monitored figure
    epochs: int | None = None  # how many the run was to have when this was written

    def count(self, loss: float, right: float, images: int, seconds: float) -> None:
        """A step that was done. loss: the mean over its samples. seconds: of the epoch so far."""
        self.step += 1
        self.batch += 1
        self.images += images
        self.loss_sum += loss * images
        self.right += right
        self.seconds = seconds

    def means(self) -> dict[str, float]:
        """The figures of this epoch so far."""
        images = self.images or math.nan
        return {
            "train_loss": self.loss_sum / images,
            "train_accuracy": self.right / images,
            "images_per_second": self.images / self.seconds if self.seconds else math.nan,
        }

    def record(self, lr: float, validation: dict[str, float], seconds: float) -> EpochRecord:
        """The epoch's row in the history."""
        return EpochRecord(epoch=self.epoch + 1, lr=lr, seconds=seconds, **self.means(), **validation)

    def next_epoch(self) -> None:
        """The counts at zero."""
        self.epoch += 1
        self.batch, self.images, self.loss_sum, self.right, self.seconds = 0, 0, 0.0, 0.0, 0.0


def capture(trainer: Trainer) -> Checkpoint:
    """The trainer's present state; the arrays are the live ones."""
    record = {
        "seed": trainer.seed,
        "workers": trainer._shards.workers,
        "loader": _loader_facts(trainer.train_loader),
        "state": {**asdict(trainer.state), "epochs": trainer.epochs},
        "stopped": trainer.stop_reason,
        "history": trainer.history.to_dicts(),
        "callbacks": [[type(callback).__name__, callback.state_dict()] for callback in trainer.callbacks],
        "config": trainer.config,
    }
    return Checkpoint(trainer.model.state_dict(), trainer.optimizer.state_dict(), record)


def restore(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Put the state of the checkpoint at path into the trainer.

    The number of workers becomes the checkpoint's, unless the trainer was given one.
    Raises FileError if it cannot be read; ArgumentError or ShapeError if it belongs to another run, whose
    batches, workers, parameters or optimiser differ.
    """
    checkpoint = load_checkpoint(path)
    record = checkpoint.record
    try:
        facts = {"seed": trainer.seed, **_loader_facts(trainer.train_loader)}
        theirs = {"seed": record["seed"], "workers": record["workers"], **record["loader"]}
        if not trainer._any_workers:
            facts["workers"] = trainer._shards.workers
        state, history = State(**record["state"]), History.from_dicts(record["history"])
        callbacks, workers = list(record["callbacks"]), int(record["workers"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path}: a damaged checkpoint ({type(error).__name__}: {error})") from None
    for name, value in facts.items():
        if theirs.get(name, value) != value:
            raise ArgumentError(f"{path}: cannot be continued: its run had {name} {theirs[name]}, this one has {value}")
    try:
        trainer.optimizer.load_state_dict(checkpoint.optimizer)
        trainer.model.load_state_dict(checkpoint.model)
    except TinynetError as error:
        raise type(error)(f"{path}: cannot be continued by this run: {error}") from None
    trainer.state, trainer.history = state, history
    trainer._shards = Shards(workers)  # sums in another order would have other last bits
    for callback in trainer.callbacks:  # each takes the first state of its kind; a new kind starts afresh
        for entry in callbacks:
            if entry[0] == type(callback).__name__:
                callback.load_state_dict(entry[1])
                callbacks.remove(entry)
                break


def _loader_facts(loader: Any) -> dict[str, Any]:
    """What must be equal for a resume to see the same batches."""
    facts = {"batches per epoch": len(loader)}
    for name in ("batch_size", "seed", "shuffle", "drop_last"):
        value = getattr(loader, name, None)
        if isinstance(value, bool | int | np.integer):
            facts[f"loader {name}"] = int(value)
    return facts
