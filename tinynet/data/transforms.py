"""Picture transforms with torchvision's names, arguments and meaning, called as transform(image, rng).

Image: uint8 (H, W, 3) until ToArray, float32 (3, H, W) after it. rng: the sample's own numpy.random.Generator;
transforms that draw nothing ignore it. No transform changes the array it is given (it may return a view of it).
Resampling and colours go through Pillow: bilinear with antialiasing, as torchvision on Pillow images.
The random ones stand in augmentation.py and colour.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError, DtypeError, ShapeError
from .augmentation import RandomCrop, RandomErasing, RandomHorizontalFlip, RandomResizedCrop
from .colour import ColorJitter
from .dataset import Picture
from .picture import Array, Rng, Size, grown, height_and_width, resized


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any, Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Array, rng: Rng | None = None) -> Array:
        for transform in self.transforms:
            image = transform(image, rng)
        return image

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.transforms))}])"


@dataclass(frozen=True)
class Resize:
    """Resize the shorter side to `size` (the longer one is floor(size * longer / shorter)), or to exactly (h, w)."""

    size: Size

    def __post_init__(self) -> None:
        if not isinstance(self.size, int):
            height_and_width("Resize", self.size)
        elif self.size < 1:
            raise ArgumentError(f"Resize: expected a positive size, got {self.size}")

    def __call__(self, image: Picture, rng: Rng | None = None) -> Picture:
        height, width = image.shape[:2]
        if isinstance(self.size, int):
            shorter, longer = sorted((height, width))
            far = int(self.size * longer / shorter)
            new = (self.size, far) if height <= width else (far, self.size)
        else:
            new = height_and_width("Resize", self.size)
        return resized(image, new)


@dataclass(frozen=True)
class CenterCrop:
    """The middle (h, w), or size x size; a smaller picture is first padded with black on both sides."""

    size: Size

    def __post_init__(self) -> None:
        height_and_width("CenterCrop", self.size)

    def __call__(self, image: Picture, rng: Rng | None = None) -> Picture:
        h, w = height_and_width("CenterCrop", self.size)
        image = grown(image, h, w)
        top, left = round((image.shape[0] - h) / 2), round((image.shape[1] - w) / 2)
        return image[top:top + h, left:left + w]


@dataclass(frozen=True)
class Grayscale:
    """uint8 (H, W, 3) -> (H, W, 1): the luma of ITU-R 601, rounded as Pillow's mode L."""

    def __call__(self, image: Picture, rng: Rng | None = None) -> Picture:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DtypeError(f"Grayscale: expected a uint8 picture (H, W, 3), got {image.dtype} {image.shape}")
        luma = image.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)      # of 65536
        return ((luma + 0x8000) >> 16).astype(np.uint8)[..., None]


@dataclass(frozen=True)
class ToArray:
    """uint8 (H, W, 3) in 0..255 -> float32 (3, H, W) in 0..1, or of as many channels as it has: torchvision's ToTensor."""

    def __call__(self, image: Picture, rng: Rng | None = None) -> Array:
        if image.dtype != np.uint8 or image.ndim != 3:
            raise DtypeError(f"ToArray: expected a uint8 picture (H, W, C), got {image.dtype} {image.shape}")
        h, w, c = image.shape
        y = np.empty((c, h, w), np.float32)
        return np.divide(image.transpose(2, 0, 1), np.float32(255), out=y)


class Normalize:
    """(x - mean) / std, channel by channel, of a float (C, H, W)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise ArgumentError(f"Normalize: expected as many positive std as mean, got mean {mean} and std {std}")
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._mean = np.array(mean, np.float32)[:, None, None]
        self._std = np.array(std, np.float32)[:, None, None]

    def __call__(self, x: Array, rng: Rng | None = None) -> Array:
        if x.ndim != 3 or x.shape[0] != len(self.mean) or x.dtype.kind != "f":
            raise ShapeError(f"Normalize: expected floats ({len(self.mean)}, H, W), got {x.dtype} {x.shape}; "
                             "put it after ToArray()")
        y = x - self._mean.astype(x.dtype, copy=False)
        y /= self._std.astype(x.dtype, copy=False)
        return y

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


__all__ = [
    "Compose", "Resize", "CenterCrop", "Grayscale", "ToArray", "Normalize",
    "RandomCrop", "RandomResizedCrop", "RandomHorizontalFlip", "RandomErasing", "ColorJitter",
]
