"""Callbacks for a training, and what they go by; `Callback` is their base."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..callback import Callback
from ..errors import ArgumentError
from .history import COLUMNS, EpochRecord

if TYPE_CHECKING:
    from .trainer import Trainer


class EarlyStopping(Callback):
    """Stop when a figure of the history has not improved by more than min_delta for `patience` epochs.

    monitor: a column of the history. A loss improves downwards, an accuracy upwards. nan never improves.
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 5, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ArgumentError(f"EarlyStopping: expected patience of at least one epoch, got {patience}")
        self.monitor, self.patience, self.min_delta = check_monitor("EarlyStopping", monitor), patience, min_delta
        self.best: float | None = None
        self.waited = 0

    def on_fit_start(self, trainer: Trainer) -> None:
        self._stop_if_due(trainer)

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        value = getattr(record, self.monitor)
        if improves(self.monitor, value, self.best, self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self._stop_if_due(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]

    def _stop_if_due(self, trainer: Trainer) -> None:
        if self.waited >= self.patience:
            best = "" if self.best is None else f" from {self.best:.4g}"
            trainer.stop(f"{self.monitor} has not improved{best} for {self.waited} epochs")


def check_callbacks(owner: str, callbacks: Any) -> list[Callback]:
    """The callbacks as a list. Raises ArgumentError for one that lacks a method of Callback's, from which it need not derive."""
    methods = [name for name in vars(Callback) if not name.startswith("_")]
    for callback in callbacks if isinstance(callbacks, Iterable) else [callbacks]:
        whole = not isinstance(callback, type) and all(hasattr(callback, name) for name in methods)
        if not whole or callback is callbacks:
            raise ArgumentError(f"{owner}: expected a list of Callbacks (derive from train.Callback), got {callback!r}")
    return list(callbacks)


def check_monitor(owner: str, monitor: str) -> str:
    """The name, if it is a column of the history that can improve. Raises ArgumentError."""
    figures = [name for name in COLUMNS if name.endswith(("loss", "accuracy"))]
    if monitor not in figures:
        raise ArgumentError(f"{owner}: expected monitor to be one of {', '.join(figures)}, got {monitor!r}")
    return monitor


def improves(monitor: str, value: float, best: float | None, min_delta: float = 0.0) -> bool:
    """Whether value is better than the best so far: lower for a loss, higher for an accuracy."""
    if best is None:
        return value == value  # not nan
    return value > best + min_delta if monitor.endswith("accuracy") else value < best - min_delta


__all__ = ["Callback", "EarlyStopping", "check_monitor", "improves"]
