"""The training loop, in one piece: see Trainer._run."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array
from ..data.pinned import transferred
from ..distributed import Shards
from ..errors import ArgumentError
from ..files import make_folder
from ..nn.layer import reference_array
from ..nn.loss import Loss
from ..optim import Optimizer, Schedule, clip_grad_norm, clip_grad_value, total_norm
from .callbacks import Callback, check_callbacks, check_monitor
from .checkpoint import load_checkpoint
from .evaluation import evaluate
from .history import EpochRecord, History
from .interrupt import PatientInterrupt, TrainingInterrupted
from .keeping import BEST, LAST, Keeper, check_unused
from .progress import Mode, Progress
from .queue import StepQueue
from .rollback import Rollback
from .state import State
from .step_figures import StepFigures

_STEP_STREAM = 0x57E9  # sets a step's random numbers apart from the loader's, should both have the same seed


class Trainer:
    """Train a model: forward, loss, backward, clip, schedule, step, batch after batch.

    model: anything with the layer protocol. loss: (logits, target) -> (value, dlogits). optimizer: over
        model.named_parameters(), built after model.to(…), or over some of them: the others are frozen and compute no gradients.
    train_loader: has len() and batches(epoch, start). validation_loader: iterable of batches, or None.
    epochs: how many in all, those before a resume included. schedule: sets the learning rate of every step, or, with
        schedule_every="epoch", of every epoch. max_norm, clip_value: clip the gradients (PyTorch's clip_grad_norm_,
        clip_grad_value_), in that order.
    callbacks: see Callback; EarlyStopping is one.
    output: a folder for last.safetensors and best.safetensors (checkpoints: the last epoch, and the one best by
        `monitor`, a column of the history), history.json and history.csv, all written each epoch; None: nothing.
        The best weights: load_best() puts them into the model; tinynet.load("…/best.safetensors", model=network) into one built
        elsewhere, and gives a TrainedModel, whose save writes a model file for all commands.
    right: (logits, target) -> how many are classified rightly, for the accuracies; None: the highest logit is the class.
    seed: of dropout; the loader has its own.
    workers: threads that share a batch; None: as many as a resumed run had, or one a core.
    config: kept in the checkpoints, plain JSON values.
    progress: "bar", "lines", "none", or None: a bar at a terminal and lines elsewhere.
    resume_hint: how a user resumes, told after Ctrl-C; None: the call in Python.
    """

    def __init__(
        self,
        model: Any,
        loss: Loss,
        optimizer: Optimizer,
        train_loader: Any,
        validation_loader: Any = None,
        *,
        epochs: int,
        schedule: Schedule | None = None,
        schedule_every: str = "step",
        max_norm: float | None = None,
        clip_value: float | None = None,
        callbacks: Sequence[Callback] = (),
        output: str | os.PathLike[str] | None = None,
        monitor: str | None = None,
        seed: int = 0,
        workers: int | None = None,
        right: Callable[[Array, Array], Any] | None = None,
        config: dict[str, Any] | None = None,
        progress: Mode | None = None,
        resume_hint: str | None = None,
    ) -> None:
        if not isinstance(epochs, int | np.integer) or epochs < 0:
            raise ArgumentError(f"Trainer: expected epochs to be an integer of at least 0, got {epochs!r}")
        if schedule_every not in ("step", "epoch"):
            raise ArgumentError(f'Trainer: expected schedule_every "step" or "epoch", got {schedule_every!r}')
        if progress not in ("bar", "lines", "none", None):
            raise ArgumentError(f'Trainer: expected progress "bar", "lines", "none" or None, got {progress!r}')
        if len(train_loader) == 0:
            raise ArgumentError("Trainer: expected a train_loader with at least one batch, got an empty one")
        if not hasattr(train_loader, "batches"):
            kind = type(train_loader).__name__
            raise ArgumentError(f"Trainer: expected a train_loader with batches(epoch, start), such as a data.Loader, got {kind}")
        try:
            json.dumps(config, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"Trainer: expected a config of plain JSON values, {error}") from None
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.train_loader, self.validation_loader = train_loader, validation_loader
        self.epochs, self.schedule, self.schedule_every = int(epochs), schedule, schedule_every
        self.max_norm, self.clip_value = max_norm, clip_value
        self.callbacks = check_callbacks("Trainer", callbacks)
        self.output = None if output is None else Path(output)
        default = "train_loss" if validation_loader is None else "val_accuracy"
        self.monitor = check_monitor("Trainer", monitor or default)
        self.seed, self.config, self.progress, self.resume_hint = seed, config or {}, progress, resume_hint
        self._shards = Shards(workers)
        self._any_workers = workers is None
        self.right = right or count_right
        self.state, self.history = State(), History()
        self.stop_reason: str | None = None
        # What the optimiser does not hold is frozen.
        self._wanted = {name for group in optimizer.param_groups for name in group["params"]}
        self._queue, self._rollback, self._keeper = StepQueue(self), Rollback(self), Keeper(self)

    def fit(self, resume: str | os.PathLike[str] | bool = False, overwrite: bool = False) -> History:
        """Train up to `epochs` and return the history. A second call goes on from where the first one ended.

        resume: a checkpoint to start from; True: last.safetensors in the output folder. The run then gives the same
        bits as one that was never stopped, also when it was stopped in the middle of an epoch.
        overwrite: begin anew whatever the output folder holds. Without, a run there that is not finished, or is of another
        config, seed or number of epochs, is an ArgumentError.
        Raises TrainingInterrupted (a KeyboardInterrupt) after Ctrl-C, NonFiniteError for a loss or gradient that is
        not finite, FileError if a checkpoint cannot be read or written, ArgumentError if it belongs to another run.
        """
        if resume is True and self.output is None:
            raise ArgumentError("Trainer.fit: resume=True needs an output folder; give the path of a checkpoint")
        if resume:
            self.load(self._keeper.file(LAST) if resume is True else resume)
        elif self.output is not None and not self.state.step and not overwrite:
            check_unused(self.output, self.config, self.seed, self.epochs)
        if self._rollback.updating:
            raise ArgumentError("Trainer.fit: the model holds half a step; resume from a checkpoint")
        if self.output is not None:
            make_folder(self.output)
        self._check_optimizer()
        self.stop_reason, self._rollback.buffers = None, None
        # Overflow is looked for at every step, so NumPy's warnings of it would only say the same in other words.
        silent = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        with self._shards, PatientInterrupt() as interrupt, silent:
            batches = len(self.train_loader)
            done = self.state.epoch * batches + self.state.batch
            progress = Progress(self.progress, self.epochs * batches, done, self.epochs)
            self._say_what_is_left(progress)
            try:
                for callback in self.callbacks:
                    callback.on_fit_start(self)
                try:
                    self._run(interrupt, progress)
                finally:
                    self._queue.settle()
                for callback in self.callbacks:
                    callback.on_fit_end(self)
            except KeyboardInterrupt:
                progress.close()
                raise TrainingInterrupted(self._keeper.save_interrupted()) from None
            finally:
                progress.close()
        return self.history

    def _run(self, interrupt: PatientInterrupt, progress: Progress) -> None:
        """The loop itself."""
        model, optimizer, state = self.model, self.optimizer, self.state
        reference = reference_array(model)  # batches follow the model to its device
        while state.epoch < self.epochs and self.stop_reason is None:
            started = time.perf_counter() - state.seconds
            batches = self.train_loader.batches(state.epoch, start=state.batch)
            for x, target in interrupt.between(transferred(batches, reference)):
                number = self._queue.number

                with self._rollback.step(x):
                    # Forward, loss, backward, in threads that share the batch; distributed/shards.py has the lines.
                    loss, logits, gradients = self._shards.step(
                        model, self.loss, x, target, self._rngs(number), self._wanted, self._factored
                    )
                    each = self._shards.each
                    if self.max_norm is None:
                        norm = total_norm(gradients, each=each)
                    else:
                        norm = clip_grad_norm(gradients, self.max_norm, each=each)
                    if self.clip_value is not None:
                        clip_grad_value(gradients, self.clip_value, each=each)
                    if self.schedule is not None:
                        self.schedule.apply(optimizer, number if self.schedule_every == "step" else state.epoch)
                    figures = StepFigures(loss, norm, self.right(logits, target), self._queue.last)
                    self._rollback.updating = True
                    # Nothing changes unless it is; a GPU knows it before the host does.
                    optimizer.step(gradients, figures.finite, each)
                    del gradients                               # or they would stand beside those of the next step
                self._queue.add(figures, x, target)
                # Now is this step's loss read, or, so that a GPU always has a step to work on, that of the step before.
                self._queue.settle(self._queue.to_leave(), progress, started)
            self._queue.settle(0, progress, started)

            validation = {"val_loss": math.nan, "val_accuracy": math.nan}
            if self.validation_loader is not None:
                result = evaluate(model, interrupt.between(self.validation_loader), self.loss, self._shards)
                accuracy = float(self.right(result.logits, result.labels)) / len(result.labels)
                validation = {"val_loss": result.loss, "val_accuracy": accuracy}
            record = self._record_epoch(validation, time.perf_counter() - started)

            for callback in self.callbacks:
                callback.on_epoch_end(self, record)
            progress.line(record.line(self.epochs))
            self._keeper.save_epoch(record)
            interrupt.check()
        if self.stop_reason is not None:
            progress.line(f"stopped early: {self.stop_reason}")

    def stop(self, reason: str) -> None:
        """End the training after this epoch (callbacks call it)."""
        self.stop_reason = reason

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint of the present state. Raises FileError, or NonFiniteError rather than save nan or inf."""
        self._keeper.save(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over the state of a checkpoint. Raises FileError, or ArgumentError if it belongs to another run."""
        self._keeper.load(path)

    def load_best(self) -> None:
        """Put the best checkpoint's weights and buffers into the model; nothing else changes."""
        self.model.load_state_dict(load_checkpoint(self._keeper.file(BEST)).model)

    # -- details of the loop

    def _say_what_is_left(self, progress: Progress) -> None:
        """A line where a run goes on that is at its end, or that was to have another number of epochs."""
        state, before = self.state, self.state.epochs
        state.epochs = self.epochs
        if state.step and state.epoch >= self.epochs:
            progress.line(f"nothing is left to train: {state.epoch} epochs are done, {self.epochs} were asked for")
        elif before not in (None, self.epochs):
            line = f"goes on to {self.epochs} epochs, which were to be {before}"
            if self.schedule is not None:
                step = state.step if self.schedule_every == "step" else state.epoch
                lr = self.schedule.lr_at(step, self.optimizer.param_groups[0]["initial_lr"])
                line += f": by the schedule of {self.epochs} the learning rate, last {self.optimizer.lr:.3g}, is now {lr:.3g}"
            progress.line(line)

    def _rngs(self, step: int) -> list[np.random.Generator]:
        """The random numbers of a step (dropout), one generator a worker.

        They follow from the seed, the step's number and the worker's alone; a resumed run needs no generator's state.
        """
        workers = self._shards.workers
        return [np.random.default_rng((self.seed, _STEP_STREAM, step, rank)) for rank in range(workers)]

    @property
    def _factored(self) -> bool:
        """Whether the optimiser takes products that are not computed; a step of its own may look at whole arrays."""
        return getattr(type(self.optimizer), "step", None) is Optimizer.step

    def _record_epoch(self, validation: dict[str, float], seconds: float) -> EpochRecord:
        """Close the epoch: its row in the history, and the counts at zero for the next."""
        record = self.state.record(self.optimizer.lr, validation, seconds)
        self._rollback.updating = True
        self.history.append(record)
        self.state.next_epoch()
        self._rollback.updating = False
        return record

    def _check_optimizer(self) -> None:
        """The optimiser must hold the model's own arrays, or it would train something else."""
        mine = self.model.named_parameters()
        for group in self.optimizer.param_groups:
            for name, parameter in group["params"].items():
                if name not in mine or mine[name] is not parameter:
                    raise ArgumentError(
                        f"Trainer: the optimizer's {name} is not the model's; "
                        "build it from model.named_parameters(), after model.to(…)"
                    )


def count_right(logits: Array, target: Array) -> Any:
    """How many samples have their highest logit at their class, 0-d on their device; nan where the targets are no classes."""
    if logits.ndim != 2 or target.ndim != 1 or target.dtype.kind not in "iu":
        return math.nan
    return (logits.argmax(axis=1) == target).sum()
