"""Compile a CUDA source when it is first needed, and launch its kernels.

A kernel is asked for by source and name; CuPy's RawModule compiles it for the dtype and the index type that the arrays call for,
once a device, and keeps the result on disk. Every launch checks what a raw pointer does not tell: one device, C order, sizes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...backend import Array, array_module
from ...errors import DeviceError

THREADS = 256
"""Threads of a block where nothing speaks for another number: enough to hide the latency of memory since Volta."""
_INT = (1 << 31) - (1 << 16)
"""Elements up to which 32-bit indices do, the last block's surplus threads included."""
WINDOW = np.dtype([(name, np.int32, 3) for name in ("size", "kernel", "stride", "low", "dilation", "out")])
Watch = Callable[[str, Sequence[Any], Callable[[], Any]], Any]
"""watch(kernel, its arguments, run) returns what run() does, which it calls once."""
_watch: Watch | None = None
_modules: dict[tuple[Any, int, str, str], Any] = {}
_lock = threading.Lock()


def here(x: Array) -> bool:
    """Whether the kernels of this package run where x lives: on CuPy, or another module that compiles CUDA sources as it does."""
    return hasattr(array_module(x), "RawModule")


def fit(*arrays: Array) -> bool:
    """Whether the kernels run where these arrays live, and take them as they lie in memory."""
    return here(arrays[0]) and all(array.flags.c_contiguous for array in arrays)


@cache
def source(name: str) -> str:
    """The whole text of a source: the page common.cuh, then its own."""
    folder = Path(__file__).parent
    return "".join((folder / page).read_text(encoding="utf-8") for page in ("common.cuh", f"{name}.cu"))


def names() -> list[str]:
    """The sources of this package."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.cu"))


def expression(kernel: str, *types: Any) -> str:
    """The C++ name of a kernel for these template arguments: dtypes, or numbers."""
    c = {"f": "float", "d": "double", "i": "int", "l": "long long", "q": "long long", "H": "unsigned short"}
    return f"{kernel}<{', '.join(str(t) if isinstance(t, int) else c[np.dtype(t).char] for t in types)}>"


def index_type(*counts: int) -> type[np.signedinteger]:
    """What can count these numbers of elements: int32 where all are small enough, int64 otherwise."""
    return np.int32 if max(counts, default=0) <= _INT else np.int64


def block_for(numbers: int) -> int:
    """Threads of a block that adds up so many numbers: a power of two from a warp to THREADS, as block_sum asks."""
    block = 32
    while block < min(numbers, THREADS):
        block *= 2
    return block


def window(geometry: Any) -> np.ndarray:
    """The struct Window of windows over one to three axes, passed to a kernel by value: one element of dtype WINDOW."""
    record = np.zeros((), dtype=WINDOW)
    for name in WINDOW.names or ():
        numbers = tuple(getattr(geometry, name))
        fill = 0 if name == "low" else 1                        # leading axes of size one
        record[name] = (fill,) * (3 - len(numbers)) + numbers
    return record


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Within the block `watch` runs every kernel of this package and every product by cuBLAS, of all threads: to time it, say."""
    global _watch
    before, _watch = _watch, watch
    try:
        yield
    finally:
        _watch = before


def watched(kernel: str, arguments: Sequence[Any], run: Callable[[], Any]) -> Any:
    """run() of what is no kernel of this package, through the watch if there is one."""
    return run() if _watch is None else _watch(kernel, arguments, run)


def beside(x: Array) -> AbstractContextManager[Any]:
    """Within the block the GPU that x is on is the current one: there a kernel runs, whatever the arrays are that it is given."""
    return x.device if hasattr(x.device, "__enter__") else nullcontext()


def launch(
    name: str, kernel: str, types: Sequence[Any], arguments: Sequence[Any], *,
    threads: int, block: int = THREADS, grid: tuple[int, ...] | None = None, also: Sequence[Array] = (),
) -> None:
    """Run a kernel with at least `threads` threads, or `grid` blocks; with no threads at all nothing is done.

    arguments: device arrays in C order, NumPy scalars of exactly the C types, a struct as one NumPy record, or None (a null
    pointer). also: arrays whose addresses are inside a struct. Raises DeviceError if arrays of another device are among them.
    """
    if grid is None:
        grid = (-(-threads // block),)
    if threads == 0 or 0 in grid:
        return
    arrays = [x for x in (*arguments, *also) if x is not None and not isinstance(x, (np.ndarray, np.generic))]
    xp, number = array_module(arrays[0]), arrays[0].device.id
    for x in arrays:
        if x.device.id != number:
            raise DeviceError(
                f"{kernel}: arrays of cuda:{number} and cuda:{x.device.id} were mixed; "
                f'move them together with tinynet.backend.to_device(x, "cuda:{number}")'
            )
        if not x.flags.c_contiguous:
            raise AssertionError(f"{kernel}: an array of shape {x.shape} is not in C order")
    with beside(arrays[0]):
        function = _function(xp, number, name, expression(kernel, *types))
        if _watch is None:
            function(grid, (block,), tuple(arguments))
        else:
            _watch(kernel, (*arguments, *also), lambda: function(grid, (block,), tuple(arguments)))


def _function(xp: Any, device: int, name: str, wanted: str) -> Any:
    key = (xp.RawModule, device, name, wanted)
    found = _modules.get(key)
    if found is None:
        with _lock:
            # --fmad stays on, as in cuBLAS: a product and a sum are rounded once instead of twice.
            module = xp.RawModule(code=source(name), options=("--std=c++17",), name_expressions=(wanted,))
            found = _modules[key] = module.get_function(wanted)
    return found


def dense(x: Array) -> Array:
    """x in C order, as a kernel takes it."""
    return array_module(x).ascontiguousarray(x) if x.ndim else x.reshape(1)
