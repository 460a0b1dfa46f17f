"""Correlation by rows: columns along all axes but the first, and products over windows of rows that overlap in memory.

im2col copies every input cell once for each kernel position. Here it is copied for the positions along the last axes only, and
the rows (positions along the first axis) that an output row sees lie in one piece, so that a product takes them where they are:

    X[h, c, l, q] = x[c, h − padding, q·stride + l·dilation − padding]           l: kernel position in the last axes, q: outputs
    y[o, p, q] = Σ_(k, c, l) w[o, c, k, l] · X[p·stride + k, c, l, q]            (k, c, l): k·C·L numbers in one piece

(Cho & Brand, "MEC: Memory-efficient Convolution for Deep Neural Network", ICML 2017.) A matrix of few filters is too flat for a
product; then one product makes a band of rows from all the rows that they see, with the filter once for each in its matrix, moved
on by the stride, and zeros around it. That is more arithmetic, but it makes matrix products even of a depthwise convolution:

    3×3, a band of 4:   ⎡ w₀ w₁ w₂  0  0  0 ⎤
                        ⎢  0 w₀ w₁ w₂  0  0 ⎥        w₀, w₁, w₂: the rows of the kernel
                        ⎢  0  0 w₀ w₁ w₂  0 ⎥
                        ⎣  0  0  0 w₀ w₁ w₂ ⎦

A signal of one axis is a map of one row. In a band a NaN or an infinity, times those zeros, reaches all its rows, up to seven
further than a sum over windows would carry it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

from ..backend import Array, array_module
from . import im2col
from .geometry import Geometry
from .masking import rectify
from .products import matmul_transposed
from .scratch import scratch
from .tiles import tiles

WORKSPACE = 1 << 23
"""Bytes of one tile. More than the L2 cache holds, since a tile is read once, one window of rows after the other; and long calls
leave threads that share a batch less to wait for each other at the interpreter's lock.
"""
BAND = 8
"""Rows of outputs that a product makes of a group of few filters."""
FEW = 8
"""Filters of a group from which on a product makes one row."""
ROOM = 8
"""Lines of a row from which on one more, of ones, costs less than adding the bias to what may have left the cache."""
LARGE = 40_000
"""Weights of a group that are too many to be read anew for every row."""
WIDE = 28
"""Numbers in a line of outputs from which on it is worth a product of its own; of few channels, shorter ones are."""
VECTOR = 16
"""Numbers that a processor with AVX-512 has at once; a shorter line of whole vectors is worth a product, too."""


def pays(channels: int, filters: int, geometry: Geometry, groups: int, what: str = "forward") -> bool:
    """Whether this is faster than im2col. what: "forward", "input gradient", "weight gradient"."""
    if what == "input gradient":                                            # a correlation with the flipped filters
        if max(geometry.stride, default=1) > 1:
            return False
        channels, filters = filters, channels
    channels, filters = channels // groups, filters // groups
    if channels == 1 and groups > 1:                                        # depthwise
        return True
    if what == "weight gradient" and channels * prod(geometry.kernel[1:]) < 16 and prod(geometry.out) > 2048:
        return False                                                        # long and narrow products
    simple = geometry.dilation[0] == 1 and geometry.stride[-1] == 1
    if geometry.out[-1] < WIDE and geometry.out[-1] % VECTOR and channels >= 16:
        return False
    return simple and filters >= FEW and channels * filters * prod(geometry.kernel) <= LARGE


def forward(x: Array, w: Array, bias: Array | None, geometry: Geometry, groups: int, relu: bool = False) -> Array:
    """Y = W X + b, and max(Y, 0) if relu. x: (N, C, *size), w: (O, C/G, *kernel), bias: (O,) or None. Returns (N, O, *out)."""
    xp, n, o = array_module(x), x.shape[0], w.shape[0]
    y = xp.empty((n, o, *geometry.out), dtype=x.dtype)
    f, geometry = o // groups, _of_rows(geometry)
    rows, q = geometry.out[0], prod(geometry.out[1:])
    band = 1 if f >= FEW else min(BAND, rows)
    x = x.reshape(n, groups, w.shape[1], *geometry.size)
    within = bias is not None and band == 1 and w.shape[1] * prod(geometry.kernel[1:]) >= ROOM
    matrix = _banded(w.reshape(groups, f, w.shape[1], *geometry.kernel), bias if within else None, geometry, band)
    shift = None if bias is None or within else bias.reshape(groups, f, 1, 1)
    whole = y.reshape(n, groups, f, rows, q)
    for images, members, part, lowered in _lowered(x, f, geometry, band, ones=within):
        target = whole[images, members, :, part]                            # (n, g, F, rows, q)
        count = part.stop - part.start
        for height, first in ((band, 0), (count % band, count // band * band)):
            bands = (count - first) // height if height else 0              # first those of full height, then the rest
            if bands:
                seen = _windows(lowered, geometry, first, height, bands)    # (n, g, 1, bands, K, q)
                factor = matrix[members, :, None, : height if band > 1 else f, : seen.shape[-2]]
                own = target[:, :, :, first : first + bands * height]
                own = own.swapaxes(2, 3)[:, :, None] if band == 1 else own.reshape(*own.shape[:3], bands, height, q)
                xp.matmul(factor, seen, out=own)                            # (n, g, E, bands, M, q)
        if shift is not None:
            target += shift[members]                                        # while the tile is in cache
        if relu:
            rectify(target, out=target)
    return y


def input_gradient(dy: Array, w: Array, geometry: Geometry, groups: int) -> Array:
    """dX = Wᵀ dY. dy: (N, O, *out). Returns (N, C, *size). A correlation with the flipped filters, or with a stride im2col's."""
    if max(geometry.stride, default=1) == 1:
        return forward(*im2col.flipped(dy, w, geometry, groups), groups)
    return im2col.input_gradient(dy, w, geometry, groups)


