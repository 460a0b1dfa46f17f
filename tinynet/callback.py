"""What else is to happen during a training, without changing its loop: the base of what `train` calls and `interpret` offers."""

from __future__ import annotations

from typing import Any


class Callback:
    """Base: every method does nothing. To end the training, give a reason: trainer.stop("…").

    What a callback must remember across a resume it puts in state_dict: plain JSON values. Define on_batch_end only to look at
    single steps: on a GPU the training then waits for each of them.
    """

    def on_fit_start(self, trainer: Any) -> None:
        """Before the first step of a call of fit, after a checkpoint was read."""

    def on_batch_end(self, trainer: Any, loss: float) -> None:
        """After each step, with its loss; trainer.state counts the steps done."""

    def on_epoch_end(self, trainer: Any, record: Any) -> None:
        """After each epoch's validation; the record is in trainer.history already, the checkpoint not yet written."""

    def on_fit_end(self, trainer: Any) -> None:
        """After the last epoch or an early stop; not after Ctrl-C or an error."""

    def state_dict(self) -> dict[str, Any]:
        """What has to survive a resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""


__all__ = ["Callback"]
