"""How the overlapping tiles of Winograd's algorithm lie in memory: cut from an image, written to one, added back to one."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from .geometry import Geometry
from .scratch import scratch, times
from .tiles import WORKSPACE, tiles

COLUMNS = 256
"""Tiles in one product, at least: U is read anew for every product and of many channels it is large; of few, each call counts."""
_SMALL = 8
"""Rows of fewer tiles than this are too short to be copied one by one; then the images lie next to each other in memory."""


class Layout(NamedTuple):
    """How the tiles of all images are laid out, and how many are transformed at a time.

    A canvas holds some images with a frame around them: (n, C, height, width), or (C, height, width, n) where rows are
    short, so that what is copied is never only a few numbers long. The axes of its tiles, the grid, are (n, rows, columns) or
    (rows, columns, n).
    """

    m: int
    grid: tuple[int, int]
    """Rows and columns of tiles in one image."""
    images: int
    bytes_per_row: int
    """What one row of tiles of one image takes while it is worked on."""
    workspace: int
    images_last: bool

    @classmethod
    def of(cls, geometry: Geometry, m: int, x: Array, others: int) -> Layout:
        """x: what the tiles are cut from; others: the number of channels on the other side of the product."""
        rows, columns = (-(-out // m) for out in geometry.out)
        bytes_per_tile = (m + 2) ** 2 * (2 * x.shape[1] + 2 * others) * x.dtype.itemsize
        return cls(
            m, (rows, columns), x.shape[0], bytes_per_tile * columns, max(WORKSPACE, COLUMNS * bytes_per_tile),
            columns < _SMALL and columns < x.shape[0],
        )

    @property
    def covered(self) -> tuple[int, int]:
        """Rows and columns of output cells that the tiles cover, those beyond the output among them."""
        return self.m * self.grid[0], self.m * self.grid[1]

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns of input cells that the tiles cover."""
        return self.covered[0] + 2, self.covered[1] + 2

    def parts(self) -> Any:
        """(images, rows of tiles), the rows of an image one after the other."""
        return tiles(self.images, self.grid[0], self.bytes_per_row, self.workspace)

    def canvas_for(self, x: Array, size: tuple[int, int], place: str) -> Array:
        """Room for a framed x (n, C, …) in scratch memory; x itself where it can serve as its own canvas."""
        if tuple(x.shape[2:]) == size and not self.images_last:
            return x
        n, c = x.shape[:2]
        shape = (c, *size, n) if self.images_last else (n, c, *size)
        return scratch(array_module(x), place, shape, x.dtype)

    def framed(self, x: Array, size: tuple[int, int], low: tuple[int, ...], place: str = "whole") -> Array:
        """x (n, C, h, w) on a canvas of that size, `low` cells from its upper and left edge, zeros around it."""
        canvas = self.canvas_for(x, size, place)
        if canvas is not x:
            spatial, inside = ((1, 2) if self.images_last else (2, 3)), self._inside(x, low)
            for axis, begin, length in zip(spatial, low, x.shape[2:], strict=True):
                before = (slice(None),) * axis
                canvas[(*before, slice(0, begin))] = 0
                canvas[(*before, slice(begin + length, None))] = 0
            canvas[inside] = x.transpose(1, 2, 3, 0) if self.images_last else x
        return canvas

    def unframe(self, canvas: Array, x: Array, low: tuple[int, ...]) -> None:
        """The other way: x (n, C, h, w) from its canvas."""
        if canvas is not x:
            inside = canvas[self._inside(x, low)]
            x[...] = inside.transpose(3, 0, 1, 2) if self.images_last else inside

    def _inside(self, x: Array, low: tuple[int, ...]) -> tuple[Any, ...]:
        """Index of x (n, C, h, w) in its canvas."""
        inside = tuple(slice(begin, begin + length) for begin, length in zip(low, x.shape[2:], strict=True))
        return (slice(None), *inside) if self.images_last else (..., *inside)

    def inputs(self, canvas: Array, rows: slice) -> Array:
        """A copy (a, a, C, *grid) of the input tiles, a × a cells that overlap by two."""
        return self.copied(self._view(canvas, rows, self.m + 2))

    def copied(self, view: Array) -> Array:
        """The tiles of a view in one piece, in scratch memory."""
        xp = array_module(view)
        tiles = scratch(xp, "tiles", view.shape, view.dtype)
        xp.copyto(tiles, view)
        return tiles

    def blocks(self, canvas: Array, rows: slice) -> Array:
        """A view (m, m, C, *grid) of the m × m blocks that lie side by side."""
        return self._view(canvas, rows, self.m)

    def lines(self, canvas: Array, rows: slice) -> Array | None:
        """The same blocks as a view (C, *grid, m) of lines, m cells in one piece; None: there is no such view.

        Whole lines are copied in a fraction of the time that their cells take one by one.
        """
        if array_module(canvas) is not np or self.images_last or canvas.strides[-1] != canvas.itemsize:
            return None
        canvas = canvas[:, :, rows.start * self.m : rows.stop * self.m, : self.m * self.grid[1]]
        n, c = canvas.shape[:2]
        lines = canvas.view(f"V{self.m * canvas.itemsize}").reshape(n, c, rows.stop - rows.start, self.m, self.grid[1])
        return lines.transpose(1, 0, 2, 4, 3)

    def _view(self, canvas: Array, rows: slice, side: int) -> Array:
        count = rows.stop - rows.start
        if self.images_last:
            (c, _, _, n), (channel, row, cell, image) = canvas.shape, canvas.strides
            canvas = canvas[:, rows.start * self.m :]
            grid, steps = (count, self.grid[1], n), (self.m * row, self.m * cell, image)
        else:
            (n, c, _, _), (image, channel, row, cell) = canvas.shape, canvas.strides
            canvas = canvas[:, :, rows.start * self.m :]
            grid, steps = (n, count, self.grid[1]), (image, self.m * row, self.m * cell)
        return array_module(canvas).lib.stride_tricks.as_strided(canvas, (side, side, c, *grid), (row, cell, channel, *steps))

    def add_back(self, back: Array, canvas: Array, rows: slice, carried: _Overhang | None) -> _Overhang:
        """Tiles (a², C·T), cells in the order of `the transform `back``, to where they came from; overlapping ones add up.

        Call it part by part. carried: what the part above returned, for its tiles reach two rows into this one.
        """
        m, place = self.m, self.blocks(canvas, rows)                        # (m, m, C, *grid)
        grid, one = place.shape[2:], place.shape[-1] if self.images_last else 1     # how far the tile to the right is in memory
        block, beside = back[: m * m].reshape(m, m, *grid), back[m * m : m * m + 2 * m].reshape(m, 2, *grid)
        below = back[m * m + 2 * m :].reshape(2, m + 2, *grid)
        top, bottom = (_along(3 if self.images_last else 4, end) for end in (slice(0, 1), slice(-1, None)))
        above, under = (_along(3 if self.images_last else 4, side) for side in (slice(0, -1), slice(1, None)))
        edge = _along(4 if self.images_last else 5, slice(-1, None))
        # What hangs over the edges of the grid is put aside, with zeros in its place. Then each tile gives what hangs over its
        # right edge to its neighbour, and what hangs below to the tile there: long lines, whatever the size of the grid.
        right, corner = _taken(beside[edge]), _taken(below[:, m:][edge])
        right[:2][under] += corner[above]
        _shift(block[:, :2], beside, one)
        _shift(below[:, :2], below[:, m:], one)
        down = _Overhang(_taken(below[:, :m][bottom]), corner[bottom])
        _shift(block[:2], below[:, :m], one * self.grid[1])
        if carried is not None:
            block[:2][top] += carried.below
            right[:2][top] += carried.corner
        lines = self.lines(canvas, rows)
        if lines is None:
            place[...] = block
        else:                                                               # a product turns quicker than a copy
            turned = times("turned", back[: m * m].T, _identity(m * m, str(back.dtype)))
            lines[...] = turned.view(lines.dtype).reshape(lines.shape)
        hanging = self._view(canvas, rows, m + 2)
        hanging[:m, m:][edge] = right
        if rows.stop == self.grid[0]:
            hanging[m:, :m][bottom] = down.below
            hanging[m:, m:][bottom][edge] = down.corner
        return down


class _Overhang(NamedTuple):
    """What the tiles of a part have for the two rows below them."""

    below: Array
    """(2, m, C, …) beneath the tiles."""
    corner: Array
    """(2, 2, C, …) beneath and to the right of the last column of tiles."""


def _taken(part: Array) -> Array:
    """A copy of a part, which is zero from then on."""
    copy = part.copy()
    part[...] = 0
    return copy


def _shift(target: Array, source: Array, step: int) -> None:
    """target[…, i + step] += source[…, i], the axes behind the second seen as one line i."""
    line = prod(target.shape[2:])
    target.reshape(*target.shape[:2], line)[..., step:] += source.reshape(*source.shape[:2], line)[..., : line - step]


@cache
def _identity(size: int, dtype: str) -> np.ndarray:
    return np.eye(size, dtype=dtype)


def _along(axis: int, part: slice) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, part)
