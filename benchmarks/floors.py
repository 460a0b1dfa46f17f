"""What no network of NumPy calls goes below: its matrix products, and once what has to be laid out for them.

Of a convolution that is the quicker of two: the product of the filters with its columns, each input copied for the positions
along the kernel's last axes alone (kernels/rows.py), or Winograd's small products with those of its transforms, each tile copied
once. Of a linear layer it is the product with the weights as they come from memory, of any other layer one copy of its output.
Copies are of lines in one piece, and operands lie where they are needed, in cache where they fit; framing, biases, rectifiers,
windows, sums and waiting cost nothing. So a floor is no forecast, but on the machine that measured it calls of these kinds get
no lower.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import prod

import numpy as np

from tinynet import nn
from tinynet.distributed import Shards

Work = Callable[[], object]

COLUMNS = (256, 1024, 4096)
"""Columns of one product that are tried, besides those of one row; the quickest counts."""
ROW = 1024
"""Columns that products of single rows make in one call, about."""
TILES = (256, 1024)
"""Tiles of one of Winograd's products that are tried."""


def floor(
    model: nn.Layer, size: tuple[int, ...], training: bool, shards: Shards,
    kind_of: Callable[[nn.Layer], str] = lambda layer: "", kind: str = "",
) -> Work:
    """What does the least that one step of `model` takes for a batch of that size (N, …); for `benchmarks.measuring.alternate`.

    training: forward and backward, and one pass over the parameters for the optimiser; else forward alone.
    kind_of, kind: only of the layers of this kind.
    """
    seen: list[tuple[nn.Layer, tuple[int, ...]]] = []
    x = np.zeros((0, *size[1:]), np.float32)
    if isinstance(model, nn.Container):
        model.forward(x, watch=lambda _, layer, y: seen.append((layer, y.shape[1:])))
        seen = [(layer, shape) for layer, shape in seen if not isinstance(layer, nn.Container)]
    else:
        seen.append((model, model(x).shape[1:]))
    whole, parts = isinstance(model, nn.Container), min(shards.workers, size[0])
    images = -(-size[0] // parts)
    work: list[list[Work]] = [[] for _ in range(parts)]         # operands of its own for each thread
    for mine in work:
        for number, (layer, shape) in enumerate(seen):
            if kind_of(layer) == kind:
                mine += _least(layer, images, shape, parts, training, whole, first=whole and number == 0)

    def run(numbers: np.ndarray) -> None:
        for part in work[int(numbers[0])]:
            part()

    return lambda: shards.apply(run, np.arange(parts))


def _least(
    layer: nn.Layer, n: int, out: tuple[int, ...], parts: int, training: bool, within: bool, first: bool
) -> list[Work]:
    """The work of one layer for one thread, n samples. within: a network; first: nobody asks for the gradient of its input."""
    if isinstance(layer, nn.Conv2d):
        shape = (layer.out_channels, layer.weight.shape[1], prod(layer.kernel_size))
        if layer.groups == layer.out_channels:                  # one filter a map: no product
            return [copy(n * prod(out))] * (3 if training else 1)
        lines = prod(layer.kernel_size[1:]) if max(layer.kernel_size) > 1 else 0        # of 1×1 the columns are the input
        candidates = [
            _columns(shape, layer.groups, n * prod(out[1:]), most, lines, training, first) for most in (out[-1], *COLUMNS)
        ]
        taps = {-(-k // s) for k, s in zip(layer.kernel_size, layer.stride, strict=True)}
        m = {(3,): 4, (5,): 2}.get((*taps,)) if layer.groups == 1 and layer.dilation == (1, 1) else None
        if m is not None:
            tiles = n * prod(-(-side // m) for side in out[1:])
            seen = shape[1] * prod(layer.stride)                # every phase of a stride has channels of its own
            candidates += [_winograd(m, (shape[0], seen), tiles, most, training, first) for most in TILES]
        return [*min(candidates, key=_time), *(_update(layer, parts) if training and within else [])]
    if isinstance(layer, nn.Linear):                            # each thread some of the columns, for the whole batch
        return [*_linear(layer, n * parts, parts, training, first), *(_update(layer, parts) if training and within else [])]
    if within and isinstance(layer, (nn.ReLU, nn.Dropout, nn.Flatten)):         # may be done in place, or not at all
        return []
    return [copy(n * prod(out))] * (2 if training else 1)


def _columns(
    shape: tuple[int, int, int], groups: int, columns: int, most: int, lines: int, training: bool, first: bool
) -> list[Work]:
    """(O, C, k²) filters, direct: Y = W X, dX = Wᵀ dY, dW = dY Xᵀ. lines: how many times each input is copied; of dX's, added."""
    o, c, k = shape
    at_once = max(1, min(columns, ROW) // most)                             # products in a call
    times, some = _cut(columns, at_once * most)
    some = max(1, some // at_once)
    w = _numbers(1, groups, o // groups, c * k)
    x, y = _numbers(at_once, groups, c * k, some), _numbers(at_once, groups, o // groups, some)
    dx, dw = np.empty_like(x), np.empty((at_once, *w.shape[1:]), np.float32)
    laid_out = [copy(at_once * groups * c * lines * some)] if lines else []
    work: list[Work] = [*laid_out, lambda: np.matmul(w, x, out=y)]
    if training:
        work += [*laid_out, lambda: np.matmul(y, x.swapaxes(2, 3), out=dw)]
        if not first:
            work += [lambda: np.matmul(w.swapaxes(2, 3), y, out=dx), *laid_out]
    return work * times


def _winograd(m: int, shape: tuple[int, int], tiles: int, most: int, training: bool, first: bool) -> list[Work]:
    """F(4×4, 3×3) or F(2×2, 5×5) of (O, C) filters: 36 products, the transforms, and in training both gradients."""
    (o, c), (times, some) = shape, _cut(tiles, most)
    b, a, g = _numbers(36, 36), _numbers(m * m, 36), _numbers(36, (7 - m) ** 2)
    u, v, e = _numbers(36, o, c), _numbers(36, c, some), _numbers(36, o, some)
    d, y, dv, du = (_numbers(*shape) for shape in ((36, c * some), (m * m, o * some), v.shape, u.shape))
    w = _numbers((7 - m) ** 2, o * c // 2)                      # shared by two threads at least; so is what their gradient takes
    inputs, outputs = copy(36 * c * some), copy(m * m * o * some)
    work: list[Work] = [
        inputs, lambda: np.matmul(b, d, out=v.reshape(36, -1)), lambda: np.matmul(u, v, out=e),
        lambda: np.matmul(a, e.reshape(36, -1), out=y), outputs,
    ]
    if training:
        work += [
            outputs, lambda: np.matmul(a.T, y, out=e.reshape(36, -1)), inputs, lambda: np.matmul(b, d, out=v.reshape(36, -1)),
            lambda: np.matmul(e, v.swapaxes(1, 2), out=du),
        ]
        if not first:
            work += [
                lambda: np.matmul(u.swapaxes(1, 2), e, out=dv), lambda: np.matmul(b.T, dv.reshape(36, -1), out=d), inputs,
            ]
    filters: list[Work] = [lambda: np.matmul(g, w, out=u.reshape(36, -1)[:, : w.shape[1]])]
    return work * times + (filters if training else [])


def _linear(layer: nn.Linear, n: int, parts: int, training: bool, first: bool) -> list[Work]:
    out = -(-layer.out_features // parts)
    w, x, y = _numbers(out, layer.in_features), _numbers(layer.in_features, n), _numbers(out, n)
    dx, dw = np.empty_like(x), np.empty_like(w) if training else w
    products: list[Work] = [lambda: np.matmul(w, x, out=y)]
    if training:
        products += [lambda: np.matmul(y, x.T, out=dw)] + ([] if first else [lambda: np.matmul(w.T, y, out=dx)])
    return products


def _update(layer: nn.Layer, parts: int) -> list[Work]:
    """The optimiser's: one pass over a thread's part of the parameters and their gradients."""
    size = sum(getattr(layer, name).size for name in layer.parameter_names if getattr(layer, name) is not None) // parts
    parameters, gradients = _numbers(size), _numbers(size)
    return [lambda: np.subtract(parameters, gradients, out=parameters)]


def copy(numbers: int) -> Work:
    """One copy of that many float32."""
    source, target = _numbers(numbers), np.empty(numbers, np.float32)
    return lambda: np.copyto(target, source)


def _cut(count: int, most: int) -> tuple[int, int]:
    """Into how many equal parts of at most `most`, and their length."""
    times = -(-count // most)
    return times, -(-count // times)


def _numbers(*shape: int) -> np.ndarray:
    return np.full(shape, 0.0, np.float32)                     # written, so that the pages are there


def _time(work: list[Work]) -> float:
    """Seconds of one thread, the better of two."""
    found = []
    for _ in range(2):
        start = time.perf_counter()
        for part in work:
            part()
        found.append(time.perf_counter() - start)
    return min(found)
