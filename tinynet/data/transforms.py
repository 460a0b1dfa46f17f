"""Picture transforms with torchvision's names, arguments and meaning, called as transform(image, rng).

Image: uint8 (H, W, 3) until ToArray, float32 (3, H, W) after it. rng: the sample's own numpy.random.Generator;
transforms that draw nothing ignore it. No transform changes the array it is given (it may return a view of it).
Resampling and colours go through Pillow: bilinear with antialiasing, as torchvision on Pillow images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tinynet.data.dataset import Picture
from tinynet.errors import ArgumentError, DtypeError, ShapeError

Array = npt.NDArray[Any]
Rng = np.random.Generator
Size = int | Sequence[int]
Range = float | Sequence[float]


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
            _pair("Resize", self.size)
        elif self.size < 1:
            raise ArgumentError(f"Resize: expected a positive size, got {self.size}")

    def __call__(self, image: Picture, rng: Rng | None = None) -> Picture:
        height, width = image.shape[:2]
        if isinstance(self.size, int):
            shorter, longer = sorted((height, width))
            far = int(self.size * longer / shorter)
            new = (self.size, far) if height <= width else (far, self.size)
        else:
            new = _pair("Resize", self.size)
        return _resize(image, new)


@dataclass(frozen=True)
class CenterCrop:
    """The middle (h, w), or size x size; a smaller picture is first padded with black on both sides."""

    size: Size

    def __post_init__(self) -> None:
        _pair("CenterCrop", self.size)

    def __call__(self, image: Picture, rng: Rng | None = None) -> Picture:
        h, w = _pair("CenterCrop", self.size)
        image = _grown(image, h, w)
        top, left = round((image.shape[0] - h) / 2), round((image.shape[1] - w) / 2)
        return image[top:top + h, left:left + w]


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
        _pair("RandomCrop", self.size)
        if self.padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise ArgumentError("RandomCrop: expected padding_mode constant, edge, reflect or symmetric, "
                                f"got {self.padding_mode!r}")
        if min(self._sides()) < 0:
            raise ArgumentError(f"RandomCrop: expected padding of at least 0, got {self.padding}")

    def __call__(self, image: Picture, rng: Rng | None = None) -> Picture:
        h, w = _pair("RandomCrop", self.size)
        left, top, right, bottom = self._sides()
        if self.pad_if_needed:                         # by what is missing, on both sides, as torchvision
            missing = max(0, h - image.shape[0] - top - bottom), max(0, w - image.shape[1] - left - right)
            top, bottom, left, right = top + missing[0], bottom + missing[0], left + missing[1], right + missing[1]
        free_h, free_w = image.shape[0] + top + bottom - h, image.shape[1] + left + right - w
        if free_h < 0 or free_w < 0:
            raise ShapeError(f"RandomCrop: expected a picture of at least {(h, w)} with its padding, got "
                             f"{(h + free_h, w + free_w)}; give padding or pad_if_needed=True")
        rng = _needed("RandomCrop", rng)
        y, x = int(rng.integers(free_h + 1)) - top, int(rng.integers(free_w + 1)) - left
        if self.padding_mode == "constant":
            return _window(image, y, x, h, w, self.fill)
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
        _pair("RandomResizedCrop", self.size)
        for what, low, high in (("scale", *self.scale), ("ratio", *self.ratio)):
            if not 0 < low <= high:
                raise ArgumentError(f"RandomResizedCrop: expected {what} as 0 < low <= high, got {(low, high)}")

    def __call__(self, image: Picture, rng: Rng | None = None) -> Picture:
        top, left, h, w = self._part(image.shape[0], image.shape[1], _needed("RandomResizedCrop", rng))
        return _resize(image[top:top + h, left:left + w], _pair("RandomResizedCrop", self.size))

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
        return image[:, ::-1] if _needed("RandomHorizontalFlip", rng).random() < self.p else image


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
        rng = _needed("ColorJitter", rng)
        picture = Image.fromarray(np.ascontiguousarray(image))
        for k in rng.permutation(len(self._steps)).tolist():
            change, low, high = self._steps[k]
            picture = change(picture, low + (high - low) * rng.random())
        return np.asarray(picture)

    def __repr__(self) -> str:
        return (f"ColorJitter(brightness={self.brightness}, contrast={self.contrast}, "
                f"saturation={self.saturation}, hue={self.hue})")


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
        rng = _needed("RandomErasing", rng)
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


# --- parts ------------------------------------------------------------------------------------------------------------

def _needed(who: str, rng: Rng | None) -> Rng:
    if rng is None:
        raise ArgumentError(f"{who}: draws at random; call it as transform(image, rng) with a numpy.random.Generator")
    return rng


def _pair(who: str, size: Size) -> tuple[int, int]:
    h, w = (size, size) if isinstance(size, int) else tuple(size) if len(size) == 2 else (0, 0)
    if h < 1 or w < 1:
        raise ArgumentError(f"{who}: expected a positive size or (height, width), got {size}")
    return h, w


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


def _resize(image: Picture, size: tuple[int, int]) -> Picture:
    h, w = size
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((w, h), Image.Resampling.BILINEAR))


def _grown(image: Picture, h: int, w: int) -> Picture:
    """Padded with black to at least (h, w), the odd pixel below and right."""
    height, width = image.shape[:2]
    if height >= h and width >= w:
        return image
    top, left = max(0, h - height) // 2, max(0, w - width) // 2
    return _window(image, -top, -left, max(h, height), max(w, width), 0)


def _window(image: Picture, top: int, left: int, h: int, w: int, fill: int) -> Picture:
    """image[top:top + h, left:left + w], where it may reach beyond the picture; there it holds `fill`."""
    height, width, channels = image.shape
    if top >= 0 and left >= 0 and top + h <= height and left + w <= width:
        return image[top:top + h, left:left + w]
    y0, y1, x0, x1 = max(top, 0), min(top + h, height), max(left, 0), min(left + w, width)
    window = np.full((h, w, channels), fill, image.dtype)
    window[y0 - top:max(y0, y1) - top, x0 - left:max(x0, x1) - left] = image[y0:y1, x0:x1]
    return window


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
