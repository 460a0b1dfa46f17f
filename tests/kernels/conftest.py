"""A GPU for the tests of the CUDA kernels: the device double, with the sources compiled as C++."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernels import cuda_on_cpu


@pytest.fixture(scope="session")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> cuda_on_cpu.Cpu:
    """The CUDA sources, each compiled as C++ when it is first launched."""
    if cuda_on_cpu.COMPILER is None:
        pytest.skip("no g++ here, which would compile the CUDA sources as C++")
    return cuda_on_cpu.Cpu(tmp_path_factory.mktemp("cuda"), "-O0" if cuda_on_cpu.sanitised() else "-O1")


@pytest.fixture(scope="module")
def cuda(cpu: cuda_on_cpu.Cpu) -> Iterator[cuda_on_cpu.Cpu]:
    """While a module runs, the device double takes the path of a GPU."""
    with cpu.module():
        yield cpu
