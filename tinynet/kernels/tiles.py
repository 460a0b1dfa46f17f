"""Cut a batch into tiles, some images and a part of each, that fit a bounded workspace.

What an image is cut along is the caller's: `rows` of outputs for a convolution, channels for a pooling, groups in rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Tile(NamedTuple):
    """Some images, and some rows of each: positions along the first spatial axis, or what else an image is cut along."""

    images: slice
    rows: slice


def tiles(images: int, rows: int, bytes_per_row: int, workspace: int) -> Iterator[Tile]:
    """Tiles that together cover `images` × `rows` once; each of them needs at most `workspace` bytes, or is one row.

    bytes_per_row: what one row of one image takes in the workspace. Several images share a tile only if each is in it whole.
    """
    rows_at_once = max(1, min(rows, workspace // max(bytes_per_row, 1)))
    images_at_once = max(1, workspace // max(bytes_per_row * rows, 1)) if rows_at_once == rows else 1
    rows_at_once, images_at_once = _even(rows, rows_at_once), _even(images, images_at_once)
    for image in range(0, images, images_at_once):
        for row in range(0, rows, rows_at_once):
            yield Tile(
                slice(image, min(image + images_at_once, images)),
                slice(row, min(row + rows_at_once, rows)),
            )


def _even(count: int, at_most: int) -> int:
    """How many at once, so that the last part is about as large as the others."""
    return -(-count // -(-count // at_most)) if count else 1
