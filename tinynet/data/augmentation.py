"""Random windows, mirroring and erasing: another view of a photo every time that it is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError, ShapeError
from .dataset import Picture
from .picture import Array, Rng, Size, height_and_width, needed, resized, window


@dataclass(frozen=True)
class RandomCrop:
    """A random (h, w) window of the picture, padded first.

    padding: pixels on every side, or (left and right, top and bottom), or (left, top, right, bottom).
    pad_if_needed: pad a picture that is smaller than the window. fill: value of constant padding.
    padding_mode: "constant", "edge", "reflect" or "symmetric". Raises ShapeError if the window does not fit.
    """

    size: Size
    padding: int | Sequence[int] | None = None
    pad_if_needed: bool = False
    fill: int = 0
    padding_mode: str = "constant"

    def __post_init__(self) -> None:
        height_and_width("RandomCrop", self.size)
        if self.padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise ArgumentError("RandomCrop: expected padding_mode constant, edge, reflect or symmetric, "
                                f"got {self.padding_mode!r}")
        if min(self._sides()) < 0:
            raise ArgumentError(f"RandomCrop: expected padding of at least 0, got {self.padding}")

    def __call__(self, image: Picture, rng: Rng | None = None) -> Picture:
        h, w = height_and_width("RandomCrop", self.size)
        left, top, right, bottom = self._sides()
        if self.pad_if_needed:                         # by what is missing, on both sides, as torchvision
            missing = max(0, h - image.shape[0] - top - bottom), max(0, w - image.shape[1] - left - right)
            top, bottom, left, right = top + missing[0], bottom + missing[0], left + missing[1], right + missing[1]
        free_h, free_w = image.shape[0] + top + bottom - h, image.shape[1] + left + right - w
        if free_h < 0 or free_w < 0:
            raise ShapeError(f"RandomCrop: expected a picture of at least {(h, w)} with its padding, got "
                             f"{(h + free_h, w + free_w)}; give padding or pad_if_needed=True")
        rng = needed("RandomCrop", rng)
        y, x = int(rng.integers(free_h + 1)) - top, int(rng.integers(free_w + 1)) - left
        if self.padding_mode == "constant":
            return window(image, y, x, h, w, self.fill)
        padded: Picture = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode=self.padding_mode)  # type: ignore[call-overload]
        return padded[y + top:y + top + h, x + left:x + left + w]

    def _sides(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        padding = self.padding or 0
        if isinstance(padding, int):
            return padding, padding, padding, padding
        if len(padding) == 2:
            return padding[0], padding[1], padding[0], padding[1]
        if len(padding) == 4:
            return padding[0], padding[1], padding[2], padding[3]
        raise ArgumentError(f"RandomCrop: expected padding of one, two or four numbers, got {self.padding}")


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the picture, resized to (h, w) (Szegedy et al. 2014).

    The part covers a share of the area drawn from `scale` and has an aspect w / h drawn, on a log scale, from `ratio`.
    After ten draws that do not fit: the largest middle part whose aspect is within `ratio`.
    """

    size: Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        height_and_width("RandomResizedCrop", self.size)
        for what, low, high in (("scale", *self.scale), ("ratio", *self.ratio)):
            if not 0 < low <= high:
                raise ArgumentError(f"RandomResizedCrop: expected {what} as 0 < low <= high, got {(low, high)}")

    def __call__(self, image: Picture, rng: Rng | None = None) -> Picture:
        top, left, h, w = self._part(image.shape[0], image.shape[1], needed("RandomResizedCrop", rng))
        return resized(image[top:top + h, left:left + w], height_and_width("RandomResizedCrop", self.size))

    def _part(self, height: int, width: int, rng: Rng) -> tuple[int, int, int, int]:
        low, high = self.ratio
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        h, w = height, width
        if width < low * height:
            h = min(height, max(1, round(width / low)))
        elif width > high * height:
            w = min(width, max(1, round(height * high)))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror left and right with probability p."""

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ArgumentError(f"RandomHorizontalFlip: expected p from 0 to 1, got {self.p}")

    def __call__(self, image: Picture, rng: Rng | None = None) -> Picture:
        return image[:, ::-1] if needed("RandomHorizontalFlip", rng).random() < self.p else image


@dataclass(frozen=True)
class RandomErasing:
    """With probability p a rectangle of a float (C, H, W) becomes `value` (Zhong et al. 2017); after Normalize, 0 is
    the mean colour.

    scale: the share of the picture's area, drawn evenly. ratio: height over width, drawn evenly on a logarithmic
    scale. A rectangle that does not fit is drawn anew, ten times at most.
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1 or not 0 <= self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ArgumentError(f"RandomErasing: expected p in 0 to 1, scale rising within 0 to 1, a rising ratio, got {self}")

    def __call__(self, x: Array, rng: Rng | None = None) -> Array:
        rng = needed("RandomErasing", rng)
        if x.ndim != 3 or x.dtype.kind != "f":
            raise ShapeError(f"RandomErasing: expected floats (C, H, W), got {x.dtype} {x.shape}; put it after ToArray()")
        if rng.random() >= self.p:
            return x
        height, width = x.shape[1:]
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            shape = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h, w = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if h < height and w < width:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                x = x.copy()
                x[:, top:top + h, left:left + w] = self.value
                return x
        return x
