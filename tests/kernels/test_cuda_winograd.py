"""Winograd's algorithm as CUDA, launchers and kernels together, against the NumPy path and PyTorch; the choice between ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checking import Backend, close, values
from tests.device_double import DeviceArray, device_module
from tests.kernels import test_algorithms
from tests.kernels.cuda_on_cpu import Cpu, Cublas
from tests.kernels.test_algorithms import SLACK
from tests.kernels.test_cuda_convolution import Case, device, wide_indices
from tinynet import functional as F
from tinynet.backend import current_gpu_options, gpu_options
from tinynet.errors import ArgumentError, DeviceMemoryError
from tinynet.functional._geometry import conv_geometry
from tinynet.kernels.cuda import choice, convolution
from tinynet.kernels.geometry import Geometry


@pytest.fixture(scope="module")
def backend(cuda: Cpu) -> Backend:
    return Backend("cuda on a CPU", device_module)


test_against_pytorch = test_algorithms.test_against_pytorch      # those algorithms that are CUDA here, and the others


@st.composite
def tiled(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], Geometry]:
    """Sizes of x and w, and windows: sizes that tiles of four do not divide, padding of its own on each side, also too wide."""
    count, channels, filters = draw(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 5)))
    low, high = (draw(st.tuples(st.integers(0, 4), st.integers(0, 4))) for _ in range(2))
    size = tuple(max(1, 3 - lo - hi) + draw(st.integers(0, 11)) for lo, hi in zip(low, high, strict=True))
    out = tuple(s + lo + hi - 2 for s, lo, hi in zip(size, low, high, strict=True))
    return (count, channels, *size), (filters, channels, 3, 3), Geometry(size, (3, 3), (1, 1), low, high, (1, 1), out)


@given(tiled(), st.sampled_from(["float64", "float32"]), st.sampled_from([1, 2000, 20000, 64 << 20]), st.booleans())
def test_every_pass_in_chunks_of_every_size(cuda: Cpu, case: Any, dtype: str, workspace: int, wide: bool) -> None:
    before = len(cuda.launches)
    with gpu_options(workspace=workspace), wide_indices(wide):
        Case(*case, 1, 5, dtype).check(0.0 if dtype == "float64" else SLACK["winograd4x4"], "winograd4x4")
    if case[0][0]:
        assert {name.partition("<")[0] for name, _, _ in cuda.launches[before:]} == {
            "winograd_filters", "winograd_input", "winograd_output", "winograd_signal", "winograd_weight_gradient"
        }


def test_what_is_infinite_stays_in_the_tiles_that_see_it(cuda: Cpu) -> None:
    x = np.ones((1, 1, 16, 16), np.float32)
    x[0, 0, 1, 1] = np.inf
    y = F.conv2d(device(x), device(np.ones((1, 1, 3, 3), np.float32)), padding=1, algorithm="winograd4x4").get()[0, 0]
    assert not np.isfinite(y[:3, :3]).any() and np.isfinite(y[4:]).all() and np.isfinite(y[:, 4:]).all()


# A factor is off by 2⁻¹⁰ at most; what the transforms cancel makes some ten times of the 4e-3 that columns have.
@pytest.mark.parametrize("precision, compute", [("tf32", 77), ("float16", 68)])
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_lower_precisions(cuda: Cpu, monkeypatch: pytest.MonkeyPatch, precision: str, compute: int, scale: float) -> None:
    case = Case((2, 4, 9, 7), (6, 4, 3, 3), conv_geometry("conv", (9, 7), (3, 3), 1, 1, 1), 1, 1, "float32")
    monkeypatch.setattr(Cublas, "calls", ())
    (x, w, _, dy), geometry = case.device, case.geometry
    with gpu_options(precision=precision, workspace=9000):
        y = convolution.correlate(x * scale, w, case.device[2] * scale, geometry, 1, algorithm="winograd4x4") / scale
        dx = convolution.correlate_input_gradient(dy * scale, w, geometry, 1, "winograd4x4") / scale
        dw = convolution.correlate_weight_gradient(x, dy * scale, geometry, 1, "winograd4x4") / scale
    for got, expected in ((y, case.y), (dx, case.dx), (dw, case.dw)):
        close(got.get(), expected, "float32", slack=4e-2)
        assert abs(got.get() - expected).max() > SLACK["winograd4x4"]           # it was not float32 after all
    assert set(Cublas.calls) == {compute}


def test_the_workspace_is_bounded(cuda: Cpu, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, empty = [], device_module.empty

    def watched(shape: Any, dtype: Any) -> DeviceArray:
        sizes.append(empty(shape, dtype))
        return sizes[-1]

    monkeypatch.setattr(device_module, "empty", watched)
    x, w = device(np.ones((4, 3, 21, 21), np.float32)), device(np.ones((2, 3, 3, 3), np.float32))
    with gpu_options(workspace=7300):
        F.conv2d(x, w, padding=1, algorithm="winograd4x4")
    y, u, *tiles = sizes
    assert y.shape == (4, 2, 21, 21) and u.shape == (36, 2, 3) and len(tiles) == 15
    each = 36 * 4 * (3 + 2)                                     # bytes of a tile and its products
    assert [t.shape[2] for t in tiles[:2]] == [7300 // each] * 2 and sum(t.shape[2] for t in tiles) == 4 * 6 * 6


@pytest.mark.parametrize("which, what", [(1, "the filters"), (2, "the tiles")])
def test_no_memory_is_told_by_the_allocation_and_the_workspace(
    cuda: Cpu, monkeypatch: pytest.MonkeyPatch, which: int, what: str
) -> None:
    left, empty = [which], device_module.empty

    def fails(shape: Any, dtype: Any) -> DeviceArray:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError
        return empty(shape, dtype)

    monkeypatch.setattr(device_module, "empty", fails)
    x, w = (device(np.ones(shape, np.float32)) for shape in ((1, 3, 8, 8), (2, 3, 3, 3)))
    with pytest.raises(DeviceMemoryError, match=rf"{what} of Winograd's algorithm, \(36, .* takes .* MiB; try .*workspace="):
        F.conv2d(x, w, algorithm="winograd4x4")


def chosen(what: str, n: int, c: int, size: int, o: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1) -> str:
    geometry = conv_geometry("conv", (size, size), (kernel, kernel), stride, padding, 1)
    return choice.choose(what, n, c, o, geometry, groups, np.dtype(np.float32))


def test_the_choice() -> None:
    every = ("forward", "input gradient", "weight gradient")
    for what in every:                                          # many channels, many tiles; then the layers of VGG
        assert chosen(what, 32, 256, 56, 256, 3, 1, 1) == chosen(what, 32, 64, 112, 128, 3, 1, 1) == "winograd4x4"
        assert chosen(what, 32, 256, 56, 256, 3, 2, 1) != "winograd4x4" != chosen(what, 32, 256, 56, 256, 3, 1, 1, 2)
        assert chosen(what, 1, 16, 8, 16, 3, 1, 1) != "winograd4x4"        # so little that launches count
    assert chosen("forward", 32, 3, 224, 64, 3, 1, 1) == "direct" == chosen("forward", 32, 3, 224, 64, 7, 2, 3)
    assert chosen("input gradient", 32, 64, 27, 64, 5, 1, 2) == "direct" != chosen("input gradient", 32, 64, 27, 64, 5, 2, 2)
    assert chosen("weight gradient", 32, 3, 224, 64, 7, 2, 3) == "im2col" == chosen("forward", 64, 512, 27, 1024, 5, 1, 2)
    assert chosen("forward", 32, 512, 14, 8, 3, 1, 1) != "direct"           # eight filters do not fill its tiles


def test_the_choice_keeps_to_the_options() -> None:
    shapes: Any = ("forward", 32, 256, 56, 256, 3, 1, 1)
    for options in ({"precision": "tf32"}, {"precision": "float16"}, {"workspace": 36 * 4 * 256 * 256 - 1}):
        with gpu_options(**options):
            assert chosen(*shapes) == "im2col"
    with gpu_options(workspace=36 * 4 * 256 * 256):
        assert chosen(*shapes) == "winograd4x4"
    geometry = conv_geometry("conv", (56, 56), (3, 3), 1, 1, 1)
    assert choice.choose("forward", 32, 256, 256, geometry, 1, np.dtype(np.float64)) == "im2col"
    assert current_gpu_options().precision == "float32"


def test_auto_takes_what_the_choice_says_and_a_name_takes_that_way(cuda: Cpu, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, dy = (device(values(0, shape).astype(np.float32)) for shape in ((1, 16, 5, 5), (16, 16, 3, 3), (1, 16, 5, 5)))

    def kernels(**how: Any) -> list[set[str]]:
        found = []
        for call in (
            lambda: F.conv2d(x, w, padding=1, **how), lambda: F.conv2d_input_gradient(x.shape, w, dy, padding=1, **how),
            lambda: F.conv2d_weight_gradient(x, w.shape, dy, padding=1, **how),
        ):
            before = len(cuda.launches)
            call()
            found.append({name.partition("<")[0] for name, _, _ in cuda.launches[before:]})
        return found

    columns = [{"im2col", "rows_to_maps"}, {"maps_to_rows", "col2im"}, {"im2col", "maps_to_rows"}]
    there = {"winograd_filters", "winograd_input", "winograd_output"}
    winograd = [there, there, {"winograd_input", "winograd_signal", "winograd_weight_gradient"}]
    direct = [{"direct_conv2d"}, {"direct_conv2d"}, columns[2]]
    assert kernels(algorithm="im2col") == columns
    assert kernels(algorithm="winograd4x4") == winograd
    assert kernels(algorithm="direct") == kernels() == direct   # one launch instead of three or four
    monkeypatch.setattr(choice, "LAUNCH", 0)
    monkeypatch.setattr(choice, "BALANCE", 1e-3)                # operations dear, bytes cheap
    assert kernels() == winograd


def test_implicit_gemm_is_refused_where_it_cannot_be(cuda: Cpu) -> None:
    x, w = np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3))
    for arrays in ((x.astype(np.float32), w.astype(np.float32)), (device(x), device(w))):
        with pytest.raises(ArgumentError, match=r"direct cannot do kernel \(3, 3\).* of float.. here; what can: auto, im2col, "):
            F.conv2d(*arrays, algorithm="direct")
