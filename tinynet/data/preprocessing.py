"""From a photo to a model's input: what a model was trained to see, kept with its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import FileError
from . import transforms


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize` pixels, cut out the central `crop`×`crop`, and normalise.

    mean, std: of the three channels (R, G, B) on the scale 0 … 1, or one number each for a model that sees grey. views: how many
    views of a photo a prediction is the mean of (train.evaluation.mean_logits).
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    views: int = 1

    @property
    def channels(self) -> int:
        """What the model sees of a photo: 3, or 1 if that is grey."""
        return len(self.mean)

    @property
    def words(self) -> str:
        """For people."""
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        grey = "grey, " if self.channels == 1 else ""
        size = f"shorter side {self.resize} pixels, the central {self.crop}×{self.crop} cut out"
        return f"{size}, {grey}mean {mean}, deviation {std}"

    def transform(self) -> transforms.Compose:
        """uint8 (H, W, 3) → float32 (channels, crop, crop)."""
        return transforms.Compose([
            transforms.Resize(self.resize), transforms.CenterCrop(self.crop), self.to_input(),
        ])

    def to_input(self) -> transforms.Compose:
        """The last steps alone: uint8 (H, W, 3) → normalised float32 (channels, H, W)."""
        grey = [transforms.Grayscale()] if self.channels == 1 else []
        return transforms.Compose([*grey, transforms.ToArray(), transforms.Normalize(self.mean, self.std)])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> Preprocessing:
        """The inverse of to_dict. Raises FileError for a record that is not one."""
        try:
            mean, std = (tuple(float(v) for v in record[name]) for name in ("mean", "std"))
            if len(mean) not in (1, 3) or len(std) != len(mean) or min(std) <= 0:
                raise ValueError("mean and std are not three numbers each, or one")
            resize, crop = int(record["resize"]), int(record["crop"])
            if not 1 <= crop <= resize <= 1 << 14:
                raise ValueError(f"resize {resize} and crop {crop} do not fit")
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"not a preprocessing record ({type(error).__name__}: {error})") from None
        return cls(resize, crop, mean, std, int(record.get("views", 1)))
