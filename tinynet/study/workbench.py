"""What all experiments of a study share: the model, the photos, where results go, and what an earlier run found already."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array
from ..data import Dataset, Subset, transforms
from ..errors import ArgumentError, FileError
from ..files import write_text
from ..interpret.observe import beside_model, observe
from ..models import TrainedModel
from ..nn import Layer, without_softmax
from ..train import predict


class Skip(Exception):
    """Why an experiment is left out."""


class Workbench:
    """One study. state: a file that keeps what was found, so that an interrupted study goes on from it; None: no such file."""

    def __init__(
        self, trained: TrainedModel, photos: Dataset, output: Path, *, quick: bool = False, seed: int = 0,
        workers: int | None = None, command: str = "", state: Path | None = None, question: str = "",
    ) -> None:
        self.trained, self.photos, self.output, self.quick = trained, photos, output, quick
        self.seed, self.workers, self.command, self.state, self.question = seed, workers, command, state, question
        self.model, self.pre = without_softmax(trained.model), trained.preprocessing
        self.size = (3, self.pre.crop, self.pre.crop)
        self.known = list(photos.classes) == list(trained.classes)
        self.pictures: list[Path] = []
        self._found: dict[str, Any] = {}
        self._view = transforms.Compose([transforms.Resize(self.pre.resize), transforms.CenterCrop(self.pre.crop)])

    def resume(self) -> None:
        """Take over what the state file has. Raises FileError if it is damaged, or of another study."""
        if self.state is None or not self.state.exists():
            return
        try:
            record = json.loads(self.state.read_text(encoding="utf-8"))
            question, self._found = record["question"], dict(record["found"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileError(f"{self.state}: damaged ({type(error).__name__}: {error}); remove it, or begin anew") from None
        if question != self.question:
            raise FileError(f"{self.state}: the state of another study (model, photos or options); remove it, or begin anew")

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """What make() gives, as plain JSON values; from the state if an earlier run has found it."""
        if key not in self._found:
            self._found[key] = plain(make())
            self._write()
        return self._found[key]

    def finish(self) -> None:
        """Note in the state file that nothing is left to do."""
        self._write(finished=True)

    def _write(self, **more: bool) -> None:
        if self.state is not None:
            write_text(self.state, json.dumps({"question": self.question, "found": self._found, **more}) + "\n")

    def shown(self, count: int) -> tuple[list[np.ndarray], list[int]]:
        """Photos as the model sees them, uint8, drawn by the seed, classes in turn; and their classes (the model's own answer
        where the folder's classes are not the model's).
        """
        rng = np.random.default_rng(self.seed)
        queues = [list(rng.permutation(np.flatnonzero(self.photos.labels == c))) for c in range(len(self.photos.classes))]
        order = [queue[i] for i in range(max(map(len, queues))) for queue in queues if i < len(queue)]
        found: list[np.ndarray] = []
        labels: list[int] = []
        for index in order:
            if len(found) == count:
                break
            try:
                picture, label = self.photos[int(index)]
            except FileError:
                continue
            found.append(self.view(picture))
            labels.append(int(label))
        if not self.known:
            labels = predict(self.model, self.inputs(found)).argmax(axis=1).tolist()
        return found, labels

    def view(self, picture: np.ndarray) -> np.ndarray:
        """A photo, cut as the model sees it, uint8."""
        seen: np.ndarray = self._view(picture, np.random.default_rng(0))
        return seen

    def inputs(self, pictures: Sequence[np.ndarray]) -> Array:
        """The pictures as the model takes them, on its device."""
        to_input = self.pre.to_input()
        return beside_model(self.model, np.stack([to_input(picture, np.random.default_rng(0)) for picture in pictures]))

    def some(self, most: int) -> Dataset:
        """At most that many of the photos, evenly over them."""
        if len(self.photos) <= most:
            return self.photos
        return Subset(self.photos, np.unique(np.linspace(0, len(self.photos) - 1, most).round().astype(int)))

    def keep(self, path: Path) -> None:
        self.pictures.append(path)

    def path(self, name: str) -> Path:
        return self.output / f"{name}.png"

    def channels(self, layer: str, model: Layer | None = None) -> int:
        model = model or self.model
        x = beside_model(model, np.zeros((1, *self.size), np.float32))
        return int(observe(model, x, [layer]).layers[layer].shape[1])


def check_unused(state: Path, flag: str = "{}=True") -> None:
    """Raise ArgumentError if the state file is of a study that is not finished. flag: how resume and overwrite are given."""
    try:
        record = json.loads(state.read_text(encoding="utf-8"))
        count = 0 if record.get("finished") else len(record["found"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError):      # none, or one that nobody can go on from
        return
    if count:
        raise ArgumentError(
            f"{state}: holds an unfinished study (results: {count}); {flag.format('resume')} goes on with it, "
            f"{flag.format('overwrite')} replaces it, or give another output folder"
        )


def plain(value: Any) -> Any:
    """Plain JSON values; null for nan."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (np.integer, int)) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, (np.floating, float)):
        return round(float(value), 6) if math.isfinite(value) else None
    return value


__all__ = ["Skip", "Workbench", "check_unused", "plain"]
