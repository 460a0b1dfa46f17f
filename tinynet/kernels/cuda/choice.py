"""Which way a convolution takes on a GPU, estimated from bytes and operations. None of it has been measured.

A kernel takes as long as its bytes through memory or its operations, whichever is slower (the roofline: Williams, Waterman &
Patterson, CACM 2009), and no less than one launch. A way takes as long as its kernels one after the other. All is counted in
bytes: what the memory moves in the time that it takes.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ...backend import current_gpu_options
from .launch import index_type
from .winograd import tiles

BALANCE = 20.0
"""Operations of float32 that a GPU does in the time of a byte: 60 TFLOP/s and 3 TB/s."""
LAUNCH = 9e6
"""Bytes in the time of the shortest kernel, 3 µs."""
SHARE = 0.7
"""What direct.cu reaches of cuBLAS's rate."""
WORTH = 0.85
"""What Winograd's algorithm must at most cost of the other ways to be taken: it pays with digits, too."""
FEWEST = 16
"""Filters of a group from which on direct.cu's tiles are filled enough."""


def choose(what: str, count: int, channels: int, filters: int, geometry: Any, groups: int, dtype: Any) -> str:
    """"im2col", "direct" or "winograd4x4": the cheapest that can do it. what: "forward", "input gradient", "weight gradient".

    By the shapes and the options alone, so that the same call gives the same bits. Winograd's algorithm only in float32, without
    lower precision, and where the transformed filters fit the workspace, too.
    """
    options = current_gpu_options()
    costs = {"im2col": cost_of_columns(count, channels, filters, geometry, groups)}
    if dtype == np.float32 and options.precision == "float32":
        seen, made = (channels, filters) if what != "input gradient" else (filters, channels)
        if can_direct(what, count, channels, filters, geometry, groups) and made // groups >= FEWEST:
            costs["direct"] = cost_of_direct(count, seen, made, geometry, groups)
        if can_winograd(geometry, groups) and 36 * 4 * channels * filters <= options.workspace:
            costs["winograd4x4"] = cost_of_winograd(count, channels, filters, geometry) / WORTH
    return min(costs, key=costs.__getitem__)


def can_direct(what: str, count: int, channels: int, filters: int, geometry: Any, groups: int) -> bool:
    """Whether direct.cu does it: two axes, 32-bit indices; of the gradients only the input's, with stride 1."""
    reach = count * max(channels * prod(geometry.size), filters * prod(geometry.out)), filters * channels * prod(geometry.kernel)
    way = what == "forward" or (what == "input gradient" and set(geometry.stride) == {1})
    return way and len(geometry.size) == 2 and groups < 1 << 16 and index_type(*reach) is np.int32


def can_winograd(geometry: Any, groups: int) -> bool:
    """Whether winograd.cu does it: 3×3, stride 1, no dilation, no groups."""
    plain = geometry.kernel == (3, 3) and geometry.stride == (1, 1) and geometry.dilation == (1, 1)
    return plain and groups == 1


def pays_image_by_image(channels: int, filters: int, geometry: Any, groups: int) -> bool:
    """Whether the weight gradients of a 1×1 kernel, one for each image, are no larger than the maps that it saves to gather."""
    return filters * channels // groups <= (channels + filters) * prod(geometry.out)


def cost_of_columns(count: int, channels: int, filters: int, geometry: Any, groups: int) -> float:
    """Of each pass alike: the columns written or added up, the product, and the other side turned from rows to maps or back."""
    positions, taps = count * prod(geometry.out), prod(geometry.kernel)
    x, y, entries = count * channels * prod(geometry.size), filters * positions, channels * taps * positions
    w = filters * channels // groups * taps
    return _kernel(4 * (x + entries)) + _kernel(4 * (entries + y + w), 2 * y * channels // groups * taps) + _kernel(8 * y)


def cost_of_direct(count: int, channels: int, filters: int, geometry: Any, groups: int) -> float:
    """One kernel, whose tiles of 64 or 128 filters may be filled in part."""
    positions, taps = count * prod(geometry.out), prod(geometry.kernel)
    w, each = filters * channels // groups * taps, filters // groups
    tile = 64 if each <= 64 else 128
    filled = each / (-(-each // tile) * tile)
    operations = 2 * filters * positions * channels // groups * taps
    return _kernel(4 * (count * channels * prod(geometry.size) + filters * positions + w), operations / (SHARE * filled))


def cost_of_winograd(count: int, channels: int, filters: int, geometry: Any) -> float:
    """Of each pass alike: the transforms of filters and of both sides, and 36 products."""
    parts, w = tiles(count, geometry), channels * filters
    x, y = count * channels * prod(geometry.size), count * filters * prod(geometry.out)
    transforms = _kernel(4 * (9 + 36) * w) + _kernel(4 * (x + 36 * channels * parts)) + _kernel(4 * (y + 36 * filters * parts))
    return transforms + _kernel(4 * 36 * (channels * parts + filters * parts + w), 2 * 36 * w * parts)


def _kernel(size: float, operations: float = 0) -> float:
    return LAUNCH + max(size, operations / BALANCE)
