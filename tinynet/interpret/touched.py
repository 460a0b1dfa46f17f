"""What a network gives when a small part of its input changes, computed only where the change arrives.

A square of the photo touches a square of each map, larger by what the windows reach and smaller by their strides. So every map
is computed once for the photo as it is; then, for many places at once, each layer computes the touched part of its map from the
touched part of the map below and the cells around it. Once most of a map is touched, or a layer needs all of it (flatten, linear,
a global pooling), the rest of the way is computed whole. Containers of any depth, Concat and Residual among them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from copy import copy
from math import inf
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from .. import nn
from ..backend import Array, array_module
from ..functional._check import integers
from ..kernels.correlation import choose
from ..kernels.geometry import Geometry
from ..nn import Layer
from ..nn.containers import visible
from ..nn.layer import computes_plainly, join
from ..nn.norm import _BatchNorm
from ..nn.split import routes_plainly

_MOST = 0.6
"""Share of a map from which on it is computed whole."""
_TILE = 4
"""Outputs along an axis of a tile of winograd4x4: a block of whole tiles is computed where it lies, without a frame."""
class Touched(NamedTuple):
    """Maps that differ from the clean ones in one block each."""

    clean: Array
    """(1, C, H, W): without the change."""
    block: Array
    """(B, C, h, w): what stands there instead."""
    starts: np.ndarray
    """(B, 2): the block's upper left cell."""

    def whole(self) -> Array:
        """The maps (B, C, H, W)."""
        height, width = self.clean.shape[2:]
        if tuple(self.block.shape[2:]) == (height, width):
            return self.block
        return self.cut(np.zeros_like(self.starts), (height, width), 0.0)

    def cut(self, starts: np.ndarray, size: tuple[int, int], outside: float) -> Array:
        """Parts (B, C, *size) of the maps from these cells on; what lies beyond the map is `outside`."""
        xp, (height, width), (h, w) = array_module(self.block), self.clean.shape[2:], self.block.shape[2:]
        parts = xp.empty((len(starts), self.clean.shape[1], *size), dtype=self.block.dtype)
        for i, ((top, left), (y, x)) in enumerate(zip(starts.tolist(), self.starts.tolist(), strict=True)):
            if top < 0 or left < 0 or top + size[0] > height or left + size[1] > width:
                parts[i] = outside
            _paste(parts[i], self.clean[0], -top, -left, height, width)
            _paste(parts[i], self.block[i], y - top, x - left, h, w)
        return parts

    def map(self, channel: int) -> Array:
        """(B, H, W): one map, whole."""
        one = slice(channel, channel + 1)
        return Touched(self.clean[:, one], self.block[:, one], self.starts).whole()[:, 0]

    def total(self, channel: int) -> Array:
        """(B,): the sum over one map."""
        xp, (h, w), clean = array_module(self.block), self.block.shape[2:], self.clean[0, channel]
        before = xp.stack([clean[y : y + h, x : x + w] for y, x in self.starts.tolist()])
        change = self.block[:, channel] - before
        return clean.sum() + change.reshape(len(change), -1).sum(axis=1)


State = Touched | Array
"""Touched maps, or the maps (B, …) as a whole."""


class Look(NamedTuple):
    """see(path, state) is called with what the layers of these paths give; what it raises ends the run."""

    paths: Collection[str]
    see: Callable[[str, State], None]


NOWHERE = Look((), lambda path, state: None)


def run(model: Layer, state: State, clean: dict[str, Array], look: Look = NOWHERE) -> Array:
    """The model's output (B, …) for touched inputs.

    clean: what the layers give without the change; empty before the first call, which fills it, and the same for every further
    one with the same photo.
    """
    return _whole(_through(model, _unless_most(state), clean, look, "", ""))


