"""CUDA sources on a CPU: a RawModule as CuPy's that compiles them as C++, so that launchers and kernels are tested together.

`Cpu(folder).module()` is the device double with a RawModule (and the one cuBLAS call that tinynet makes): arrays of it take the
path of a GPU through tinynet.kernels.cuda, and shim.h runs the kernels. It is strict where a GPU is silent: every argument must
have the C type of its parameter, arrays lie between guards that hold NaN, the bounds of a launch are checked, and the undefined
behaviour sanitiser is on, the address sanitiser too where its library was loaded with Python.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.device_double import DeviceArray, _Ufunc, device_module
from tinynet.kernels.cuda.convolution import direct_kernels

COMPILER = shutil.which("g++")
_LETTERS = {"f": "f", "d": "d", "i": "i", "q": "l", "H": "H", "B": "?"}      # letters of shim.h to numpy's


def kernels(source: str) -> dict[str, tuple[list[str], bool]]:
    """Name of each kernel in a source → (its template parameters, whether it has barriers)."""
    found = {}
    parts = re.split(r"(?=template <[^>]*>\s*__global__)", source)
    for part in parts[1:]:
        head = re.match(r"template <([^>]*)>\s*__global__ void\s+(?:__launch_bounds__\([^\n]*\)\s+)?(\w+)\(", part)
        assert head, part[:200]
        parameters = [parameter.split()[-1] for parameter in head[1].split(",")]
        found[head[2]] = parameters, bool(re.search(r"__syncthreads|block_sum|block_max", part))
    return found


def versions(source: str) -> list[tuple[str, bool]]:
    """(C++ name, whether it has barriers) of every version of every kernel of a source that tinynet can ask for."""
    every = []
    for name, (parameters, barriers) in kernels(source).items():
        if parameters == ["T"]:
            every += [(f"{name}<{t}>", barriers) for t in ("float", "double")]
        elif parameters == ["I"]:
            every += [(f"{name}<{i}>", barriers) for i in ("int", "long long")]
        elif parameters == ["T", "I"]:
            types = ("float", "double", *(("unsigned short",) if name in ("im2col", "maps_to_rows") else ()))
            every += [(f"{name}<{t}, {i}>", barriers) for t in types for i in ("int", "long long")]
        else:
            every += [(expression, barriers) for expression in direct_kernels() if expression.startswith(f"{name}<")]
    return every


def sanitised() -> bool:
    """Whether the address sanitiser's library was loaded with Python."""
    return hasattr(ctypes.CDLL(None), "__asan_init")


GUARD = 0 if sanitised() else 1024
"""Bytes on both sides of an array that a kernel is given; the sanitiser has its own, and sees reads in them, too."""


class Cpu:
    """Compiles into `folder` and keeps what is compiled. `launches`: (kernel, grid, block) of all launches so far."""

    def __init__(self, folder: Path, optimise: str = "-O1") -> None:
        self.folder, self.optimise = folder, optimise
        self.launches: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
        self._one_at_a_time = threading.Lock()
        self._libraries: dict[str, tuple[ctypes.CDLL, list[tuple[str, bool]]]] = {}

    @contextmanager
    def module(self) -> Iterator[Any]:
        """The device double, able to compile CUDA sources within the block."""
        cpu = self

        class RawModule:
            def __init__(self, *, code: str, options: tuple[str, ...] = (), name_expressions: tuple[str, ...] = ()) -> None:
                assert options == ("--std=c++17",) and isinstance(name_expressions, tuple)
                self.code, self.names = code, name_expressions

            def get_function(self, name: str) -> Any:
                assert name in self.names, f"{name} is none of {self.names}"
                return cpu._function(self.code, name)

        def at(self: Any, *arguments: Any) -> None:
            raise AssertionError(f"{self.__name__}.at: on a GPU by atomics, so chance would decide the order of a sum")

        whole, _Ufunc.at = _Ufunc.at, at                        # type: ignore[method-assign]
        device_module.RawModule = RawModule
        device_module.cuda = SimpleNamespace(cublas=Cublas, get_cublas_handle=lambda: 1)
        try:
            yield device_module
        finally:
            del device_module.RawModule, device_module.cuda
            _Ufunc.at = whole                                   # type: ignore[method-assign]

    def library(self, code: str) -> tuple[ctypes.CDLL, list[tuple[str, bool]]]:
        """The compiled source and its kernels, in order."""
        if code not in self._libraries:
            every = versions(code)
            lines = [f"KERNEL({n}, {str(barriers).lower()}, {name})" for n, (name, barriers) in enumerate(every)]
            number = len(self._libraries)
            path, library = self.folder / f"source_{number}.cpp", self.folder / f"source_{number}.so"
            path.write_text("\n".join(['#include "shim.h"', code, *lines]), encoding="utf-8")
            sanitize = "-fsanitize=undefined" + (",address" if sanitised() else "")
            subprocess.run(
                [COMPILER or "g++", "-std=c++17", self.optimise, "-g1", "-shared", "-fPIC", "-fno-gnu-unique", "-Wall", "-Wextra",
                 "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-misleading-indentation", sanitize,
                 "-fno-sanitize-recover=all", f"-I{Path(__file__).parent}", str(path), "-o", str(library)],
                check=True,
            )
            self._libraries[code] = ctypes.CDLL(str(library)), every
        return self._libraries[code]

    def _function(self, code: str, name: str) -> Any:
        library, every = self.library(code)
        number = [version for version, _ in every].index(name)
        describe, run = library[f"signature_{number}"], library[f"run_{number}"]
        describe.restype = run.restype = ctypes.c_char_p
        letters = describe().decode().split()

        def call(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], *, shared_mem: int = 0) -> None:
            assert len(arguments) == len(letters), f"{name} takes {len(letters)} arguments, got {len(arguments)}"
            grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
            assert 1 <= grid[0] < 1 << 31 and 1 <= grid[1] < 1 << 16 and 1 <= grid[2] < 1 << 16, (name, grid)
            assert 1 <= block[0] * block[1] * block[2] <= 1024 and shared_mem == 0, (name, block)
            self.launches.append((name, grid, block))
            held = [Argument(name, letter, value) for letter, value in zip(letters, arguments, strict=True)]
            addresses = (ctypes.c_void_p * len(held))(*(argument.address for argument in held))
            with self._one_at_a_time:                           # the fibers, and __shared__, are those of one kernel
                error = run((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), addresses, len(self.launches))
            assert error is None, f"{name}: {error.decode()}"
            for argument in held:
                argument.give_back()

        return call


