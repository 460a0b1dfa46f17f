"""How features arise during a training: the strongest activation of a map, followed over epochs (Zeiler & Fergus 2014, figure 4).

    evolution = interpret.Evolution(loader, {"relu1": [0, 7], "relu5": [12]})
    Trainer(…, callbacks=[evolution]).fit()
    interpret.plot_evolution(evolution, "evolution.png")
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, to_host
from ..callback import Callback
from ..data.pinned import fetched
from ..distributed import Shards
from ..errors import ArgumentError
from ..nn import Layer
from ..nn.receptive_field import receptive_field
from .control import randomised
from .deconvnet import deconvnet
from .observe import beside_model, inputs, observe, unit_each
from .patches import cut, window
from .pictures import PERCENTILE, Tile, centred, digits, sheet
from .scores import ssim
from .units import check_index, record
from .words import WORDS, two

EPOCHS = (1, 2, 5, 10, 20, 30, 40, 64)
"""Those of the paper's figure."""


class Frame(NamedTuple):
    """The strongest activation of one map after one epoch.

    image: its number in the set. position: where in the map. value: the activation. projection: (3, h, w) of the unit's receptive
    field alone, float16, padded with 0 beyond the photo; its largest magnitude is 1. control: of the newest epoch, the same walk
    through the network with all its weights redrawn; otherwise None.
    """

    epoch: int
    layer: str
    channel: int
    image: int
    position: tuple[int, ...]
    value: float
    projection: np.ndarray
    control: np.ndarray | None = None