def _through(layer: Layer, state: State, clean: dict[str, Array], look: Look, path: str, key: str) -> State:
    """The state behind a layer. key: like the path, but with the names that do not show."""
    if isinstance(layer, nn.Container) and not routes_plainly(layer):     # walks of its own: what they do is not known
        return layer.infer(_whole(state), lambda here, _, y: look.see(here, y) if here in look.paths else None, path)
    if isinstance(layer, nn.Sequential):
        children = list(layer.named_children())
        while children:
            (name, child), *children = children
            following = [after for _, after in children]
            fused = None if isinstance(state, Touched) and not isinstance(child, nn.Conv2d) else child.fused(following)
            instead = None
            if fused is not None:                               # several layers at once, as Sequential does
                within = [name, *(after for after, _ in children[: fused.others - 1])]
                if not any(join(path, after) in look.paths for after in within):
                    names = "..".join([name, *(after for after, _ in children[: fused.others])])    # no layer's name has a dot
                    instead = _together(child, following, fused.call, clean, join(key, names))
                    (name, child), children = children[fused.others - 1], children[fused.others :]
            state = _child(name, child, state, clean, look, path, key, instead)
        return state
    if isinstance(layer, (nn.Concat, nn.Residual)):
        branches = [_child(name, child, state, clean, look, path, key) for name, child in layer.named_children()]
        if isinstance(layer, nn.Residual) and len(branches) == 1:
            branches.append(state)
        return _joined(branches, isinstance(layer, nn.Concat))
    if not isinstance(state, Touched):
        return layer(state)
    after = _kept(clean, key, layer, state.clean)
    if layer.each_cell and not (isinstance(layer, _BatchNorm) and not layer.fixed):
        return Touched(after, layer(state.block), state.starts)
    windows = _windows(layer)
    if windows is None or after.ndim != 4:
        return layer(state.whole())
    return _windowed(layer, windows, state, after)


def _kept(clean: dict[str, Array], key: str, call: Callable[[Array], Array], x: Array) -> Array:
    """What call gives of clean maps, computed once."""
    after = clean.get(key)
    if after is None:
        after = clean[key] = call(x)
    return after


def _together(
    layer: Layer, following: list[Layer], call: Callable[[Array], Array], clean: dict[str, Array], key: str
) -> Callable[[State], State]:
    """What takes the place of a layer and some that follow: call(x) of whole maps; of touched ones a convolution's windows."""

    def instead(state: State) -> State:
        if not isinstance(state, Touched):
            return call(state)
        after, windows = _kept(clean, key, call, state.clean), _windows(layer)
        assert windows is not None
        return _windowed(layer, windows, state, after, following)

    return instead


def _child(
    name: str, child: Layer, state: State, clean: dict[str, Array], look: Look, path: str, key: str,
    instead: Callable[[State], State] | None = None,
) -> State:
    here = join(path, visible(name))
    state = _through(child, state, clean, look, here, join(key, name)) if instead is None else instead(state)
    if here in look.paths and visible(name):
        look.see(here, state)
    return _unless_most(state)


def _unless_most(state: State) -> State:
    """The maps as a whole where most of them is touched."""
    if isinstance(state, Touched):
        (height, width), (h, w) = state.clean.shape[2:], state.block.shape[2:]
        if h * w > _MOST * height * width:
            return state.whole()
    return state


def _joined(branches: list[State], concatenate: bool) -> State:
    """Side by side along the channels, or the sum; touched where one of the branches is."""
    touched = [branch for branch in branches if isinstance(branch, Touched)]
    xp = array_module(touched[0].block if touched else branches[0])
    put = (lambda parts: xp.concatenate(parts, axis=1)) if concatenate else (lambda parts: sum(parts[1:], parts[0]))
    if len(touched) < len(branches):
        return put([_whole(branch) for branch in branches])
    height, width = touched[0].clean.shape[2:]
    starts = np.min([branch.starts for branch in touched], axis=0)
    ends = np.max([branch.starts + branch.block.shape[2:] for branch in touched], axis=0)
    h, w = (ends - starts).max(axis=0).tolist()
    starts = np.minimum(starts, [height - h, width - w])
    return Touched(
        put([branch.clean for branch in touched]), put([branch.cut(starts, (h, w), 0.0) for branch in touched]), starts
    )


def _whole(state: State) -> Array:
    return state.whole() if isinstance(state, Touched) else state