def weight_gradient(x: Array, dy: Array, geometry: Geometry, groups: int) -> Array:
    """dW_k = Σ_n dY Xᵀ, with X from row k on. x: (N, C, *size), dy: (N, O, *out). Returns (O, C/G, *kernel)."""
    xp, n, f, kernel = array_module(x), x.shape[0], dy.shape[1] // groups, geometry.kernel
    geometry = _of_rows(geometry)
    x, q = x.reshape(n, groups, x.shape[1] // groups, *geometry.size), prod(geometry.out[1:])
    c, last = x.shape[2], prod(geometry.kernel[1:])
    signal = dy.reshape(n, groups, f, geometry.out[0], q)
    dw = xp.zeros((geometry.kernel[0], groups, f, c * last), dtype=x.dtype)
    for images, members, part, lowered in _lowered(x, f, geometry, 1, split=True):
        lowered = lowered.reshape(*lowered.shape[:4], -1)                   # (n, g, C·L, stride, rows·q)
        count = part.stop - part.start
        own = signal[images, members, :, part].reshape(*lowered.shape[:2], f, count * q)
        for k in range(geometry.kernel[0]):
            row, phase = divmod(k * geometry.dilation[0], geometry.stride[0])
            seen = lowered[:, :, :, phase, row * q : (row + count) * q]     # (n, g, C·L, rows·q)
            dw[k, members] += matmul_transposed(own, seen).sum(axis=0)
    dw = dw.reshape(geometry.kernel[0], groups * f, c, last).transpose(1, 2, 0, 3)
    return xp.ascontiguousarray(dw).reshape(groups * f, c, *kernel)


def _of_rows(geometry: Geometry) -> Geometry:
    """The same windows with a first axis of one row where there is but one axis."""
    if len(geometry.size) > 1:
        return geometry
    return Geometry(*((plain, *field) for plain, field in zip((1, 1, 1, 0, 0, 1, 1), geometry, strict=True)))


def _banded(w: Array, bias: Array | None, geometry: Geometry, band: int) -> Array:
    """w (G, F, C, *kernel) as matrices (G, E, M, K): E = 1 and M = F for a band of one row, otherwise E = F and M the band.

    bias: (G·F,), what the first of the ones that a window sees is multiplied by, the others by 0; None: there are no ones.
    """
    xp, (g, f, c) = array_module(w), w.shape[:3]
    s, d = geometry.stride[0], geometry.dilation[0]
    seen = geometry.spans[0] + 1
    w = w.reshape(g, f, c, geometry.kernel[0], -1).swapaxes(2, 3).reshape(g, f, geometry.kernel[0], -1)     # (G, F, k, C·L)
    lines = w.shape[3]
    matrix = xp.zeros((g, f, band, (band - 1) * s + seen, lines + (bias is not None)), dtype=w.dtype)
    for row in range(band):
        matrix[:, :, row, row * s : row * s + seen : d, :lines] = w
        if bias is not None:
            matrix[:, :, row, row * s, lines] = bias.reshape(g, f)
    return matrix.reshape(g, 1, f, -1) if band == 1 else matrix.reshape(g, f, band, -1)


def _windows(lowered: Array, geometry: Geometry, first: int, height: int, bands: int) -> Array:
    """A view (n, g, 1, bands, K, q) of lowered (n, g, rows, lines, q): what each band of outputs sees, from row `first` on."""
    s, (n, g, _, lines, q), (image, group, row, line, cell) = geometry.stride[0], lowered.shape, lowered.strides
    seen = (height - 1) * s + geometry.spans[0] + 1
    return array_module(lowered).lib.stride_tricks.as_strided(
        lowered[:, :, first * s :], (n, g, 1, bands, seen * lines, q), (image, group, 0, height * s * row, line, cell)
    )


def _lowered(
    x: Array, f: int, geometry: Geometry, band: int, split: bool = False, ones: bool = False
) -> Iterator[tuple[slice, slice, slice, Array]]:
    """(images, groups, rows of outputs, what these see) in tiles; the next one overwrites the last. A tile takes about WORKSPACE
    bytes, F rows of outputs in each group among them.

    x: (N, G, C, *size). What they see: (n, g, rows, C·L, q), with `ones` and in every row a line of ones besides; or with split
    (n, g, C·L, stride, rows / stride, q): there the rows that all outputs see with one kernel position lie in one piece.
    """
    xp, (n, g, c), s, out = array_module(x), x.shape[:3], geometry.stride[0], geometry.out
    last, q, span = prod(geometry.kernel[1:]), prod(out[1:]), geometry.spans[0]
    lines = c * last + ones
    a_row, its_outputs = (number * q * x.dtype.itemsize for number in (lines, f))
    at_once = max(0, WORKSPACE - span * a_row) // max(1, s * a_row + its_outputs)
    at_once = min(out[0], max(band, at_once // band * band))                # rows of outputs, in whole bands
    high = -(-((at_once - 1) * s + span + 1) // s)                          # rows of inputs of each remainder
    room = None
    for images, members in tiles(n, g, high * s * a_row + at_once * its_outputs, WORKSPACE):
        count = (images.stop - images.start, members.stop - members.start)
        if room is None:                                                    # the first tile is the largest
            room = scratch(xp, "rows", (*count, *((lines, s, high) if split else (high, s, lines)), *out[1:]), x.dtype)
            room[...] = 0                                                   # and stays so at the ends of the rows, in the padding
            if ones:
                room[:, :, :, :, -1] = 1
        own = room[: count[0], : count[1]]
        cells = own.swapaxes(2, 4) if split else own                        # (n, g, high, stride, lines, …)
        cells = cells[:, :, :, :, : c * last].reshape(*cells.shape[:4], c, last, *out[1:])      # still a view
        for first in range(0, out[0], at_once):
            rows = slice(first, min(first + at_once, out[0]))
            _fill(cells, x[images, members], rows, geometry, at_once < out[0])
            yield images, members, rows, own.reshape(*count, *((lines, s, high, q) if split else (high * s, lines, q)))


def _fill(cells: Array, x: Array, rows: slice, geometry: Geometry, used: bool) -> None:
    """Copy what these rows of outputs see. cells: (n, g, high, stride, C, L, *out[1:]), x: (n, g, C, *size).

    used: other rows have been here; otherwise those that stand for padding are zero still.
    """
    all_, s, top = slice(None), geometry.stride[0], rows.start * geometry.stride[0] - geometry.low[0]
    needed = -(-((rows.stop - rows.start - 1) * s + geometry.spans[0] + 1) // s)
    for remainder in range(s):
        begin, end = _inside(geometry.size[0], s, top + remainder, needed)
        if used:
            cells[:, :, :begin, remainder] = 0
            cells[:, :, end:needed, remainder] = 0
        if begin == end:
            continue
        source = top + remainder + begin * s
        lines = x[:, :, :, source : source + (end - begin - 1) * s + 1 : s].swapaxes(2, 3)  # (n, g, rows, C, …)
        for number, offset in enumerate(product(*map(range, geometry.kernel[1:]))):
            seen: list[slice] = []
            filled: list[slice] = []
            for k, size, step, d, low, out in zip(
                offset, geometry.size[1:], geometry.stride[1:], geometry.dilation[1:], geometry.low[1:], geometry.out[1:],
                strict=True,
            ):
                first, last = _inside(size, step, k * d - low, out)
                seen.append(slice(k * d - low + first * step, k * d - low + (last - 1) * step + 1, step))
                filled.append(slice(first, last))
            if all(part.start < part.stop for part in filled):
                cells[(all_, all_, slice(begin, end), remainder, all_, number, *filled)] = lines[(..., *seen)]


def _inside(size: int, step: int, begin: int, count: int) -> tuple[int, int]:
    """Which i from 0 to count have 0 <= begin + i · step < size: from the first to the second, less one."""
    first = min(max(0, -(begin // step)), count)
    return first, max(first, min(count, -((begin - size) // step)))
