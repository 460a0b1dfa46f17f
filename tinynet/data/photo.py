"""One photo file -> uint8 RGB, whatever it is inside: JPEG, PNG, WebP; grey, CMYK, palette, 16 bits; turned by EXIF."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import FileError
from .dataset import Picture, bounded

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# What the file is, and not how it is named, decides how it is read; other decoders of Pillow never see it.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")           # JPEG: also the MPO of some phones
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_90}
_EXIF_ORIENTATION = 0x0112
_TAIL = 4096                                           # bytes at the end in which a whole file's end mark is looked for


def read_photo(path: str | os.PathLike[str], size: int | None = None) -> Picture:
    """Decode a photo to uint8 (H, W, 3), upright.

    size: if given, the shorter side is reduced to it (bilinear, antialiased; never enlarged); a large JPEG is then
    decoded at 1/2, 1/4 or 1/8 of its size, which costs a fraction of the time and memory.
    Transparent pixels are laid on white. 16-bit grey keeps its 8 upper bits. Of an animation, the first frame.
    Raises FileError, naming the file, if it cannot be read, is no photo, is cut short, or is larger than Pillow's limit
    against decompression bombs (about 179 million pixels).
    """
    with _naming(path), Image.open(path, formats=_FORMATS) as photo:
        if size is not None:
            photo.draft(None, (2 * size, 2 * size))    # JPEG only: at least this size; resize() does the rest
        rgb = _to_rgb(photo)                           # decodes; EXIF only then, for it may follow the pixels
        orientation = _orientation(photo)
        height, width = bounded(rgb.height, rgb.width, size)
        if (width, height) != rgb.size:
            rgb = rgb.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        if orientation in _TURNS:
            rgb = rgb.transpose(_TURNS[orientation])
        return np.asarray(rgb)


def check_photo(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width (upright) from the header alone, in about 0.1 ms; decodes the pixels only if the end is missing.

    Raises FileError as read_photo does. Damage in the middle of a file that ends well is left for read_photo to find.
    """
    with _naming(path), Image.open(path, formats=_FORMATS) as photo:
        width, height = photo.size
        kind = photo.format
        # asked for EXIF that has not come yet, Pillow would decode a PNG's pixels to look behind them
        orientation = 1 if kind == "PNG" and "exif" not in photo.info else _orientation(photo)
    if not _ends_well(path, kind):
        read_photo(path)                               # it may be whole all the same: decoding decides
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


class _naming:
    """Turns whatever Pillow raises into a FileError of one line that names the file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        # A damaged file can make Pillow raise nearly anything: OSError, SyntaxError, struct.error, IndexError, ...
        if isinstance(error, Exception) and not isinstance(error, FileError):
            raise FileError(f"{os.fspath(self.path)}: {_reason(error, Path(self.path))}") from error


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such photo"
    if isinstance(error, IsADirectoryError) or os.path.isdir(path):
        return "a folder, where a photo was expected"
    if isinstance(error, PermissionError):
        return "may not be read (permission denied)"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too many pixels: reduce the photo first"
    if os.path.isfile(path) and path.stat().st_size == 0:
        return "empty file (0 bytes)"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a photo that can be read (expected JPEG, PNG, WebP, BMP, GIF or TIFF)"
    return f"broken photo ({' '.join(str(error).split()) or type(error).__name__})"


def _orientation(photo: Image.Image) -> int:
    try:
        return int(photo.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:                                  # broken EXIF in a good photo: take it as upright
        return 1


def _to_rgb(photo: Image.Image) -> Image.Image:
    if photo.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        grey = np.clip(np.asarray(photo).astype(np.int64), 0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if photo.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if photo.has_transparency_data:
        pixels = photo.convert("RGBA")
        white = Image.new("RGBA", pixels.size, "white")
        return Image.alpha_composite(white, pixels).convert("RGB")
    return photo.convert("RGB")


def _ends_well(path: str | os.PathLike[str], kind: str | None) -> bool:
    """Whether the file's end is where its format puts it; True for formats that say nothing cheap about it."""
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - _TAIL))
        tail = file.read()
        if kind in ("JPEG", "MPO"):
            return tail.rstrip(b"\0").endswith(b"\xff\xd9")
        if kind == "PNG":
            return b"IEND" in tail
    return True                                        # WebP: Pillow refuses a short one as soon as it is opened