class Argument:
    """One argument of a launch, checked against its parameter; an array's numbers are copied between two guards."""

    def __init__(self, kernel: str, letter: str, value: Any) -> None:
        self.array, self.written = None, letter.startswith("p")
        if letter[0] in "pP":
            if value is None:
                self.memory = np.zeros(1, np.uint64)
            else:
                assert isinstance(value, DeviceArray), f"{kernel}: expected a device array, got {type(value).__name__}"
                expected = np.dtype(_LETTERS[letter[1]])
                assert value.dtype == expected, f"{kernel}: expected an array of {expected}, got {value.dtype}"
                assert value.flags.c_contiguous, f"{kernel}: an array that is not in C order"
                self.array, self.guarded = value._host, np.full(value.nbytes + 2 * GUARD, 0xFF, np.uint8)   # NaN, or −1
                self.guarded[GUARD : GUARD + value.nbytes] = value._host.reshape(-1).view(np.uint8)
                self.memory = np.array([self.guarded.ctypes.data + GUARD], np.uint64)
        elif letter[0] == "s":
            assert isinstance(value, np.ndarray) and value.size == 1 and value.itemsize == int(letter[1:]), f"{kernel}: {value!r}"
            self.memory = value
        else:
            expected = np.dtype(_LETTERS[letter])
            assert isinstance(value, np.generic) and value.dtype == expected, f"{kernel}: expected {expected}, got {value!r}"
            self.memory = np.asarray(value)
        self.address = self.memory.ctypes.data

    def give_back(self) -> None:
        if self.array is None:
            return
        inside = slice(GUARD, GUARD + self.array.nbytes)
        assert (np.delete(self.guarded, inside) == 0xFF).all(), "a kernel wrote beside an array"
        if self.written:
            self.array.reshape(-1).view(np.uint8)[...] = self.guarded[inside]


class Cublas:
    """cublasGemmStridedBatchedEx for float16 and float32 factors with float32 sums, and float64, as cuBLAS has it: in columns."""

    CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_GEMM_DEFAULT = 68, 70, 77, -1
    calls: tuple[int, ...] = ()

    @classmethod
    def gemmStridedBatchedEx(
        cls, handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int,
        strideA: int, B: int, Btype: int, ldb: int, strideB: int, beta: int, C: int, Ctype: int, ldc: int, strideC: int,
        batchCount: int, computeType: int, algo: int,
    ) -> None:
        kinds = {(68, 2, 2, 0), (68, 0, 0, 0), (77, 0, 0, 0), (70, 1, 1, 1)}
        assert handle == 1 and algo == -1 and (computeType, Atype, Btype, Ctype) in kinds
        assert _number(alpha, Ctype) == 1 and _number(beta, Ctype) == 0
        cls.calls = (*cls.calls, computeType)
        for batch in range(batchCount):
            a = _columns(A, Atype, lda, k if transa else m, m if transa else k, batch * strideA)
            b = _columns(B, Btype, ldb, n if transb else k, k if transb else n, batch * strideB)
            c = _columns(C, Ctype, ldc, m, n, batch * strideC)
            a, b = (_tf32(x) if computeType == 77 else x.astype(c.dtype) for x in (a, b))
            c[...] = (a.T if transa else a) @ (b.T if transb else b)


def _number(address: int, kind: int) -> float:
    return float((ctypes.c_double if kind == 1 else ctypes.c_float).from_address(address).value)


def _columns(address: int, kind: int, ld: int, rows: int, columns: int, offset: int) -> np.ndarray:
    """The matrix (rows, columns) whose columns lie ld apart."""
    assert ld >= rows
    dtype = np.dtype([np.float32, np.float64, np.float16][kind])
    count = (columns - 1) * ld + rows
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(address + offset * dtype.itemsize)
    return np.lib.stride_tricks.as_strided(np.frombuffer(memory, dtype), (rows, columns), (dtype.itemsize, ld * dtype.itemsize))


def _tf32(x: np.ndarray) -> np.ndarray:
    """x with 10 bits of mantissa."""
    return (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
