"""What transforms of pictures share: sizes, windows that may reach beyond a picture, and resampling by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import ArgumentError
from .dataset import Picture

Array = npt.NDArray[Any]
Rng = np.random.Generator
Size = int | Sequence[int]


def height_and_width(who: str, size: Size) -> tuple[int, int]:
    """One number stands for both. Raises ArgumentError, in the name of `who`, for what is neither a size nor two."""
    h, w = (size, size) if isinstance(size, int) else tuple(size) if len(size) == 2 else (0, 0)
    if h < 1 or w < 1:
        raise ArgumentError(f"{who}: expected a positive size or (height, width), got {size}")
    return h, w


def resized(image: Picture, size: tuple[int, int]) -> Picture:
    """Of that (height, width); bilinear with antialiasing."""
    h, w = size
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((w, h), Image.Resampling.BILINEAR))


def grown(image: Picture, h: int, w: int) -> Picture:
    """Padded with black to at least (h, w), the odd pixel below and right."""
    height, width = image.shape[:2]
    if height >= h and width >= w:
        return image
    top, left = max(0, h - height) // 2, max(0, w - width) // 2
    return window(image, -top, -left, max(h, height), max(w, width), 0)


def window(image: Picture, top: int, left: int, h: int, w: int, fill: int) -> Picture:
    """image[top:top + h, left:left + w], where it may reach beyond the picture; there it holds `fill`."""
    height, width, channels = image.shape
    if top >= 0 and left >= 0 and top + h <= height and left + w <= width:
        return image[top:top + h, left:left + w]
    y0, y1, x0, x1 = max(top, 0), min(top + h, height), max(left, 0), min(left + w, width)
    y = np.full((h, w, channels), fill, image.dtype)
    y[y0 - top:max(y0, y1) - top, x0 - left:max(x0, x1) - left] = image[y0:y1, x0:x1]
    return y


def needed(who: str, rng: Rng | None) -> Rng:
    """The generator of a transform that draws. Raises ArgumentError if there is none."""
    if rng is None:
        raise ArgumentError(f"{who}: draws at random; call it as transform(image, rng) with a numpy.random.Generator")
    return rng
