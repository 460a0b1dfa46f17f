"""Every algorithm of convolution computes the same three maps: against PyTorch, in many tiles, on shapes that do not divide."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.checking import Backend, adjoint, close, values
from tinynet.errors import ArgumentError
from tinynet.kernels import correlation, filter_cache, im2col, pointwise, rows, winograd, winograd_tiles
from tinynet.kernels.correlation import (
    choose,
    correlate,
    correlate_gradients,
    correlate_input_gradient,
    correlate_weight_gradient,
)
from tinynet.kernels.cuda import here
from tinynet.kernels.filter_cache import FilterCache
from tinynet.kernels.geometry import Geometry
from tinynet.kernels.winograd_forms import FORMS

# Largest error on outputs of variance 1 (the docstring of kernels/winograd.py), for tiles of 6 × 6 where there are some; sums of
# a few channels stay below it.
SLACK = {"winograd2x2": 4e-4, "winograd4x4": 4e-4}


@st.composite
def cases(draw: st.DrawFn, algorithm: str) -> dict[str, Any]:
    """A correlation in two dimensions that this algorithm can do on a CPU, low and high padding of their own."""
    stride, dilation, groups, kernel = (1, 1), (1, 1), 1, (3, 3)
    if algorithm.startswith("winograd"):
        taps = draw(st.sampled_from([form.r for form in FORMS if algorithm == f"winograd{form.m}x{form.m}"]))
        stride = draw(st.just((1, 1)) | st.tuples(st.integers(1, 4), st.integers(1, 3)))
        down, right = ((taps - 1) * s + draw(st.integers(1, s)) for s in stride)       # ⌈kernel / stride⌉ are the taps
        kernel = (down, right)
    else:
        stride = draw(st.just((1, 1)) | st.tuples(st.integers(1, 3), st.integers(1, 3)))    # stride 1 has ways of its own
        groups = draw(st.integers(1, 3))
        kernel = (1, 1)
        if algorithm != "pointwise":
            kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
            dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    channels = groups * draw(st.integers(1, 4))
    pads = [(0, 0)] * 2 if algorithm == "pointwise" else [draw(st.tuples(st.integers(0, 4), st.integers(0, 4))) for _ in range(2)]
    size = [
        max(1, d * (k - 1) + 1 - sum(pad)) + draw(st.integers(0, 12))
        for d, k, pad in zip(dilation, kernel, pads, strict=True)
    ]
    out = [
        (s + sum(pad) - d * (k - 1) - 1) // step + 1
        for s, pad, d, k, step in zip(size, pads, dilation, kernel, stride, strict=True)
    ]
    low, high = zip(*pads, strict=True)
    return {
        "groups": groups, "count": draw(st.sampled_from([0, 1, 2, 3, 11])), "channels": channels,
        "filters": groups * draw(st.integers(1, 4) | st.just(rows.FEW)),
        "bias": draw(st.booleans()), "seed": draw(st.integers(0, 999)),
        "geometry": Geometry(tuple(size), kernel, stride, low, high, dilation, tuple(out)),
        "workspace": draw(st.sampled_from([1, 3000, 1 << 20])), "columns": draw(st.sampled_from([1, 7, 128])),
        "more": draw(st.sampled_from([0, 1, 10**9])),
    }


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("algorithm", ["im2col", "pointwise", "rows", "winograd2x2", "winograd4x4"])
@given(draw=st.data())
def test_against_pytorch(backend: Backend, algorithm: str, dtype: str, draw: st.DataObject) -> None:
    case = draw.draw(cases(algorithm))
    geometry, groups, seed = case["geometry"], case["groups"], case["seed"]
    x = values(seed, (case["count"], case["channels"], *geometry.size)).astype(dtype)
    w = values(seed + 1, (case["filters"], case["channels"] // groups, *geometry.kernel)).astype(dtype)
    bias = values(seed + 2, (case["filters"],)).astype(dtype) if case["bias"] else None
    tx, tw = (torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (x, w))
    (top, left), (bottom, right) = geometry.low, geometry.high
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.pad(tx, (left, right, top, bottom)), tw,
        None if bias is None else torch.from_numpy(bias.astype(np.float64)), geometry.stride, 0, geometry.dilation, groups,
    )
    dy = values(seed + 3, tuple(expected.shape)).astype(dtype)
    expected.backward(torch.from_numpy(dy.astype(np.float64)))
    slack = 0.0 if dtype == "float64" else SLACK.get(algorithm, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd_tiles, "WORKSPACE", case["workspace"])
        patch.setattr(winograd_tiles, "COLUMNS", case["columns"])
        patch.setattr(pointwise, "_LONG", case["columns"])
        patch.setattr(rows, "WORKSPACE", case["workspace"])
        patch.setattr(im2col, "LONG", case["columns"])
        patch.setattr(im2col, "MORE", case["more"])
        ax, aw, ady = (backend.array(a) for a in (x, w, dy))
        shift = None if bias is None else backend.array(bias)
        if here(ax) and algorithm == "winograd4x4" and geometry.stride != (1, 1):    # a CPU takes strides phase by phase
            for refused in (
                lambda: correlate(ax, aw, shift, geometry, groups, algorithm),
                lambda: correlate_input_gradient(ady, aw, geometry, groups, algorithm),
                lambda: correlate_weight_gradient(ax, ady, geometry, groups, algorithm),
                lambda: correlate_gradients(ax, aw, ady, geometry, groups, algorithm),
            ):
                with pytest.raises(ArgumentError, match="winograd4x4 cannot do kernel"):
                    refused()
            return
        y = correlate(ax, aw, shift, geometry, groups, algorithm)
        rectified = correlate(ax, aw, shift, geometry, groups, algorithm, relu=True)
        factor = values(seed + 4, (case["filters"],)).astype(dtype)
        scaled = correlate(ax, aw, shift, geometry, groups, algorithm, scale=backend.array(factor))
        dx = correlate_input_gradient(ady, aw, geometry, groups, algorithm)
        dw = correlate_weight_gradient(ax, ady, geometry, groups, algorithm)
        together = correlate_gradients(ax, aw, ady, geometry, groups, algorithm)
    assert tx.grad is not None and tw.grad is not None
    close(backend.host(y), expected.detach().numpy(), dtype, "y", slack)
    close(backend.host(rectified), expected.detach().numpy().clip(0), dtype, "max(y, 0)", slack)
    level = 0 if bias is None else bias.astype(np.float64).reshape(-1, 1, 1)
    expected_scaled = (expected.detach().numpy() - level) * factor.astype(np.float64).reshape(-1, 1, 1) + level
    close(backend.host(scaled), expected_scaled, dtype, "scale · W X + b", slack)
    close(backend.host(dx), tx.grad.numpy(), dtype, "dx", slack)
    close(backend.host(dw), tw.grad.numpy(), dtype, "dw", slack)
    for alone, both in zip((dx, dw), together, strict=True):
        assert np.array_equal(backend.host(alone), backend.host(both))
    if dtype == "float64":
        adjoint(backend, y if bias is None else correlate(ax, aw, None, geometry, groups, algorithm), ady, ax, dx)


@pytest.mark.parametrize("n", [1, 3])
@given(draw=st.data())
def test_rows_in_one_and_three_dimensions(backend: Backend, n: int, draw: st.DataObject) -> None:
    def numbers(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.draw(st.integers(low, high)) for _ in range(n))

    kernel, stride, dilation, padding, more = numbers(1, 3), numbers(1, 3), numbers(1, 2), numbers(0, 3), numbers(0, 5)
    groups, channels, filters = (draw.draw(st.integers(1, 3)) for _ in range(3))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [max(1, span - 2 * pad) + m for span, pad, m in zip(spans, padding, more, strict=True)]
    x, w = values(0, (2, groups * channels, *size)), values(1, (groups * filters, channels, *kernel))
    tx, tw = (torch.from_numpy(a).requires_grad_() for a in (x, w))
    expected = [torch.conv1d, torch.conv3d][n // 2](tx, tw, None, stride, padding, dilation, groups)
    dy = values(2, tuple(expected.shape))
    expected.backward(torch.from_numpy(dy))
    geometry = Geometry(tuple(size), kernel, stride, padding, padding, dilation, tuple(expected.shape[2:]))
    ax, aw, ady = (backend.array(a) for a in (x, w, dy))
    assert tx.grad is not None and tw.grad is not None
    close(backend.host(correlate(ax, aw, None, geometry, groups, "rows")), expected.detach().numpy(), "float64", "y")
    close(backend.host(correlate_input_gradient(ady, aw, geometry, groups, "rows")), tx.grad.numpy(), "float64", "dx")
    close(backend.host(correlate_weight_gradient(ax, ady, geometry, groups, "rows")), tw.grad.numpy(), "float64", "dw")


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
@pytest.mark.parametrize("filters", [1, 3, rows.FEW])
def test_every_stride_and_dilation_in_small_tiles(stride: int, dilation: int, filters: int) -> None:
    """What a tile leaves behind in the workspace is nothing to the next one; and remainders of strides meet in every way."""
    for kernel in (1, 2, 5):
        x, w, bias = values(0, (3, 2, 19, 21)), values(1, (filters, 2, kernel, kernel)), values(3, (filters,))
        tx, tw = (torch.from_numpy(a).requires_grad_() for a in (x, w))
        expected = torch.conv2d(tx, tw, None, stride, 3, dilation)
        dy = values(2, tuple(expected.shape))
        expected.backward(torch.from_numpy(dy))
        two = lambda number: (number, number)                   # noqa: E731
        geometry = Geometry((19, 21), two(kernel), two(stride), two(3), two(3), two(dilation), tuple(expected.shape[2:]))
        assert tx.grad is not None and tw.grad is not None
        for workspace in (1, 5000):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rows, "WORKSPACE", workspace)
                y, dw = rows.forward(x, w, None, geometry, 1), rows.weight_gradient(x, dy, geometry, 1)
            close(y, expected.detach().numpy(), "float64", "rows: y")
            close(dw, tw.grad.numpy(), "float64", "rows: dw")
            for more in (0, 10**9):                             # the bias as one more weight, and added
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(im2col, "MORE", more)
                    y = im2col.forward(x, w, bias, geometry, 1, True, workspace)
                shifted = expected.detach().numpy() + bias.reshape(-1, 1, 1)
                close(y, shifted.clip(0), "float64", "max(y + bias, 0)")
            close(im2col.input_gradient(dy, w, geometry, 1, workspace), tx.grad.numpy(), "float64", "dx")
            close(im2col.weight_gradient(x, dy, geometry, 1, workspace), tw.grad.numpy(), "float64", "dw")


@pytest.mark.parametrize(
    ("kernel", "stride", "m", "bound"),
    [(3, 1, 2, 1e-5), (3, 1, 4, 2e-4), (5, 1, 2, 2e-4), (5, 2, 2, 1e-5), (5, 2, 4, 2e-4), (11, 4, 4, 2e-4)],
)
def test_winograds_error_is_bounded(kernel: int, stride: int, m: int, bound: float) -> None:
    """On outputs of variance 1, summed over many channels; the docstring states half of these bounds."""
    rng, side, pad = np.random.default_rng(0), 28 * stride, kernel // 2
    x, w = rng.standard_normal((1, 256, side, side)), rng.standard_normal((128, 256, kernel, kernel)) / (kernel * np.sqrt(256))
    out = (side + 2 * pad - kernel) // stride + 1
    geometry = Geometry((side,) * 2, (kernel,) * 2, (stride,) * 2, (pad,) * 2, (pad,) * 2, (1, 1), (out,) * 2)
    exact = correlate(x, w, None, geometry, 1, "im2col")
    x, w = x.astype(np.float32), w.astype(np.float32)
    assert np.abs(winograd.forward(x, w, None, geometry, m) - exact).max() < bound


def test_weights_changed_in_place_are_seen(backend: Backend) -> None:
    """Transformed filters are kept between calls, but never longer than the filters hold the same numbers."""
    geometry = Geometry((6, 6), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), (6, 6))
    x, w = backend.array(values(0, (2, 3, 6, 6))), backend.array(values(1, (4, 3, 3, 3)))
    for place in ((0, 0, 0, 0), (3, 2, 2, 2)):
        correlate(x, w, None, geometry, 1, "winograd4x4")
        w[place] += 1.0
        y, exact = (correlate(x, w, None, geometry, 1, algorithm) for algorithm in ("winograd4x4", "im2col"))
        close(backend.host(y), backend.host(exact), "float64")


def counting(calls: list[int], **options: Any) -> FilterCache:
    """Its transform of w (O, …) is m·w in an array (1, O, …)."""
    def transform(w: np.ndarray, m: int, out: np.ndarray) -> None:
        calls.append(len(w))
        out[0] = w * m

    return FilterCache(lambda w, m: np.empty((1, *w.shape)), transform, **options)


def test_transformed_filters_go_with_the_filters_and_within_a_limit() -> None:
    calls: list[int] = []
    kept = counting(calls, limit=4000)                          # 1,600 bytes an entry: room for two
    first, second, third = (np.full(100, float(i)) for i in range(3))
    for w in (first, first, second, second):
        np.testing.assert_array_equal(kept.get(w, 2)[0], 2 * w)
    assert len(calls) == 2
    kept.get(third, 2)
    kept.get(first, 2)
    assert len(calls) == 4, "the first was asked for longest ago"
    del w, first, second, third
    assert not kept._entries


def test_threads_transform_filters_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece once, whoever makes it; changed filters anew; the last piece may be smaller."""
    monkeypatch.setattr(filter_cache, "PIECE", 30)              # three of these filters
    calls: list[int] = []
    kept, w = counting(calls), values(0, (100, 10))
    with ThreadPoolExecutor(4) as pool:
        for round_ in range(50):
            w[round_] += 1.0
            calls.clear()
            for got in pool.map(lambda _: kept.get(w, 3), range(4)):
                np.testing.assert_array_equal(got[0], 3 * w)
            assert sorted(calls) == [1] + [3] * 33 and not kept._making


