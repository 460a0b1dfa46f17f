"""What the tests of the ops do not reach of the CUDA kernels, with one body for a GPU (`pytest -m gpu`) and for CUDA on a CPU:

every way of a convolution by name, chunks of every size, 64-bit indices, lower precisions, every meeting of switches; and that
the same call gives the same bits. Against the NumPy path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checking import close, values
from tests.functional.test_conv import convolutions
from tests.functional.test_max_pool import poolings
from tests.kernels.test_algorithms import SLACK
from tests.kernels.test_cuda_convolution import DIRECT, DIRECT_BACK, Case, wide_indices
from tests.kernels.test_cuda_winograd import tiled
from tinynet import functional as F
from tinynet.backend import device, gpu_options
from tinynet.errors import DeviceError
from tinynet.functional._along import add_along
from tinynet.functional._geometry import conv_geometry, pool_geometry
from tinynet.functional.max_pool import max_pool_switches, unpooled_by
from tinynet.kernels.cuda import max_pool

WORKSPACES = (1, 2000, 64 << 20)


@pytest.fixture(scope="module", params=["on a CPU", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param != "cupy":
        with request.getfixturevalue("cpu").module() as module:
            yield module
        return
    try:
        device("cuda:0")
    except DeviceError as error:
        pytest.skip(str(error))
    import cupy

    yield cupy


@given(convolutions(), st.sampled_from(["float64", "float32"]), st.sampled_from(WORKSPACES), st.booleans())
def test_columns(xp: Any, case: dict[str, Any], dtype: str, workspace: int, wide: bool) -> None:
    n, x, w = case["n"], case["input"], case["weight"]
    x = x if len(x) == n + 2 else (1, *x)
    options = {name: value for name, value in case["options"].items() if name != "groups"}
    geometry = conv_geometry("conv", x[2:], w[2:], **options)
    with gpu_options(workspace=workspace), wide_indices(wide):
        for algorithm in ("auto", "im2col"):                    # auto: depthwise, too
            Case(x, w, geometry, case["options"]["groups"], case["seed"], dtype, xp).check(algorithm=algorithm)


@pytest.mark.parametrize("x, w, stride, padding, dilation, groups", DIRECT)
def test_implicit_gemm(xp: Any, x: Any, w: Any, stride: int, padding: int, dilation: int, groups: int) -> None:
    Case(x, w, conv_geometry("conv", x[2:], w[2:], stride, padding, dilation), groups, 7, "float32", xp).check(algorithm="direct")


@pytest.mark.parametrize("x, w, padding, dilation, groups", DIRECT_BACK)
def test_the_input_gradient_by_implicit_gemm(xp: Any, x: Any, w: Any, padding: int, dilation: int, groups: int) -> None:
    Case(x, w, conv_geometry("conv", x[2:], w[2:], 1, padding, dilation), groups, 7, "float32", xp).check(algorithm="direct")


@given(tiled(), st.sampled_from(["float64", "float32"]), st.sampled_from(WORKSPACES), st.booleans())
def test_winograd(xp: Any, case: Any, dtype: str, workspace: int, wide: bool) -> None:
    with gpu_options(workspace=workspace), wide_indices(wide):
        Case(*case, 1, 5, dtype, xp).check(0.0 if dtype == "float64" else SLACK["winograd4x4"], "winograd4x4")


# A factor is off by 2⁻¹⁰ at most; what Winograd's transforms cancel makes some ten times of that.
@pytest.mark.parametrize("precision", ["tf32", "float16"])
@pytest.mark.parametrize("algorithm, slack", [("im2col", 4e-3), ("winograd4x4", 4e-2)])
def test_lower_precisions(xp: Any, precision: str, algorithm: str, slack: float) -> None:
    geometry = conv_geometry("conv", (12, 9), (3, 3), 1, 1, 1)
    with gpu_options(precision=precision, workspace=9000):
        Case((2, 8, 12, 9), (16, 8, 3, 3), geometry, 1, 1, "float32", xp).check(slack, algorithm)


@given(poolings(), st.sampled_from(["float64", "float32"]), st.booleans())
def test_switches_and_every_meeting(xp: Any, case: dict[str, Any], dtype: str, wide: bool) -> None:
    n, shape, options = case["n"], case["input"], case["options"]
    shape = shape if len(shape) == n + 2 else (1, *shape)
    x, geometry = values(case["seed"], shape).astype(dtype), pool_geometry("pool", shape[2:], **options)
    y, switches = getattr(F, f"max_pool{n}d")(x, return_indices=True, **options)
    with wide_indices(wide):
        got, indices = max_pool.max_pool(xp.asarray(x), geometry, True)
        np.testing.assert_array_equal(got.get(), y)
        np.testing.assert_array_equal(indices.get(), switches)
        signal = values(case["seed"] + 1, y.shape).astype(dtype)
        small = max_pool_switches("pool", n, x, **options)[1]
        for meeting in ("sum", "largest"):
            expected = unpooled_by("pool", signal, small, shape, n, meeting)
            close(max_pool.unpool(xp.asarray(signal), indices, shape, n, meeting, geometry).get(), expected, dtype, meeting)
            if np.isfinite(y).all():                            # no window of nothing but padding
                close(max_pool.unpool(xp.asarray(signal), indices, shape, n, meeting).get(), expected, dtype, meeting)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_cells_added_along_an_axis(xp: Any, axis: int) -> None:
    dy, places = values(0, (5, 7, 4)), np.array([2, 0, 2, 5, 2, 1, 1])[: (5, 7, 4)[axis]]
    for wide in (False, True):
        with wide_indices(wide):
            got = add_along(xp.asarray(dy), xp.asarray(places), axis, 6).get()
        close(got, add_along(dy, places, axis, 6), "float64")


def test_the_same_call_gives_the_same_bits(xp: Any) -> None:
    rng = np.random.default_rng(0)
    x, w, dy = (
        xp.asarray(rng.standard_normal(shape, dtype=np.float32)) for shape in ((4, 16, 19, 18), (24, 16, 3, 3), (4, 24, 19, 18))
    )
    pooled, switches = F.max_pool2d(x, 3, 2, return_indices=True)
    how: dict[str, Any] = {"padding": 1}
    calls: list[Callable[[], Any]] = [
        lambda: F.max_pool2d_input_gradient(pooled, switches, x.shape),
        lambda: F.interpolate_input_gradient(dy, (4, 24, 7, 9), (19, 18)),
        *(call for algorithm in ("auto", "im2col", "direct", "winograd4x4") for call in (
            lambda a=algorithm: F.conv2d(x, w, algorithm=a, **how),
            lambda a=algorithm: F.conv2d_input_gradient(x.shape, w, dy, algorithm=a, **how),
            lambda a=algorithm: F.conv2d_weight_gradient(x, w.shape, dy, algorithm=a, **how),
        )),
    ]  # fmt: skip
    with gpu_options(workspace=20000):
        for call in calls:
            once = call().get()
            for _ in range(3):
                np.testing.assert_array_equal(call().get(), once)
