"""The CUDA max-pooling and the ways back over its switches, against the NumPy path; ties, NaN, infinities, every meeting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checking import Backend, close, ties, values
from tests.device_double import device_module
from tests.functional.test_max_pool import poolings
from tests.kernels.cuda_on_cpu import Cpu
from tests.kernels.test_cuda_convolution import wide_indices
from tests.nn import test_pool
from tinynet import functional as F
from tinynet import nn
from tinynet.functional._geometry import pool_geometry
from tinynet.functional.max_pool import max_pool_switches, scatter_add, scatter_max, unpooled_by
from tinynet.kernels.cuda import max_pool


@pytest.fixture(scope="module")
def backend(cuda: Cpu) -> Backend:
    return Backend("cuda on a CPU", device_module)


@given(poolings(), st.sampled_from(["float64", "float32"]), st.sampled_from(["ties", "special", "plain"]), st.booleans())
def test_value_switches_and_every_way_back(cuda: Cpu, case: dict[str, Any], dtype: str, kind: str, wide: bool) -> None:
    n, shape, options = case["n"], case["input"], case["options"]
    shape = shape if len(shape) == n + 2 else (1, *shape)
    x = {"ties": ties, "plain": values, "special": lambda seed, s: values(seed, s, 0.4)}[kind](case["seed"], shape).astype(dtype)
    y, switches = getattr(F, f"max_pool{n}d")(x, return_indices=True, **options)
    geometry = pool_geometry("pool", shape[2:], **options)
    with wide_indices(wide):
        got, indices = max_pool.max_pool(device_module.asarray(x), geometry, True)
        alone, nothing = max_pool.max_pool(device_module.asarray(x), geometry, False)
        np.testing.assert_array_equal(got.get(), y)
        np.testing.assert_array_equal(alone.get(), y)
        np.testing.assert_array_equal(indices.get(), switches)
        assert nothing is None and got.dtype == x.dtype and indices.dtype == np.int64
        if ((switches < 0) | (switches >= np.prod(shape[2:]))).any():
            return                                              # windows of nothing but padding: no way back
        for signal in (values(case["seed"] + 1, y.shape), ties(case["seed"], y.shape)):
            signal = signal.astype(dtype)
            overwritten = np.zeros((*shape[:2], int(np.prod(shape[2:]))), dtype)
            flat = (*y.shape[:2], int(np.prod(y.shape[2:])))
            flat_signal, flat_switches = signal.reshape(flat), switches.reshape(flat)
            for p in range(flat_signal.shape[2]):               # the last one stays
                np.put_along_axis(overwritten, flat_switches[:, :, p : p + 1], flat_signal[:, :, p : p + 1], 2)
            expected = {
                "sum": scatter_add(signal, switches, shape, n), "largest": scatter_max(signal, switches, shape, n),
                "overwrite": overwritten.reshape(shape),
            }
            for meeting, want in expected.items():
                for windows in (None, geometry):
                    if windows is not None and np.isneginf(y).any():            # perhaps a window of nothing but padding
                        if meeting == "overwrite":
                            continue
                        small = max_pool_switches("pool", n, x, **options)[1]
                        want = unpooled_by("pool", signal, small, shape, n, meeting)
                    back = max_pool.unpool(device_module.asarray(signal), indices, shape, n, meeting, windows)
                    close(back.get(), want, dtype, meeting)


def test_any_switches_at_all_are_unpooled(cuda: Cpu) -> None:
    rng = np.random.default_rng(0)
    signal, switches = rng.standard_normal((2, 3, 40)), rng.integers(0, 7, (2, 3, 40))
    wanted = {"sum": scatter_add(signal, switches, (2, 3, 7), 1), "largest": scatter_max(signal, switches, (2, 3, 7), 1)}
    for meeting, want in wanted.items():
        got = max_pool.unpool(device_module.asarray(signal), device_module.asarray(switches), (2, 3, 7), 1, meeting)
        np.testing.assert_allclose(got.get(), want, rtol=1e-12)


def test_the_sum_is_the_adjoint_of_the_pooling(cuda: Cpu) -> None:
    x = values(0, (2, 3, 9, 8))
    geometry = pool_geometry("pool", (9, 8), 3, 2, 1, 1, False)
    y, switches = max_pool.max_pool(device_module.asarray(x), geometry, True)
    dy = values(1, y.shape)
    dx = max_pool.unpool(device_module.asarray(dy), switches, x.shape, 2, "sum", geometry)
    assert (dx.get() * x).sum() == pytest.approx((dy * y.get()).sum(), rel=1e-12)


@given(poolings(), st.sampled_from(["own", "any", "strays"]), st.booleans())
def test_whose_windows_switches_are_of(cuda: Cpu, case: dict[str, Any], kind: str, wide: bool) -> None:
    n, shape = case["n"], case["input"]
    shape = shape if len(shape) == n + 2 else (1, *shape)
    geometry, cells = pool_geometry("pool", shape[2:], **case["options"]), int(np.prod(shape[2:]))
    rng = np.random.default_rng(case["seed"])
    seen = [[                                                   # the cells of every window, counted out
        index for index, at in enumerate(np.ndindex(*geometry.size))
        if all(0 <= (k := q - (p * s - low)) < m * d and k % d == 0 for q, p, s, low, m, d in zip(
            at, place, geometry.stride, geometry.low, geometry.kernel, geometry.dilation, strict=True))
    ] for place in np.ndindex(*geometry.out)]  # fmt: skip
    planes = range(int(np.prod(shape[:2])))
    switches = np.array([[rng.choice(cells if kind == "any" or not own else own) for own in seen] for _ in planes])
    if kind == "strays" and switches.size:
        switches.ravel()[rng.integers(switches.size)] = rng.choice([-1, cells, -(1 << 40), 1 << 40])
    inside = bool(((switches >= 0) & (switches < cells)).all())
    own = all(q in window for row in switches for q, window in zip(row.tolist(), seen, strict=True))
    with wide_indices(wide):
        assert max_pool.lie(device_module.asarray(switches.reshape(*shape[:2], *geometry.out)), geometry) == (inside, own)


def test_the_layers_way_back_and_unpooling_gather_along_windows_and_strange_switches_are_sorted(cuda: Cpu) -> None:
    def launched(call: Any) -> list[str]:
        before = len(cuda.launches)
        call()
        return [name.partition("<")[0] for name, _, _ in cuda.launches[before:]]

    x, layer = device_module.asarray(values(0, (2, 3, 9, 8))), nn.MaxPool2d(3, 2, 1, ceil_mode=True)
    assert launched(lambda: layer.forward(x)) == launched(lambda: layer(x)) == ["max_pool"]
    y, saved = layer.forward(x)
    for meeting, scatter in (("sum", scatter_add), ("largest", scatter_max)):
        assert launched(lambda meeting=meeting: layer.back(saved, y, meeting)) == ["unpool_windows"]
        want = scatter(y.get(), saved.indices.get(), saved.size, 2)
        np.testing.assert_allclose(layer.back(saved, y, meeting).get(), want, rtol=1e-12)
    unpool = lambda switches: F.max_unpool2d(y, switches, 3, 2, 1, (9, 8))  # noqa: E731
    assert launched(lambda: unpool(saved.indices)) == ["stray_switches", "unpool_windows"]
    assert launched(lambda: unpool(saved.indices[:, :, ::-1])) == ["stray_switches", "unpool_sorted"]
    host = [a.get() for a in (y, saved.indices)]
    np.testing.assert_array_equal(unpool(saved.indices).get(), F.max_unpool2d(*host, 3, 2, 1, (9, 8)))


test_a_window_of_nothing_but_padding_passes_nothing_on = test_pool.test_a_window_of_nothing_but_padding_passes_nothing_on