def test_a_failed_transform_is_made_anew() -> None:
    """One thread fails at its piece while another waits for it: that one makes the whole itself."""
    begun, go, calls = threading.Event(), threading.Event(), []

    def transform(w: np.ndarray, m: int, out: np.ndarray) -> None:
        calls.append(m)
        if len(calls) == 1:
            begun.set()
            go.wait(10)
            raise MemoryError
        out[0] = w * m

    kept, w = FilterCache(lambda w, m: np.empty((1, *w.shape)), transform), values(0, (4, 3))
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(kept.get(w, 2))
        except MemoryError as error:
            found.append(error)

    asking = [threading.Thread(target=ask, daemon=True) for _ in range(2)]   # daemons: one that waits for ever fails, and is left
    asking[0].start()
    assert begun.wait(10)
    asking[1].start()
    time.sleep(0.05)
    go.set()
    for thread in asking:
        thread.join(10)
    assert not any(thread.is_alive() for thread in asking)
    assert isinstance(found[0], MemoryError)
    np.testing.assert_array_equal(found[1][0], 2 * w)


def test_the_choice_follows_the_shapes() -> None:
    def chosen(
        channels: int, filters: int, side: int, kernel: int = 3, groups: int = 1, stride: int = 1, count: int = 8,
        what: str = "forward",
    ) -> str:
        out = -(-side // stride)
        pad = (kernel // 2,) * 2
        geometry = Geometry((side, side), (kernel,) * 2, (stride,) * 2, pad, pad, (1, 1), (out, out))
        return choose(count, channels, filters, geometry, groups, what)

    assert chosen(256, 256, 28) == "winograd4x4"
    assert chosen(256, 256, 28, stride=2) == "im2col"
    assert chosen(64, 256, 28, kernel=1) == "pointwise"
    assert chosen(64, 64, 28, groups=64) == "rows"
    assert chosen(96, 256, 55, kernel=5, stride=2) == chosen(3, 64, 224, kernel=11, stride=4) == "winograd4x4"
    assert chosen(256, 256, 14, kernel=5) == "winograd2x2" != chosen(64, 64, 56, kernel=5) == "im2col"
    passes = ("input gradient", "weight gradient", "both gradients")
    beside = [chosen(96, 256, 51, kernel=5, stride=2, what=what) for what in passes]
    assert beside == ["winograd4x4", "im2col", "winograd4x4"]   # dU of all phases is much, unless dy is cut anyway
    few = [chosen(128, 256, 40, kernel=5, stride=2, count=1, what=what) for what in passes[::2]]
    assert few == ["winograd4x4", "im2col"]
    for filters in (6, 16, 32):                                         # of few filters the transforms are all
        assert chosen(3, filters, 224, kernel=5, stride=2) == chosen(8, 16, 112, kernel=5, stride=2) == "im2col"
    assert chosen(32, 32, 112, kernel=5, stride=2) == "winograd4x4" != chosen(16, 32, 56, kernel=5, stride=2)
    assert chosen(3, 32, 224, kernel=5, stride=2) == chosen(3, 96, 224, kernel=7, stride=2) == "im2col"
    # Winograd's transforms would cost more than they save.
    assert chosen(3, 64, 224) == chosen(32, 64, 32) == "rows"
    # Both gradients in one walk save more than one way alone; of maps that tiles do not fill, too.
    assert chosen(64, 128, 14, what="both gradients") == chosen(192, 384, 13) == "winograd4x4" != chosen(64, 128, 14) == "im2col"
    # Lines of whole vectors are worth a product of their own; others only if they are long.
    assert chosen(32, 32, 16) == chosen(32, 32, 30) == "rows" != chosen(32, 32, 20) == "im2col"


def test_an_algorithm_that_cannot_is_refused() -> None:
    geometry = Geometry((6, 6), (5, 5), (1, 1), (2, 2), (2, 2), (1, 1), (6, 6))     # F(4×4, 5×5) would need tiles of 8 × 8
    x, w = np.zeros((1, 2, 6, 6)), np.zeros((2, 2, 5, 5))
    with pytest.raises(ArgumentError, match="winograd4x4 cannot do kernel"):
        correlate(x, w, None, geometry, 1, "winograd4x4")
    plain = {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1)}
    for how, groups, can in (
        ({}, 1, True), ({}, 2, False), ({"dilation": (2, 2)}, 1, False), ({"kernel": (3, 5)}, 1, False),
        ({"kernel": (5, 3), "stride": (2, 1)}, 1, True), ({"stride": (2, 2)}, 1, False), (dict.fromkeys(plain, (3,)), 1, False),
    ):
        assert winograd.fits(geometry._replace(**{**plain, **how}), groups, 4) == can
    with pytest.raises(ArgumentError, match="expected algorithm auto, im2col"):
        correlation.correlate(x, w, None, geometry, 1, "fft")