class _Windows(NamedTuple):
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    low: tuple[int, ...]
    dilation: tuple[int, ...]
    outside: float
    """What the padding holds."""


def _windows(layer: Any) -> _Windows | None:
    """The windows of a layer whose cells each see a window of the maps below; None: it is none."""
    if not computes_plainly(layer):
        return None
    if isinstance(layer, nn.AvgPool2d) and (layer.ceil_mode or not layer.count_include_pad):
        return None                                             # at the border it divides by something else
    if not isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return None
    kernel, stride = (integers("occlusion", name, getattr(layer, name), 2) for name in ("kernel_size", "stride"))
    dilation = integers("occlusion", "dilation", getattr(layer, "dilation", 1), 2)
    if isinstance(layer.padding, str):
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        low = tuple(span // 2 if layer.padding == "same" else 0 for span in spans)
    else:
        low = integers("occlusion", "padding", layer.padding, 2)
    return _Windows(kernel, stride, low, dilation, -inf if isinstance(layer, nn.MaxPool2d) else 0.0)


def _windowed(layer: Any, windows: _Windows, state: Touched, after: Array, following: Sequence[Layer] = ()) -> Touched:
    """The outputs whose windows hold a touched cell, from the inputs that these windows see.

    following: the layers behind a convolution, of which some may be done with it.
    """
    starts, size = np.empty_like(state.starts), []
    for axis, (k, s, low, d) in enumerate(zip(*windows[:4], strict=True)):
        begin, end = state.starts[:, axis], state.starts[:, axis] + state.block.shape[2 + axis]
        out = after.shape[2 + axis]
        first = np.clip(-(-(begin + low - d * (k - 1)) // s), 0, out - 1)
        last = np.clip((end - 1 + low) // s, 0, out - 1)
        count = max(1, int((last - first).max()) + 1)           # the same for all places: they are computed together
        starts[:, axis] = np.minimum(first, out - count)
        size.append(count)
    made = _whole_tiles(layer, windows, len(starts), size)
    seen = [
        (count - 1) * s + d * (k - 1) + 1
        for count, k, s, d in zip(made, windows.kernel, windows.stride, windows.dilation, strict=True)
    ]
    begins = starts * np.array(windows.stride) - np.array(windows.low)
    parts = state.cut(begins, (seen[0], seen[1]), windows.outside)
    if isinstance(layer, nn.Conv2d):
        bare = copy(layer)
        bare.padding = 0                                        # the parts have it
        fused = bare.fused(following)
        block = (bare if fused is None else fused.call)(parts)[:, :, : size[0], : size[1]]
    elif isinstance(layer, nn.MaxPool2d):
        block = F.max_pool2d(parts, windows.kernel, windows.stride, 0, windows.dilation)
    else:
        block = F.avg_pool2d(parts, windows.kernel, windows.stride, divisor_override=layer.divisor_override)
    return Touched(after, block, starts)


def _whole_tiles(layer: Any, windows: _Windows, places: int, size: list[int]) -> list[int]:
    """The size of a block of outputs, rounded up to whole tiles where these are Winograd's and would be computed anyway."""
    if not isinstance(layer, nn.Conv2d) or windows[:2] != ((3, 3), (1, 1)):
        return size
    made = [-(-count // _TILE) * _TILE for count in size]
    nothing, one = (0, 0), (1, 1)
    geometry = Geometry((made[0] + 2, made[1] + 2), (3, 3), one, nothing, nothing, windows.dilation, (made[0], made[1]))
    filters, channels = layer.weight.shape[:2]
    return made if choose(places, channels, filters, geometry, layer.groups) == "winograd4x4" else size


def _paste(target: Array, source: Array, top: int, left: int, height: int, width: int) -> None:
    """Put source (C, height, width) into target (C, …) at that cell, as far as it lies inside."""
    y0, y1 = max(top, 0), min(top + height, target.shape[1])
    x0, x1 = max(left, 0), min(left + width, target.shape[2])
    if y0 < y1 and x0 < x1:
        target[:, y0:y1, x0:x1] = source[:, y0 - top : y1 - top, x0 - left : x1 - left]
