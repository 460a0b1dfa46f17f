"""Steps that are on their way: a GPU has the next one to work on while the host reads the figures of the one before."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ..backend import Array
from .callbacks import Callback
from .progress import Progress
from .step_figures import StepFigures

if TYPE_CHECKING:
    from .trainer import Trainer


class QueuedStep(NamedTuple):
    """A step whose figures the host has not read: all that is needed to count it, or to say what went wrong in it."""

    figures: StepFigures
    x: Array
    target: Array
    lr: float
    buffers: dict[str, Array]
    """As they were before it."""


class StepQueue:
    """The steps of a trainer that are queued and not counted yet: none or one between two steps, one or two behind a step."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.steps: list[QueuedStep] = []

    @property
    def number(self) -> int:
        """Of the step that comes next."""
        return self.trainer.state.step + len(self.steps)

    @property
    def last(self) -> StepFigures | None:
        return self.steps[-1].figures if self.steps else None

    def add(self, figures: StepFigures, x: Array, target: Array) -> None:
        """The step that has just been queued."""
        rollback = self.trainer._rollback
        self.steps.append(QueuedStep(figures, x, target, self.trainer.optimizer.lr, rollback.buffers or {}))
        rollback.buffers, rollback.updating = None, False

    def to_leave(self) -> int:
        """How many steps need not be known yet: one on a GPU, unless a callback looks at single steps.

        It must find the model as its step left it.
        """
        watched = any(type(callback).on_batch_end is not Callback.on_batch_end for callback in self.trainer.callbacks)
        return 1 if self.last is not None and self.last.late and not watched else 0

    def settle(self, leave: int = 0, progress: Progress | None = None, started: float | None = None) -> None:
        """Read the figures of all steps but the last `leave`, and count them. Raises NonFiniteError.

        Behind a step whose loss or gradients are not finite all are held back, and are taken back here.
        """
        trainer, state, rollback = self.trainer, self.trainer.state, self.trainer._rollback
        while len(self.steps) > leave:
            step: Any = self.steps[0]
            loss, norm, right = step.figures.read()
            if not math.isfinite(loss) or not math.isfinite(norm):
                for _ in self.steps:
                    trainer.optimizer.take_back()
                self.steps.clear()
                raise rollback.non_finite(loss, step)
            seconds = state.seconds if started is None else time.perf_counter() - started
            updating, rollback.updating = rollback.updating, True     # already, if Ctrl-C came within the step behind it
            del self.steps[0]
            state.count(loss, right, len(step.target), seconds)
            rollback.updating = updating
            if progress is not None:
                mean = state.means()
                progress.batch(state.epoch, mean["train_loss"], mean["train_accuracy"], mean["images_per_second"])
                for callback in trainer.callbacks:
                    callback.on_batch_end(trainer, loss)
