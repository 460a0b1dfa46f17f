"""Every CUDA source compiles for every kind of GPU without a warning; as C++ they hold under the address sanitiser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.cuda_on_cpu import COMPILER, kernels, versions
from tinynet.kernels import cuda
from tinynet.kernels.cuda import launch

ROOT = Path(__file__).parents[2]
NVCC = shutil.which("nvcc")


def whole() -> str:
    """All sources in one, and the address of every version of every kernel, so that all are compiled."""
    folder = Path(launch.__file__).parent
    every = [name for source in cuda.names() for name, _ in versions(cuda.source(source))]
    table = ", ".join(f"(const void*)&{name}" for name in every)
    pages = [(folder / page).read_text(encoding="utf-8") for page in ("common.cuh", *(f"{name}.cu" for name in cuda.names()))]
    return "\n".join([*pages, "extern const void* const every[];", f"const void* const every[] = {{{table}}};"])


@pytest.mark.parametrize("architecture", ["sm_75", "sm_120"])         # Turing, the oldest that this nvcc knows, and Blackwell
def test_nvcc_compiles_them_without_a_warning_and_without_a_spill(architecture: str, tmp_path: Path) -> None:
    if NVCC is None:
        pytest.skip("no nvcc here")
    source = tmp_path / "all.cu"
    source.write_text(whole(), encoding="utf-8")
    run = subprocess.run(
        [NVCC, "-std=c++17", "-cubin", f"-arch={architecture}", "-Werror", "all-warnings", "--resource-usage", str(source), "-o",
         str(tmp_path / "all.cubin")], capture_output=True, text=True, check=False,
    )
    assert run.returncode == 0, run.stderr
    report = run.stdout + run.stderr
    count = sum(len(versions(cuda.source(name))) for name in cuda.names())
    assert report.count("Function properties for") == count
    assert report.count("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads") == count, report


def test_nvrtc_compiles_them_as_cupy_asks_it_to() -> None:
    # Through CuPy's own binding, below its RawModule, which asks for a GPU before it compiles.
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="no CuPy here", exc_type=ImportError)
    for name in cuda.names():
        program = nvrtc.createProgram(cuda.source(name), f"{name}.cu", [], [])
        every = [version for version, _ in versions(cuda.source(name))]
        for version in every:
            nvrtc.addNameExpression(program, version)
        try:
            nvrtc.compileProgram(program, ["--std=c++17", "-arch=sm_90"])
        except nvrtc.NVRTCError:
            pytest.fail(f"{name}: {nvrtc.getProgramLog(program)}")
        assert all(nvrtc.getLoweredName(program, version) for version in every)
        assert len(nvrtc.getCUBIN(program)) > 1000


def test_cupy_has_what_the_launchers_call() -> None:
    cupy = pytest.importorskip("cupy", reason="no CuPy here")
    try:
        from cupy_backends.cuda.libs import cublas  # finds and loads the library first
    except ImportError as error:
        pytest.skip(f"no cuBLAS here: {error}")
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)
    assert callable(cupy.cuda.get_cublas_handle) and cupy.cuda.cublas is cublas
    assert (cublas.CUBLAS_COMPUTE_32F, cublas.CUBLAS_COMPUTE_32F_FAST_TF32, cublas.CUBLAS_GEMM_DEFAULT) == (68, 77, -1)
    assert cublas.gemmStridedBatchedEx.__doc__.startswith(
        "gemmStridedBatchedEx(intptr_t handle, int transa, int transb, int m, int n, int k, size_t alpha, size_t A, int Atype, "
        "int lda, long long strideA, size_t B, int Btype, int ldb, long long strideB, size_t beta, size_t C, int Ctype, int ldc, "
        "long long strideC, int batchCount, int computeType, int algo)"
    )
    module = cupy.RawModule(code=cuda.source("pointwise"), options=("--std=c++17",), name_expressions=("bias_relu<float, int>",))
    assert callable(module.get_function)


def test_every_source_is_installed_and_every_kernel_has_a_launcher() -> None:
    import tomllib

    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert packages["tinynet.kernels.cuda"] == ["*.cu", "*.cuh"]
    pages = "".join(path.read_text(encoding="utf-8") for path in Path(launch.__file__).parent.glob("*.py"))
    for name in cuda.names():
        assert kernels(cuda.source(name))
        for kernel in kernels(cuda.source(name)):
            assert f'"{name}", "{kernel}"' in pages, kernel


def test_no_kernel_leaves_the_order_of_a_sum_to_chance() -> None:
    for name in cuda.names():
        code = "\n".join(line.partition("//")[0] for line in cuda.source(name).splitlines())
        assert not re.search(r"atomic|__shfl|clock|cooperative", code), name


@pytest.mark.skipif(COMPILER is None, reason="no g++ here")
def test_no_kernel_reads_or_writes_beside_its_arrays() -> None:
    library = subprocess.check_output([COMPILER or "g++", "-print-file-name=libasan.so"], text=True).strip()
    if not Path(library).is_file():
        pytest.skip("no address sanitiser here")
    families = ("along", "convolution", "dropout", "pooling", "loss_and_norm", "optimiser", "winograd")
    tests = [str(Path(__file__).with_name(f"test_cuda_{family}.py")) for family in families]
    environment = {
        **os.environ, "LD_PRELOAD": library, "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1",
    }
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=few",
         "-k", "not float32", *tests],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
