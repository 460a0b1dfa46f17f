"""What was measured in each epoch, as a table that is written as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..files import write_text


@dataclass(frozen=True)
class EpochRecord:
    """One row. Accuracies are shares (0 to 1); nan where there is no validation set or no class labels."""

    epoch: int  # counted from 1
    train_loss: float  # the mean over the samples, each as it was when its batch was trained on
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float  # of the epoch's last step
    seconds: float  # training and validation together
    images_per_second: float  # of the training alone

    def line(self, epochs: int) -> str:
        """One readable line."""
        parts = [f"epoch {self.epoch:{len(str(epochs))}}/{epochs}"]
        for name, value, form in [
            ("loss", self.train_loss, "{:.4f}"),
            ("accuracy", 100 * self.train_accuracy, "{:.1f} %"),
            ("val loss", self.val_loss, "{:.4f}"),
            ("val accuracy", 100 * self.val_accuracy, "{:.1f} %"),
            ("lr", self.lr, "{:.3g}"),
        ]:
            if not math.isnan(value) or name == "loss":
                parts.append(f"{name} {form.format(value)}")
        return "  ".join([*parts, f"{self.images_per_second:.0f} images/s", f"{self.seconds:.1f} s"])


COLUMNS = tuple(field.name for field in fields(EpochRecord))


class History(list[EpochRecord]):
    """The records of a training, one for each epoch that was finished."""

    def column(self, name: str) -> list[float]:
        """One figure over the epochs, e.g. column("val_loss")."""
        return [getattr(record, name) for record in self]

    def to_dicts(self) -> list[dict[str, Any]]:
        """A list of plain dicts."""
        return [asdict(record) for record in self]

    @classmethod
    def from_dicts(cls, rows: list[dict[str, Any]]) -> History:
        """The inverse of to_dicts, also of what was read from history.json (null is nan)."""
        return cls(EpochRecord(**{key: _number(value) for key, value in row.items()}) for row in rows)

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """A list with one object per epoch; null stands for nan and inf, which JSON does not have."""
        rows = [
            {key: value if math.isfinite(value) else None for key, value in row.items()} for row in self.to_dicts()
        ]
        write_text(path, json.dumps(rows, indent=1, allow_nan=False) + "\n")

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """A line of names, then a line per epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.to_dicts())
        write_text(path, text.getvalue())


def _number(value: Any) -> Any:
    return math.nan if value is None else value
