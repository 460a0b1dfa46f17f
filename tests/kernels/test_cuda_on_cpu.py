"""What runs CUDA on a CPU here sees the mistakes that it is there to see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.device_double import device_module
from tests.kernels import cuda_on_cpu

HEAD = "template <typename T> __device__ T none(T x) { return x; }\n"


def compiled(xp: Any, body: str) -> Any:
    """A kernel (float* x, int n) with that body."""
    code = f"{HEAD}template <typename T>\n__global__ void kernel(T* x, int n) {{\n{body}\n}}\n"
    module = xp.RawModule(code=code, options=("--std=c++17",), name_expressions=("kernel<float>",))
    return module.get_function("kernel<float>")


def run(folder: Path, body: str) -> np.ndarray:
    """The array x, 0 … 63 before, after one block of 64 threads has run the body."""
    x = device_module.asarray(np.arange(64, dtype=np.float32))
    with cuda_on_cpu.Cpu(folder, "-O0").module() as xp:
        compiled(xp, body)((1,), (64,), (x, np.int32(64)))
    return x.get()


@pytest.fixture(autouse=True)
def _needs_a_compiler() -> None:
    if cuda_on_cpu.COMPILER is None:
        pytest.skip("no g++ here")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A kernel that takes (float*, int)."""
    if cuda_on_cpu.COMPILER is None:
        pytest.skip("no g++ here")
    with cuda_on_cpu.Cpu(tmp_path_factory.mktemp("cuda"), "-O0").module() as xp:
        return compiled(xp, "if ((int)threadIdx.x < n) x[threadIdx.x] = T(0);")


def test_threads_meet_at_barriers(tmp_path: Path) -> None:
    body = """__shared__ T shared[64];
    shared[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if ((int)threadIdx.x < n) x[threadIdx.x] = shared[63 - threadIdx.x];"""
    np.testing.assert_array_equal(run(tmp_path, body), np.arange(64)[::-1])


def test_a_missing_barrier_shows(tmp_path: Path) -> None:
    body = """__shared__ T shared[64];
    shared[threadIdx.x] = x[threadIdx.x];
    if ((int)threadIdx.x < n) x[threadIdx.x] = shared[63 - threadIdx.x];  // __syncthreads"""
    assert (run(tmp_path, body) != np.arange(64)[::-1]).any()


@pytest.mark.parametrize("body, message", [
    ("if (threadIdx.x == 3) return; __syncthreads(); x[0] = n;", "ended while others waited"),
    ("if (threadIdx.x % 2) __syncthreads();\nelse\n__syncthreads();\nx[0] = n;", "different barriers"),
])  # fmt: skip
def test_threads_that_do_not_meet_are_an_error(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        run(tmp_path, body)


def test_what_is_written_or_read_beside_an_array_shows(tmp_path: Path) -> None:
    (tmp_path / "read").mkdir()
    with pytest.raises(AssertionError, match="wrote beside"):
        run(tmp_path, "x[n + threadIdx.x % 2] = T(1);")
    assert np.isnan(run(tmp_path / "read", "x[threadIdx.x] = none(x[n]);")).all()


@pytest.mark.parametrize("arguments", [
    lambda x: (x,), lambda x: (x, 64), lambda x: (x, np.int64(64)), lambda x: (x.astype(np.float64), np.int32(64)),
    lambda x: (x.get(), np.int32(64)), lambda x: (x[::2], np.int32(32)), lambda x: (np.int32(64), x),
])  # fmt: skip
def test_arguments_of_another_type_are_refused(one: Any, arguments: Any) -> None:
    x = device_module.asarray(np.arange(64, dtype=np.float32))
    one((1,), (64,), (x, np.int32(64)))
    assert (x.get() == 0).all()
    with pytest.raises(AssertionError):
        one((1,), (64,), arguments(x))
