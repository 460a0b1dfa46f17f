"""The CUDA convolutions, launchers and kernels together, against the NumPy path: all shapes, chunks, precisions, index types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checking import TOLERANCE, close, values
from tests.device_double import DeviceArray, device_module
from tests.functional.test_conv import convolutions
from tests.kernels.cuda_on_cpu import Cpu, Cublas
from tinynet.backend import gpu_options
from tinynet.functional._geometry import conv_geometry
from tinynet.kernels.cuda import convolution, launch
from tinynet.kernels.geometry import Geometry
from tinynet.kernels.im2col import forward, input_gradient, weight_gradient


@contextmanager
def wide_indices(wide: bool) -> Iterator[None]:
    """64-bit indices also where 32 bits would do."""
    with pytest.MonkeyPatch.context() as patch:
        if wide:
            patch.setattr(launch, "_INT", 0)
        yield


def device(x: np.ndarray) -> DeviceArray:
    return device_module.asarray(x)


class Case:
    """Arrays of one convolution, on the host and on the double, and what the NumPy path makes of them."""

    def __init__(
        self, x: tuple[int, ...], w: tuple[int, ...], geometry: Geometry, groups: int, seed: int, dtype: str,
        xp: Any = device_module,
    ) -> None:
        self.geometry, self.groups, self.dtype = geometry, groups, dtype
        host = [values(seed, x), values(seed + 1, w), values(seed + 2, w[:1]), values(seed + 3, (x[0], w[0], *geometry.out))]
        self.host = [array.astype(dtype) for array in host]
        self.device = [xp.asarray(array) for array in self.host]
        exact = [array.astype(np.float64) for array in self.host]
        self.y = forward(exact[0], exact[1], exact[2], geometry, groups)
        self.dx = input_gradient(exact[3], exact[1], geometry, groups)
        self.dw = weight_gradient(exact[0], exact[3], geometry, groups)

    def check(self, slack: float = 0.0, algorithm: str = "auto") -> None:
        (x, w, bias, dy), how = self.device, algorithm
        results = {
            "value": (convolution.correlate(x, w, bias, self.geometry, self.groups, False, how), self.y),
            "value and ReLU": (convolution.correlate(x, w, bias, self.geometry, self.groups, True, how), np.maximum(self.y, 0)),
            "without bias": (
                convolution.correlate(x, w, None, self.geometry, self.groups, False, how),
                self.y - self.host[2].astype(float).reshape(-1, *[1] * len(self.geometry.out)),
            ),
            "input gradient": (convolution.correlate_input_gradient(dy, w, self.geometry, self.groups, how), self.dx),
            "weight gradient": (convolution.correlate_weight_gradient(x, dy, self.geometry, self.groups, how), self.dw),
        }
        for what, (got, expected) in results.items():
            close(got.get(), expected, self.dtype, what, slack)
        for array, before in zip(self.device, self.host, strict=True):
            np.testing.assert_array_equal(array.get(), before)


@given(convolutions(), st.sampled_from(["float64", "float32"]), st.sampled_from([300, 2000, 64 << 20]), st.booleans())
def test_every_convolution_in_chunks_of_every_size(
    cuda: Cpu, case: dict[str, Any], dtype: str, workspace: int, wide: bool
) -> None:
    n, x, w = case["n"], case["input"], case["weight"]
    x = x if len(x) == n + 2 else (1, *x)
    options = {name: value for name, value in case["options"].items() if name != "groups"}
    geometry = conv_geometry("conv", x[2:], w[2:], **options)
    with gpu_options(workspace=workspace), wide_indices(wide):
        Case(x, w, geometry, case["options"]["groups"], case["seed"], dtype).check()


# x, w, stride, padding, dilation, groups
DIRECT = [
    ((1, 1, 1, 1), (16, 1, 1, 1), 2, 0, 1, 1), ((2, 3, 9, 7), (17, 3, 3, 3), 1, 1, 1, 1),
    ((3, 5, 8, 9), (70, 5, 3, 3), 2, 1, 1, 1), ((2, 4, 11, 13), (34, 2, 5, 5), 3, 2, 1, 2),
    ((1, 3, 15, 15), (64, 3, 7, 7), 2, 3, 1, 1), ((2, 2, 9, 9), (16, 2, 2, 3), 1, 2, 2, 1),
    ((1, 3, 23, 23), (96, 3, 11, 11), 4, 2, 1, 1), ((5, 1, 16, 9), (127, 1, 3, 3), 1, 1, 3, 1),
]  # fmt: skip


@pytest.mark.parametrize("x, w, stride, padding, dilation, groups", DIRECT)
def test_implicit_gemm(cuda: Cpu, x: Any, w: Any, stride: int, padding: int, dilation: int, groups: int) -> None:
    before = len(cuda.launches)
    Case(x, w, conv_geometry("conv", x[2:], w[2:], stride, padding, dilation), groups, 7, "float32").check()
    assert sum(name.startswith("direct_conv2d<") for name, _, _ in cuda.launches[before:]) == 3


def test_implicit_gemm_over_many_tiles_of_positions_and_filters(cuda: Cpu) -> None:
    before = len(cuda.launches)
    case = Case((3, 2, 13, 14), (150, 2, 3, 3), conv_geometry("conv", (13, 14), (3, 3), 1, 1, 1), 1, 3, "float32")
    case.check(algorithm="direct")
    grids = [grid for name, grid, _ in cuda.launches[before:] if name.startswith("direct_conv2d<")]
    assert grids == [(5, 2, 1)] * 3 + [(5, 1, 1)]               # and one of the input gradient


# x, w, padding, dilation, groups
DIRECT_BACK = [
    ((2, 34, 9, 7), (5, 34, 3, 3), 1, 1, 1), ((1, 66, 6, 8), (7, 66, 5, 5), 2, 1, 1), ((2, 40, 9, 9), (6, 20, 2, 3), 3, 2, 2),
    ((1, 17, 4, 5), (3, 17, 1, 1), 2, 1, 1), ((3, 16, 8, 5), (4, 16, 4, 2), 0, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("x, w, padding, dilation, groups", DIRECT_BACK)
def test_the_input_gradient_by_implicit_gemm(cuda: Cpu, x: Any, w: Any, padding: int, dilation: int, groups: int) -> None:
    before = len(cuda.launches)
    case = Case(x, w, conv_geometry("conv", x[2:], w[2:], 1, padding, dilation), groups, 9, "float32")
    got = convolution.correlate_input_gradient(*case.device[3:0:-2], case.geometry, groups)
    close(got.get(), case.dx, "float32")
    assert [name.partition("<")[0] for name, _, _ in cuda.launches[before:]] == ["direct_conv2d"]


@pytest.mark.parametrize("groups, multiplier", [(2, 1), (3, 2)])
@pytest.mark.parametrize("size, kernel, stride, padding, dilation", [
    ((7,), (3,), 2, 1, 1), ((4, 4, 4), (3, 3, 3), 2, 0, 1), ((5, 6), (3, 2), (1, 2), (1, 0), (2, 1)),
    ((3, 4, 5), (2, 1, 3), 1, 1, 1), ((1, 1), (1, 1), 1, 0, 1),
])  # fmt: skip
def test_depthwise_has_its_own_kernels(
    cuda: Cpu, groups: int, multiplier: int, size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> None:
    geometry, before = conv_geometry("conv", size, kernel, stride, padding, dilation), len(cuda.launches)
    Case((3, groups, *size), (groups * multiplier, 1, *kernel), geometry, groups, 5, "float64").check()
    assert {name.partition("<")[0] for name, _, _ in cuda.launches[before:]} == {
        "depthwise", "depthwise_input_gradient", "depthwise_weight_gradient", "bias_relu"
    }


def test_a_pointwise_convolution_gathers_nothing(cuda: Cpu) -> None:
    before = len(cuda.launches)
    case = Case((2, 4, 3, 5), (6, 2, 1, 1), conv_geometry("conv", (3, 5), (1, 1), 1, 0, 1), 2, 1, "float64")
    convolution.correlate(*case.device[:3], case.geometry, 2)
    convolution.correlate_input_gradient(case.device[3], case.device[1], case.geometry, 2)
    assert [name.partition("<")[0] for name, _, _ in cuda.launches[before:]] == ["bias_relu"]
    case.check()


@pytest.mark.parametrize("precision, compute, slack", [("tf32", 77, 4e-3), ("float16", 68, 4e-3)])
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_lower_precisions_are_near_whatever_the_scale(
    cuda: Cpu, monkeypatch: pytest.MonkeyPatch, precision: str, compute: int, slack: float, scale: float
) -> None:
    # A factor is off by 2⁻¹⁰ at most, so a product by 2⁻⁹, and a sum of 18 or 60 of them by some of that: 4e-3 of the scale.
    geometry = conv_geometry("conv", (6, 5), (3, 3), 1, 1, 1)
    case = Case((2, 4, 6, 5), (6, 2, 3, 3), geometry, 2, 1, "float32")
    monkeypatch.setattr(Cublas, "calls", ())
    w, bias = case.device[1:3]
    with gpu_options(precision=precision, workspace=1500):
        y = convolution.correlate(case.device[0] * scale, w, bias * scale, geometry, 2) / scale
        dx = convolution.correlate_input_gradient(case.device[3] * scale, w, geometry, 2) / scale
        dw = convolution.correlate_weight_gradient(case.device[0], case.device[3] * scale, geometry, 2) / scale
    for got, expected in ((y, case.y), (dx, case.dx), (dw, case.dw)):
        close(got.get(), expected, "float32", slack=slack)
        assert abs(got.get() - expected).max() > TOLERANCE["float32"]       # it was not float32 after all
    assert set(Cublas.calls) == {compute} and len(Cublas.calls) > 6


def test_float64_and_zeros_have_no_lower_precision(cuda: Cpu) -> None:
    geometry = conv_geometry("conv", (4,), (3,), 1, 0, 1)
    with gpu_options(precision="float16"):
        Case((1, 2, 4), (3, 2, 3), geometry, 1, 1, "float64").check()
        zero = device(np.zeros((1, 2, 4), np.float32))
        y = convolution.correlate(zero, device(np.ones((3, 2, 3), np.float32)), None, geometry, 1)
    assert (y.get() == 0).all()


def test_the_workspace_is_bounded(cuda: Cpu, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry, sizes, empty = conv_geometry("conv", (9, 9), (3, 3), 1, 1, 1), [], device_module.empty

    def watched(shape: Any, dtype: Any) -> DeviceArray:
        sizes.append(empty(shape, dtype))
        return sizes[-1]

    monkeypatch.setattr(device_module, "empty", watched)
    x, w = device(np.ones((4, 3, 9, 9))), device(np.ones((2, 3, 3, 3)))
    with gpu_options(workspace=5000):
        convolution.correlate(x, w, None, geometry, 1)
    y, columns = sizes                                          # every chunk uses the same memory
    assert y.shape == (4, 2, 9, 9) and 5000 - 27 * 8 < columns.nbytes <= 5000


@pytest.mark.parametrize("n, c, o, groups, size, images", [
    (3, 5, 7, 1, (4, 3), (3, 1)), (1, 4, 2, 1, (5,), (1,)), (7, 6, 9, 3, (3, 2, 2), (7, 2)), (4, 2, 1, 1, (1, 9), (4, 3)),
])  # fmt: skip
@pytest.mark.parametrize("precision, dtype", [
    ("float32", "float32"), ("float32", "float64"), ("tf32", "float32"), ("float16", "float32"),
])  # fmt: skip
def test_the_weight_gradient_of_1x1_gathers_nothing(
    cuda: Cpu, n: int, c: int, o: int, groups: int, size: tuple[int, ...], images: tuple[int, ...], precision: str,
    dtype: str,
) -> None:
    geometry = conv_geometry("conv", size, (1,) * len(size), 1, 0, 1)
    x, dy = values(0, (n, c, *size)).astype(dtype), values(1, (n, o, *size)).astype(dtype)
    expected = weight_gradient(x.astype(np.float64), dy.astype(np.float64), geometry, groups)
    for together in images:                                     # by the bound of the workspace
        seen: list[tuple[str, int]] = []

        def watch(kernel: str, arguments: Any, run: Any, seen: list[tuple[str, int]] = seen) -> Any:
            seen.append((kernel, len(arguments[0])))
            return run()

        workspace = together * o * c // groups * np.dtype(dtype).itemsize
        with gpu_options(precision=precision, workspace=workspace), launch.watching(watch):
            first, second = (convolution.correlate_weight_gradient(device(x), device(dy), geometry, groups) for _ in range(2))
        assert seen == 2 * [("product", min(together, n - i)) for i in range(0, n, together)]
        np.testing.assert_array_equal(first.get(), second.get())
        # As in test_lower_precisions_are_near: a product is off by 2⁻⁹ at most.
        close(first.get(), expected, dtype, slack=0.0 if precision == "float32" else 4e-3)


@pytest.mark.parametrize("precision, slack", [("float32", 0.0), ("tf32", 4e-3), ("float16", 4e-3)])
def test_a_1x1_kernel_is_one_matrix_for_all_images_in_every_precision(cuda: Cpu, precision: str, slack: float) -> None:
    case = Case((3, 5, 3, 2), (4, 5, 1, 1), conv_geometry("conv", (3, 2), (1, 1), 1, 0, 1), 1, 1, "float32")
    before = len(cuda.launches)
    with gpu_options(precision=precision):
        convolution.correlate_input_gradient(case.device[3], case.device[1], case.geometry, 1)
        convolution.correlate(*case.device[:3], case.geometry, 1)
        assert [name.partition("<")[0] for name, _, _ in cuda.launches[before:]] == ["bias_relu"]
        case.check(slack)


@pytest.mark.parametrize("algorithm", ["im2col", "winograd4x4"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_product_copies_a_transposed_factor(
    cuda: Cpu, monkeypatch: pytest.MonkeyPatch, algorithm: str, dtype: str
) -> None:
    """CuPy's matmul of more than two axes copies what is not in C order, columns among them. It is not asked for that."""
    matmul = device_module.matmul

    def strict(a: DeviceArray, b: DeviceArray, **out: Any) -> DeviceArray:
        assert a.ndim == 2 or (a.flags.c_contiguous and b.flags.c_contiguous and a.shape[:-2] == b.shape[:-2])
        return matmul(a, b, **out)

    monkeypatch.setattr(device_module, "matmul", strict)
    groups = 1 if algorithm == "winograd4x4" else 2
    Case((2, 4, 6, 5), (6, 4 // groups, 3, 3), conv_geometry("conv", (6, 5), (3, 3), 1, 1, 1), groups, 1, dtype).check(
        1e-4 if algorithm == "winograd4x4" and dtype == "float32" else 0.0, algorithm)
    Case((2, 4, 6, 5), (6, 4, 1, 1), conv_geometry("conv", (6, 5), (1, 1), 1, 0, 1), 1, 1, dtype).check()


def test_the_weight_gradient_of_1x1_over_few_cells_goes_by_columns(cuda: Cpu) -> None:
    """Of 2×2 maps with 9 channels the products of all images are larger than the maps."""
    geometry, seen = conv_geometry("conv", (2, 2), (1, 1), 1, 0, 1), []
    x, dy = values(0, (3, 9, 2, 2)), values(1, (3, 9, 2, 2))

    def watch(kernel: str, arguments: Any, run: Any) -> Any:
        seen.append(kernel)
        return run()

    with launch.watching(watch):
        found = convolution.correlate_weight_gradient(device(x), device(dy), geometry, 1)
    assert seen == ["im2col", "maps_to_rows", "product"]
    close(found.get(), weight_gradient(x, dy, geometry, 1), "float64")