class Evolution(Callback):
    """A callback of a Trainer: after chosen epochs, the strongest activation of each chosen map over a set, and its projection.

    images: an array (N, 3, H, W), or batches (x, y) that can be gone through again and again in the same order, such as a Loader
    without shuffling. units: layer → channels. epochs: counted from 1; 0 is before the first step. A resumed training goes on
    where it was. Raises ArgumentError when the training begins if a layer or channel is not there.
    """

    def __init__(
        self, images: Array | Iterable[tuple[Array, Array]], units: Mapping[str, Sequence[int]],
        epochs: Sequence[int] = EPOCHS, *, batch_size: int = 64, workers: int | None = None,
    ) -> None:
        if not units or not all(len(channels) for channels in units.values()):
            raise ArgumentError("Evolution: expected units, a layer with channels at least")
        if any(isinstance(e, bool) or not isinstance(e, int) or e < 0 for e in epochs):
            raise ArgumentError(f"Evolution: expected epochs of at least 0, got {tuple(epochs)}")
        self.images, self.epochs, self.batch_size, self.workers = images, tuple(sorted(set(epochs))), batch_size, workers
        self.units = {layer: [int(channel) for channel in channels] for layer, channels in units.items()}
        self.frames: list[Frame] = []

    # What a Trainer calls.

    def on_fit_start(self, trainer: Any) -> None:
        first = next(iter(self._batches()), None)
        if first is None:
            raise ArgumentError("Evolution: expected at least one image, got none")
        self._check(observe(trainer.model, beside_model(trainer.model, first[:1]), list(self.units)).layers)
        if 0 in self.epochs and trainer.state.step == 0:
            self.look(trainer.model, 0)

    def on_epoch_end(self, trainer: Any, record: Any) -> None:
        if record.epoch in self.epochs:
            self.look(trainer.model, record.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON values; the projections as text."""
        return {"frames": [
            {**frame._asdict(), "projection": _text(frame.projection), "shape": list(frame.projection.shape),
             "control": None if frame.control is None else _text(frame.control)}
            for frame in self.frames
        ]}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.frames = []
        for kept in state["frames"]:
            kept = dict(kept)
            shape = kept.pop("shape")
            for name in ("projection", "control"):
                if kept[name] is not None:
                    kept[name] = np.frombuffer(base64.b64decode(kept[name]), np.float16).reshape(shape)
            self.frames.append(Frame(**{**kept, "position": tuple(kept["position"])}))

    def look(self, model: Layer, epoch: int) -> list[Frame]:
        """Find and project the strongest activations of the model as it is; kept as those of that epoch."""
        best: dict[tuple[str, int], tuple[float, int, Array]] = {}
        count = 0
        with Shards(self.workers) as shards:
            for (x,), *strengths in fetched(self._strengths(model, shards)):
                for (layer, channels), strength in zip(self.units.items(), strengths, strict=True):
                    for channel, values in zip(channels, strength, strict=True):
                        i = int(values.argmax())
                        if (layer, channel) not in best or values[i] > best[layer, channel][0]:
                            best[layer, channel] = float(values[i]), count + i, x[i].copy()
                count += len(x)
        if not best:
            raise ArgumentError("Evolution: expected at least one image, got none")
        frames = [frame for layer in self.units for frame in self._project(model, epoch, layer, best)]
        self.frames = [frame._replace(control=None) for frame in self.frames if frame.epoch != epoch] + frames
        return frames

    def _strengths(self, model: Layer, shards: Shards) -> Iterator[tuple[Any, ...]]:
        """Of each batch (x,), which stays where it is, and for each layer how strong its chosen maps are, (channels, N)."""
        for x in inputs(model, self._batches()):
            seen = observe(model, x, list(self.units), shards).layers
            self._check(seen)
            found = []
            for layer, channels in self.units.items():
                maps = [seen[layer][:, channel].reshape(len(x), -1) for channel in channels]
                found.append(array_module(x).stack([y.max(axis=1) for y in maps]))
            yield (x,), *found

    def _check(self, seen: Mapping[str, Array]) -> None:
        """Whether the layers have the channels."""
        for layer, channels in self.units.items():
            for channel in channels:
                check_index(channel, seen[layer].shape[1], f"layer {layer!r}")

    def _project(
        self, model: Layer, epoch: int, layer: str, best: Mapping[tuple[str, int], tuple[float, int, Array]]
    ) -> list[Frame]:
        channels = self.units[layer]
        x = array_module(best[layer, channels[0]][2]).stack([best[layer, channel][2] for channel in channels])
        taken, redrawn = record(model, x, layer), randomised(model, np.random.default_rng(0))
        mask = unit_each(taken.output, channels)
        signal = taken.output * mask
        ways = deconvnet(model).back(taken, signal), deconvnet(redrawn).back(record(redrawn, x, layer), signal)
        pictures, controls = map(to_host, ways)
        frames, field = [], receptive_field(model, layer)
        for i, channel in enumerate(channels):
            value, image, _ = best[layer, channel]
            position = tuple(int(p) for p in np.argwhere(to_host(mask[i, channel]))[0])
            where = window(field, position, x.shape[2:])
            shown = [_kept(cut(v[i], where)) for v in (pictures, controls)]
            frames.append(Frame(epoch, layer, channel, image, position, value, *shown))
        return frames

    def _batches(self) -> Iterable[Array]:
        if hasattr(self.images, "shape"):
            x: Any = self.images
            return (x[i : i + self.batch_size] for i in range(0, len(x), self.batch_size))
        return (batch[0] if isinstance(batch, tuple) else batch for batch in self.images)


def _kept(picture: np.ndarray) -> np.ndarray:
    return (picture / (float(np.abs(picture).max()) or 1)).astype(np.float16)


def _text(picture: np.ndarray) -> str:
    return base64.b64encode(picture.tobytes()).decode()


def plot_evolution(
    evolution: Evolution, path: str | os.PathLike[str], *, title: str = "Evolution of features during training",
    command: str = "",
) -> Path:
    """The grid of the paper's figure 4: a row a map, layer by layer, a column an epoch; and the last epoch's control."""
    if not evolution.frames:
        raise ArgumentError("plot_evolution: no epoch was followed; it has no frame")
    epochs = sorted({frame.epoch for frame in evolution.frames})
    found = {(frame.layer, frame.channel, frame.epoch): frame for frame in evolution.frames}
    rows: list[list[Tile | None]] = []
    names = []
    for layer, channels in evolution.units.items():
        for channel in channels:
            names.append(f"{layer}, map {channel}")
            row: list[Tile | None] = []
            for epoch in epochs:
                frame = found.get((layer, channel, epoch))
                caption = "" if frame is None else f"photo {frame.image}: {digits(frame.value)}"
                dead = frame is not None and frame.value <= 0
                row.append(None if frame is None else Tile(centred(frame.projection), caption + (" (silent)" if dead else "")))
            last = found.get((layer, channel, epochs[-1]))
            if last is not None and last.control is not None:
                row.append(Tile(centred(last.control), f"likeness {two(ssim(last.projection, last.control))}"))
            rows.append(row)
    notes = (
        "The deconvnet's projection of the strongest activation of each map over the same photos; below it, which photo it is in "
        "and how strong it is. The unit's receptive field is shown; mid grey is 0, the ends of the scale are the "
        f"{PERCENTILE:g}th percentile of each picture's magnitude. A jump comes where another photo takes the lead. Control: the "
        "last epoch's walk with all weights redrawn, and the structural similarity of the two (1: the same).\n" + WORDS
    )
    columns = ["untrained" if epoch == 0 else f"epoch {epoch}" for epoch in epochs]
    return sheet(rows, path, title=title, row_names=names, column_names=[*columns, "control"], tile=1.15, notes=notes,
                 command=command)


__all__ = ["EPOCHS", "Evolution", "Frame", "plot_evolution"]
