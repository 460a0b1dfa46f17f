"""Random changes of a picture's colours, through Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import ArgumentError
from .dataset import Picture
from .picture import Rng, needed

Range = float | Sequence[float]


class ColorJitter:
    """Brightness, contrast, saturation and hue, each by a random amount, in random order.

    brightness, contrast, saturation: a factor drawn from [max(0, 1 - v), 1 + v], or from a given (low, high).
    hue: a turn of the colour circle drawn from [-v, v], v at most 0.5, or from a given (low, high).
    """

    def __init__(self, brightness: Range = 0, contrast: Range = 0, saturation: Range = 0, hue: Range = 0) -> None:
        self.brightness = _around("brightness", brightness, 1, (0, math.inf))
        self.contrast = _around("contrast", contrast, 1, (0, math.inf))
        self.saturation = _around("saturation", saturation, 1, (0, math.inf))
        self.hue = _around("hue", hue, 0, (-0.5, 0.5))
        steps = ((_brightness, self.brightness, 1), (_contrast, self.contrast, 1),
                 (_saturation, self.saturation, 1), (_hue, self.hue, 0))
        self._steps = [(change, low, high) for change, (low, high), still in steps if (low, high) != (still, still)]

    def __call__(self, image: Picture, rng: Rng | None = None) -> Picture:
        if not self._steps:
            return image
        rng = needed("ColorJitter", rng)
        picture = Image.fromarray(np.ascontiguousarray(image))
        for k in rng.permutation(len(self._steps)).tolist():
            change, low, high = self._steps[k]
            picture = change(picture, low + (high - low) * rng.random())
        return np.asarray(picture)

    def __repr__(self) -> str:
        return (f"ColorJitter(brightness={self.brightness}, contrast={self.contrast}, "
                f"saturation={self.saturation}, hue={self.hue})")


def _around(what: str, amount: Range, still: float, bounds: tuple[float, float]) -> tuple[float, float]:
    if isinstance(amount, int | float):
        if amount < 0:
            raise ArgumentError(f"ColorJitter: expected {what} of at least 0, got {amount}")
        low, high = still - amount, still + amount
        low = max(low, 0.0) if still else low
    else:
        low, high = amount
    if not bounds[0] <= low <= high <= bounds[1]:
        raise ArgumentError(f"ColorJitter: expected {what} from {bounds[0]} to {bounds[1]}, got {amount}")
    return low, high


def _brightness(picture: Image.Image, factor: float) -> Image.Image:
    return Image.blend(Image.new("RGB", picture.size), picture, factor)      # away from black


def _contrast(picture: Image.Image, factor: float) -> Image.Image:
    mean = int(np.asarray(picture.convert("L")).mean() + 0.5)                # away from its mean grey
    return Image.blend(Image.new("RGB", picture.size, (mean, mean, mean)), picture, factor)


def _saturation(picture: Image.Image, factor: float) -> Image.Image:
    return Image.blend(picture.convert("L").convert("RGB"), picture, factor)  # away from its own grey


def _hue(picture: Image.Image, turn: float) -> Image.Image:
    h, s, v = picture.convert("HSV").split()
    turned = (np.asarray(h).astype(np.int32) + int(turn * 255)) % 256        # a byte is the whole circle
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), s, v)).convert("RGB")
