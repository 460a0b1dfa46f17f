"""What a step changes before it is done, and how it is taken back if it does not come to its end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..backend import Array
from ..errors import DeviceMemoryError
from .diagnosis import NonFiniteError, find_cause

if TYPE_CHECKING:
    from .queue import QueuedStep
    from .trainer import Trainer


class Rollback:
    """Of a trainer's steps.

    buffers: as they were before the step that runs, since its forward pass moves running statistics. updating: whether parameters
    and counts are on the way from one step to the next.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.buffers: dict[str, Array] | None = None
        self.updating = False

    @contextmanager
    def step(self, x: Array) -> Iterator[None]:
        """A step on a batch x that is refused, or finds no memory, has not happened: the model is as it was before.

        But for an error of the optimiser's within the update, which nobody can take back; it leaves `updating` set.
        """
        trainer = self.trainer
        self.buffers = {name: buffer.copy() for name, buffer in trainer.model.named_buffers().items()}
        try:
            yield
        except MemoryError as error:
            if self.updating:
                trainer.optimizer.take_back()
            self.updating = False
            self.restore()
            trainer._queue.settle()
            why = str(error) if isinstance(error, DeviceMemoryError) else f"out of memory ({error}); try smaller batches"
            message = f"step {trainer.state.step}, {len(x)} samples: {why}; the model is as it was before"
            raise DeviceMemoryError(message) from None
        except Exception:
            if not self.updating:
                self.restore()
            raise

    def restore(self) -> None:
        """Put the buffers back as they were."""
        for name, buffer in self.trainer.model.named_buffers().items():
            if self.buffers is not None:
                buffer[...] = self.buffers[name]

    def non_finite(self, loss: float, step: QueuedStep) -> NonFiniteError:
        """The buffers as they were before the step whose loss or gradients are not finite, and the error that says why."""
        trainer = self.trainer
        state, self.buffers = trainer.state, step.buffers
        self.restore()
        cause = find_cause(trainer.model, trainer.loss, step.x, step.target, trainer._rngs(state.step)[0])
        self.restore()                                          # looking for it was a forward pass as well
        what = "the gradients are not finite" if math.isfinite(loss) else f"the loss is {loss}"
        return NonFiniteError(
            f"step {state.step} (epoch {state.epoch + 1}, batch {state.batch + 1}): {what} at learning rate {step.lr:.3g}; "
            f"it begins in {cause}; {trainer._keeper.advice()}",
            state.step, step.lr, cause,
        )  # fmt: skip
