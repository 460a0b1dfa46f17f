"""How the overlapping tiles of Winograd's algorithm lie in memory: cut from an image, written to one, added back to one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import groupby, product
from math import prod
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from .geometry import Geometry
from .scratch import scratch, times
from .tiles import tiles
from .winograd_forms import Form

WORKSPACE = 1 << 20
"""Bytes that the tiles of a part may take: what the L2 cache of a core holds, so that the products find them near."""
COLUMNS = 256
"""Tiles in one product, at least: U is read anew for every product and of many channels it is large; of few, each call counts."""
_SMALL = 6
"""Rows of fewer tiles than this are too short to be copied one by one; then the images lie next to each other in memory."""


class Layout(NamedTuple):
    """How the tiles of all images are laid out, and how many are transformed at a time.

    A canvas holds some images with a frame around them: (n, C, height, width), or (C, height, width, n) where rows are
    short, so that what is copied is never only a few numbers long. The axes of its tiles, the grid, are (n, rows, columns) or
    (rows, columns, n). An image that is seen in strides lies on it phase by phase, as that many times the channels.
    """

    form: Form
    grid: tuple[int, int]
    """Rows and columns of tiles in one image."""
    images: int
    bytes_per_row: int
    """What one row of tiles of one image takes while it is worked on."""
    workspace: int
    images_last: bool

    @classmethod
    def of(cls, geometry: Geometry, form: Form, images: int, channels: int, itemsize: int) -> Layout:
        """channels: on both sides of the product together, each phase's among them."""
        rows, columns = (-(-out // form.m) for out in geometry.out)
        bytes_per_tile = form.a**2 * 2 * channels * itemsize
        return cls(
            form, (rows, columns), images, bytes_per_tile * columns, max(WORKSPACE, COLUMNS * bytes_per_tile),
            columns < _SMALL and columns < images,
        )

    @property
    def covered(self) -> tuple[int, int]:
        """Rows and columns of output cells that the tiles cover, those beyond the output among them."""
        return self.form.m * self.grid[0], self.form.m * self.grid[1]

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns of input cells (of a phase) that the tiles cover."""
        return self.covered[0] + self.form.r - 1, self.covered[1] + self.form.r - 1

    def parts(self) -> Iterator[tuple[slice, list[slice]]]:
        """(images, rows of tiles): the images that share a canvas, and their rows in the parts that are worked on, downwards."""
        every = tiles(self.images, self.grid[0], self.bytes_per_row, self.workspace)
        for images, same in groupby(every, itemgetter(0)):
            yield images, [rows for _, rows in same]

    def canvas_for(self, x: Array, size: tuple[int, int], place: str, stride: tuple[int, ...] = (1, 1)) -> Array:
        """Room for a framed x (n, C, …) in scratch memory; x itself where it can serve as its own canvas."""
        if tuple(x.shape[2:]) == size and not self.images_last and stride == (1, 1):
            return x
        n, c = x.shape[0], x.shape[1] * prod(stride)
        shape = (c, *size, n) if self.images_last else (n, c, *size)
        return scratch(array_module(x), place, shape, x.dtype)

    def framed(
        self, x: Array, size: tuple[int, int], low: tuple[int, ...], place: str = "whole", stride: tuple[int, ...] = (1, 1)
    ) -> Array:
        """x (n, C, h, w) on a canvas of that size, `low` cells from its upper and left edge, zeros around it."""
        canvas = self.canvas_for(x, size, place, stride)
        if canvas is not x:
            for channels, inside, seen in self._phases(x, size, low, stride):
                ours = canvas[channels] if self.images_last else canvas[:, channels]
                for axis, part in zip((1, 2) if self.images_last else (2, 3), inside, strict=True):
                    before = (slice(None),) * axis
                    ours[(*before, slice(0, part.start))] = 0
                    ours[(*before, slice(part.stop, None))] = 0
                cells = x[(..., *seen)]
                ours[self._index(inside)] = cells.transpose(1, 2, 3, 0) if self.images_last else cells
        return canvas

    def unframe(self, canvas: Array, x: Array, low: tuple[int, ...], stride: tuple[int, ...] = (1, 1)) -> None:
        """The other way: x (n, C, h, w) from its canvas; zeros where that has no cell for it, which no output sees."""
        if canvas is x:
            return
        size = tuple(canvas.shape[1:3] if self.images_last else canvas.shape[2:])
        if any(s * cells < begin + length for s, cells, begin, length in zip(stride, size, low, x.shape[2:], strict=True)):
            x[...] = 0
        for channels, inside, seen in self._phases(x, size, low, stride):
            cells = (canvas[channels] if self.images_last else canvas[:, channels])[self._index(inside)]
            x[(..., *seen)] = cells.transpose(3, 0, 1, 2) if self.images_last else cells

    @staticmethod
    def _phases(
        x: Array, size: tuple[int, ...], low: tuple[int, ...], stride: tuple[int, ...]
    ) -> Iterator[tuple[slice, list[slice], list[slice]]]:
        """For each phase its channels on the canvas, where its cells lie there, and which of x (n, C, h, w) they are."""
        c = x.shape[1]
        for number, phase in enumerate(product(*map(range, stride))):
            inside: list[slice] = []
            seen: list[slice] = []
            for remainder, s, begin, length, there in zip(phase, stride, low, x.shape[2:], size, strict=True):
                first = (remainder - begin) % s                             # the first cell of x that is of this phase
                at = (begin + first) // s
                count = max(0, min(-((first - length) // s), there - at))
                inside.append(slice(at, at + count))
                seen.append(slice(first, first + count * s, s))
            yield slice(number * c, (number + 1) * c), inside, seen

    def _index(self, inside: list[slice]) -> tuple[Any, ...]:
        """Of these cells of all images and channels on a canvas."""
        return (slice(None), *inside) if self.images_last else (..., *inside)

    def inputs(self, canvas: Array, rows: slice) -> Array:
        """A copy (a, a, C, *grid) of the input tiles, a × a cells that overlap by r − 1."""
        return self.copied(self._view(canvas, rows, self.form.a))

    def copied(self, view: Array) -> Array:
        """The tiles of a view in one piece, in scratch memory."""
        xp = array_module(view)
        tiles = scratch(xp, "tiles", view.shape, view.dtype)
        xp.copyto(tiles, view)
        return tiles

    def blocks(self, canvas: Array, rows: slice) -> Array:
        """A view (m, m, C, *grid) of the m × m blocks that lie side by side."""
        return self._view(canvas, rows, self.form.m)

    def lines(self, canvas: Array, rows: slice) -> Array | None:
        """The same blocks as a view (C, *grid, m) of lines, m cells in one piece; None: there is no such view.

        Whole lines are copied in a fraction of the time that their cells take one by one.
        """
        if array_module(canvas) is not np or self.images_last or canvas.strides[-1] != canvas.itemsize:
            return None
        m = self.form.m
        canvas = canvas[:, :, rows.start * m : rows.stop * m, : m * self.grid[1]]
        n, c = canvas.shape[:2]
        lines = canvas.view(f"V{m * canvas.itemsize}").reshape(n, c, rows.stop - rows.start, m, self.grid[1])
        return lines.transpose(1, 0, 2, 4, 3)

    def _view(self, canvas: Array, rows: slice, side: int) -> Array:
        count, m = rows.stop - rows.start, self.form.m
        if self.images_last:
            (c, _, _, n), (channel, row, cell, image) = canvas.shape, canvas.strides
            canvas = canvas[:, rows.start * m :]
            grid, steps = (count, self.grid[1], n), (m * row, m * cell, image)
        else:
            (n, c, _, _), (image, channel, row, cell) = canvas.shape, canvas.strides
            canvas = canvas[:, :, rows.start * m :]
            grid, steps = (n, count, self.grid[1]), (image, m * row, m * cell)
        return array_module(canvas).lib.stride_tricks.as_strided(canvas, (side, side, c, *grid), (row, cell, channel, *steps))

    def add_back(self, back: Array, canvas: Array, rows: slice, carried: _Overhang | None) -> _Overhang:
        """Tiles (a², C·T), cells in the order of the transform `back`, to where they came from; overlapping ones add up.

        Call it part by part. carried: what the part above returned, for its tiles reach r − 1 rows into those below.
        """
        (m, r), a, place = self.form, self.form.a, self.blocks(canvas, rows)    # (m, m, C, *grid)
        grid, one = place.shape[2:], place.shape[-1] if self.images_last else 1     # how far the tile to the right is in memory
        row, column = (3, 4) if self.images_last else (4, 5)                # the axes of the grid
        inner = m * m + m * (r - 1)
        block, beside = back[: m * m].reshape(m, m, *grid), back[m * m : inner].reshape(m, r - 1, *grid)
        below = back[inner:].reshape(r - 1, a, *grid)
        # First every tile gives its columns beside the block to the tiles on its right, then its rows below to those there.
        right = _handed_on(block.swapaxes(0, 1), beside.swapaxes(0, 1), column, one).swapaxes(0, 1)
        corner = _handed_on(below[:, :m].swapaxes(0, 1), below[:, m:].swapaxes(0, 1), column, one).swapaxes(0, 1)
        down = _Overhang(
            _handed_on(block, below[:, :m], row, one * self.grid[1]), _handed_on(right, corner, row, one)
        )
        if carried is not None:
            _taken_over(block, carried.below, down.below, row)
            _taken_over(right, carried.corner, down.corner, row)
        lines = self.lines(canvas, rows)
        if lines is None:
            place[...] = block
        else:                                                               # a product turns quicker than a copy
            turned = times("turned", back[: m * m].T, _identity(m * m, str(back.dtype)))
            lines[...] = turned.view(lines.dtype).reshape(lines.shape)
        last = _along(column, slice(-1, None))
        self._view(canvas, rows, a)[:m, m:][last] = right
        if rows.stop == self.grid[0]:
            hanging = self._view(canvas, rows, a)[m:][_along(row, slice(-1, None))]
            hanging[:, :m] = down.below
            hanging[:, m:][last] = down.corner
        return down


class _Overhang(NamedTuple):
    """What the tiles of a part have for the r − 1 rows below them."""

    below: Array
    """(r − 1, m, C, …) beneath the tiles."""
    corner: Array
    """(r − 1, r − 1, C, …) beneath and to the right of the last column of tiles."""


def _handed_on(block: Array, over: Array, axis: int, step: int) -> Array:
    """Every tile's block (m, ·, C, *grid) gets what the tiles before it along an axis of the grid have over (r − 1, ·, C, *grid).

    step: how far apart tiles along that axis are in memory. Returns what hangs over the end, (r − 1, ·, C, …) with one tile along
    the axis. That is put aside, with zeros in its place, so that long lines can be added, whatever the size of the grid.
    """
    m, tiles = len(block), over.shape[axis]
    end = array_module(over).zeros((*over.shape[:axis], 1, *over.shape[axis + 1 :]), dtype=over.dtype)
    for before in range(min(-(-len(over) // m), tiles)):                    # the last tile, the one before it, …
        part = over[before * m :][_along(axis, slice(tiles - 1 - before, tiles - before))]
        end[: len(part)] += part
        part[...] = 0
    for first in range(0, len(over), m):
        part, distance = over[first : first + m], (first // m + 1) * step
        shape = (*part.shape[:2], prod(part.shape[2:]))
        lines = part.reshape(shape)[..., : max(0, shape[-1] - distance)]
        block[: len(part)].reshape(shape)[..., distance:] += lines
    return end


def _taken_over(block: Array, carried: Array, down: Array, axis: int) -> None:
    """What the part above carried (r − 1, ·, C, …), to the first tiles of block (m, ·, C, *grid); what reaches further: down."""
    m, tiles = len(block), block.shape[axis]
    for tile, first in enumerate(range(0, len(carried), m)):
        part = carried[first : first + m]
        if tile < tiles:
            block[: len(part)][_along(axis, slice(tile, tile + 1))] += part
        else:
            down[first - tiles * m :][: len(part)] += part


@cache
def _identity(size: int, dtype: str) -> np.ndarray:
    return np.eye(size, dtype=dtype)


def _along(axis: int, part: slice) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, part)
