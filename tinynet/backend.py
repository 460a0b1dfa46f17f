"""NumPy or CuPy: the array module follows the array.

There is no global switch. Code asks `xp = array_module(x)` and calls `xp.sqrt(x)`; arrays on a GPU are CuPy arrays and
stay there. CuPy is looked up only when it has been imported already, or when a CUDA device is asked for by name.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ArgumentError, DeviceError, DtypeError

Array = Any  # numpy.ndarray or cupy.ndarray; no common static type exists


@dataclass(frozen=True)
class Device:
    """A place where arrays live. kind: "cpu" or "cuda". index: number of the GPU (0 on a CPU)."""

    kind: str
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


def _module_of(x: Any) -> Any:
    if isinstance(x, (np.ndarray, np.generic)):
        return np
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return cupy
    # Any other array class that states its module, as the array API standard has it (the tests' device double does).
    namespace = getattr(x, "__array_namespace__", None)
    if namespace is not None and not type(x).__module__.startswith("torch"):
        return namespace()
    if type(x).__module__.startswith("torch"):
        raise DtypeError("expected a NumPy or CuPy array, got a torch.Tensor; convert it first: x.numpy()")
    raise DtypeError(
        f"expected a NumPy or CuPy array, got {type(x).__name__}; convert it first, e.g. numpy.asarray(x, numpy.float32)"
    )


def array_module(*arrays: Any) -> Any:
    """The module (numpy, cupy) that all the given arrays belong to; None among them is passed over.

    Raises DeviceError if they live on different devices, DtypeError if one is no array.
    """
    modules = [_module_of(x) for x in arrays if x is not None]
    if not modules:
        return np
    first = modules[0]
    if any(module is not first for module in modules):
        names = ", ".join(getattr(module, "__name__", str(module)) for module in modules)
        raise DeviceError(
            f"arrays of different devices were mixed ({names}); "
            'move them together with tinynet.backend.to_device(x, "cuda:0") or tinynet.backend.to_host(x)'
        )
    if first is not np and len(modules) > 1:
        numbers = sorted({getattr(getattr(x, "device", None), "id", 0) for x in arrays if x is not None})
        if len(numbers) > 1:
            raise DeviceError(
                f"arrays of {' and '.join(f'cuda:{number}' for number in numbers)} were mixed; "
                f'move them together with tinynet.backend.to_device(x, "cuda:{numbers[0]}")'
            )
    return first


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            f'CUDA was asked for, but CuPy cannot be imported ({error}); install it with pip install "tinynet[cuda12]" '
            'or "tinynet[cuda13]"'
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises its own CUDARuntimeError
        why = str(error).partition("\n")[0]
        if "InsufficientDriver" in why:                         # what it says of a driver too old, and of none at all
            why += "; is there a GPU here, and is its driver new enough for this CuPy? (nvidia-smi tells)"
        raise DeviceError(f"CUDA was asked for, but no GPU can be used: {why}") from None
    if count == 0:
        raise DeviceError("CUDA was asked for, but this machine shows no GPU")
    return cupy


def device(name: str | Device = "cpu") -> Device:
    """The device of that name: "cpu", "cuda" (the first GPU) or "cuda:1".

    Raises DeviceError with the reason if it cannot be used. Never falls back to another.
    """
    if isinstance(name, Device):
        name = str(name)
    kind, colon, number = str(name).partition(":")
    if kind == "cpu" and not colon:
        return Device("cpu")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise DeviceError(f'unknown device "{name}": expected "cpu", "cuda" or "cuda:N"')
    count = _cupy().cuda.runtime.getDeviceCount()
    index = int(number or 0)
    if index >= count:
        raise DeviceError(f'no device "{name}": this machine has {count} GPU(s), cuda:0 to cuda:{count - 1}')
    return Device("cuda", index)


def device_of(x: Array) -> Device:
    """The device that array x lives on."""
    module = array_module(x)
    return Device("cpu") if module is np else Device("cuda", int(getattr(x.device, "id", 0)))


def to_host(x: Array) -> np.ndarray:
    """x as a NumPy array: itself if it is one, otherwise a copy in main memory (waits for the GPU)."""
    return np.asarray(x) if array_module(x) is np else x.get()


def to_device(x: Array, target: str | Device) -> Array:
    """x on that device: itself if it is there already, otherwise a copy."""
    target = device(target)
    if device_of(x) == target:
        return x
    if target.kind == "cpu":
        return to_host(x)
    cupy = _cupy()
    with cupy.cuda.Device(target.index):
        return cupy.asarray(x)


def beside(x: Array, like: Array | None) -> Array:
    """x where the array `like` lives: itself if it is there already, or if like is None; otherwise a copy."""
    if like is None or (array_module(x) is array_module(like) and device_of(x) == device_of(like)):
        return x
    xp = array_module(like)
    if xp is np:
        return to_host(x)
    with xp.cuda.Device(device_of(like).index) if hasattr(xp, "cuda") else nullcontext():
        return xp.asarray(x)


_CPU = Device("cpu")
_current: ContextVar[Device] = ContextVar("device", default=_CPU)


@contextmanager
def on(target: str | Device) -> Iterator[Device]:
    """Within the block, the device is the current one of this thread, and of the threads that Shards start in it.

    CuPy makes new arrays on the current GPU, which is the first one; who computes on another does so in this block.
    """
    target = device(target)
    before = _current.set(target)
    try:
        with _cupy().cuda.Device(target.index) if target.kind == "cuda" else nullcontext():
            yield target
    finally:
        _current.reset(before)


def current_device() -> Device:
    """The device of the innermost `on` block; the CPU outside of all."""
    return _current.get()


def synchronize(target: str | Device = "cpu") -> None:
    """Wait until everything queued on that device has run; a CPU has nothing queued."""
    target = device(target)
    if target.kind == "cuda":
        _cupy().cuda.Device(target.index).synchronize()


PRECISIONS = ("float32", "tf32", "float16")


@dataclass(frozen=True)
class GpuOptions:
    """How a GPU computes; see gpu_options."""

    precision: str = "float32"
    workspace: int = 64 << 20


_gpu_options = [GpuOptions()]
"""Those that hold without a block, and those of the blocks that are open now; the last hold."""
_options_lock = threading.Lock()


@contextmanager
def gpu_options(*, precision: str | None = None, workspace: int | None = None) -> Iterator[GpuOptions]:
    """Within the block, how a GPU computes; None leaves an option as it is. A CPU computes as ever.

    precision: of the products of float32 matrices, those inside convolutions included. "float32"; "tf32": their factors are
        rounded to 10 bits of mantissa; "float16": their factors are stored as float16, each array scaled by a power of two so
        that its largest number fits. The sums are float32 in all three, and so are the results.
    workspace: bytes that the column matrix of a convolution may take, or the tiles of Winograd's algorithm, and beside them its
        filters. Less costs time, more costs memory; of accuracy it costs what Winograd's algorithm does, which needs some room.

    It holds for the whole process, all its threads. Raises ArgumentError for other values.
    """
    if precision is not None and precision not in PRECISIONS:
        raise ArgumentError(f'gpu_options: expected precision "float32", "tf32" or "float16", got {precision!r}')
    if workspace is not None and (isinstance(workspace, bool) or not isinstance(workspace, int) or workspace < 1):
        raise ArgumentError(f"gpu_options: expected workspace in bytes, at least 1, got {workspace!r}")
    with _options_lock:
        before = _gpu_options[-1]
        options = GpuOptions(precision or before.precision, workspace or before.workspace)
        _gpu_options.append(options)
    try:
        yield options
    finally:
        with _options_lock:                                     # blocks of several threads may end in any order
            del _gpu_options[next(i for i, held in enumerate(_gpu_options) if held is options)]


def current_gpu_options() -> GpuOptions:
    """The options that hold now."""
    return _gpu_options[-1]
