"""PyTorch's tensors as a pickle describes them: a storage, and a view on it."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from ..errors import FileError
from .pickles import Constructor, Name, Stateful, fill

# Storage class or dtype → NumPy's type, little endian; bfloat16 is read as whole numbers and widened.
_BFLOAT16 = "bfloat16"
_KINDS = {
    "Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": _BFLOAT16, "Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1",
    "Byte": "u1", "Bool": "?", "ComplexFloat": "c8", "ComplexDouble": "c16",
}
_DTYPES = {
    "float64": "f8", "double": "f8", "float32": "f4", "float": "f4", "float16": "f2", "half": "f2", "bfloat16": _BFLOAT16,
    "int64": "i8", "long": "i8", "int32": "i4", "int": "i4", "int16": "i2", "short": "i2", "int8": "i1", "uint8": "u1",
    "uint16": "u2", "uint32": "u4", "uint64": "u8", "bool": "?", "complex64": "c8", "complex128": "c16",
}
_STORAGES = {
    f"torch.{cuda}{kind}Storage": code for kind, code in _KINDS.items() for cuda in ("", "cuda.")
} | {"torch.storage.UntypedStorage": "u1", "torch.UntypedStorage": "u1"}
MOST_AXES = 64


class Storage:
    """Bytes that tensors are views on, read when the first of them is wanted. size: bytes, as the file states them."""

    def __init__(self, size: int, code: str, read: Callable[[], Any], big: bool = False) -> None:
        self.size, self.code, self.read, self.big = size, code, read, big
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, code: str) -> np.ndarray:
        """All of it as numbers of one kind, (numel,)."""
        if code not in self._arrays:
            self._arrays[code] = numbers(self.read(), code, self.big)
        return self._arrays[code]


class Tensor(NamedTuple):
    """A view on a storage, found to lie within it."""

    storage: Storage
    code: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Read-only; tensors that share a storage share memory. Half precision as float32."""
        x = self.storage.array(self.code)
        if 0 in self.size:
            return np.empty(self.size, x.dtype)
        strides = tuple(step * x.itemsize for step in self.stride)
        return np.lib.stride_tricks.as_strided(x[self.offset :], self.size, strides, writeable=False)


class Rebuilder:
    """The table of names that a file of PyTorch's may mention, and what is made of each.

    budget: bytes of all tensors together, however often they share or repeat a storage.
    """

    def __init__(self, what: str, budget: int) -> None:
        self.what, self.budget, self.stated = what, budget, 0
        names: dict[str, Constructor | None] = {
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_tensor_v3": self.tensor_v3,
            "torch._utils._rebuild_parameter": _first,
            "torch._utils._rebuild_parameter_with_state": _first,
            "torch._tensor._rebuild_from_type_v2": self.from_type,
            "torch.Tensor": None, "torch.nn.parameter.Parameter": None, "torch.nn.parameter.Buffer": None,
            "torch.Size": _size, "torch.device": _device,
        }
        names.update(dict.fromkeys(_STORAGES))
        names.update(dict.fromkeys(f"torch.{dtype}" for dtype in _DTYPES))
        self.known: dict[str, Constructor | None] = {**names, **CONTAINERS, **NUMPY}

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any = False, hooks: Any = None,
        metadata: Any = None,
    ) -> Tensor:
        if not isinstance(storage, Storage):
            raise TypeError("a tensor without a storage")
        return self._view(storage, storage.code, offset, size, stride)

    def tensor_v3(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, metadata: Any = None
    ) -> Tensor:
        if not isinstance(storage, Storage) or not isinstance(dtype, Name):
            raise TypeError("a tensor without a storage or a dtype")
        return self._view(storage, _DTYPES[dtype.removeprefix("torch.")], offset, size, stride)

    def from_type(self, function: Any, kind: Any, arguments: Any, state: Any) -> Any:
        """A tensor that bears attributes of its own, which are left behind."""
        constructor = self.known[function] if isinstance(function, Name) and function.startswith("torch._utils.") else None
        if constructor is None or not isinstance(arguments, tuple):
            raise TypeError("no tensor")
        return constructor(*arguments)

    def _view(self, storage: Storage, code: str, offset: Any, size: Any, stride: Any) -> Tensor:
        """torch.as_strided, within the storage."""
        offset, size, stride = _whole(offset), tuple(map(_whole, size)), tuple(map(_whole, stride))
        if len(size) != len(stride) or len(size) > MOST_AXES:
            raise ValueError(f"{len(size)} sizes and {len(stride)} strides")
        count, item = math.prod(size), item_size(code)
        last = offset + sum((s - 1) * step for s, step in zip(size, stride, strict=True))
        if count and (last + 1) * item > storage.size:
            raise ValueError(f"a tensor {size} reaches beyond its storage of {storage.size:,} bytes")
        self.stated += count * item
        if self.stated > self.budget:
            raise FileError(f"{self.what}: its tensors repeat few bytes to more than {self.budget:,}; it would fill the memory")
        return Tensor(storage, code, offset, size, stride)


def storage_code(name: Any) -> str:
    """What the numbers of a storage class are, e.g. "f4". Raises ValueError for a class that is none."""
    if not isinstance(name, Name) or name not in _STORAGES:
        raise ValueError(f"{name!r} is no storage")
    return _STORAGES[name]


def item_size(code: str) -> int:
    """Bytes of a number."""
    return 2 if code == _BFLOAT16 else np.dtype(code).itemsize


def numbers(content: Any, code: str, big: bool = False) -> np.ndarray:
    """Bytes as numbers (N,), in the machine's order; half precision is widened to float32, which loses nothing."""
    order: Literal["<", ">"] = ">" if big else "<"
    if code == _BFLOAT16:                                       # the upper half of a float32
        wide: np.ndarray = np.frombuffer(content, f"{order}u2").astype(np.uint32) << 16
        return wide.view(np.float32)
    x = np.frombuffer(content, np.dtype(code).newbyteorder(order))
    if code == "?":                                             # a byte that is neither 0 nor 1 is no truth value
        x = np.frombuffer(content, np.uint8) != 0
    return x.astype(np.float32) if code == "f2" else x.astype(x.dtype.newbyteorder("="), copy=False)


# --- containers and NumPy's arrays ------------------------------------------------------------------------------------


def _ordered(pairs: Any = (), *rest: Any) -> OrderedDict[Any, Any]:
    flat = [x for key, value in pairs for x in (key, value)]
    return fill(OrderedDict(), flat)                            # type: ignore[return-value]


def _default(factory: Any = None) -> OrderedDict[Any, Any]:
    return OrderedDict()


def _set(values: Any = ()) -> set[Any]:
    return set(fill({}, [x for value in values for x in (value, None)]))


def _size(sizes: Any) -> tuple[int, ...]:
    return tuple(map(_whole, sizes))


def _device(kind: Any, index: Any = None) -> str:
    return str(kind) if index is None else f"{kind}:{_whole(index)}"


def _first(data: Any, *rest: Any) -> Any:
    """A parameter is its tensor; what it requires and whom it calls is left behind."""
    if not isinstance(data, Tensor):
        raise TypeError("a parameter without a tensor")
    return data


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError("a size, stride or offset that is none")
    return value


class _Dtype(Stateful):
    """numpy.dtype("f4", …): the type's letter and size, and then its byte order."""

    def __init__(self, code: Any, *flags: Any) -> None:
        if not isinstance(code, str) or np.dtype(code).kind not in "fiubc":
            raise ValueError("an array of something other than numbers")
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("a type without its byte order")
        self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray(Stateful):
    """An array of NumPy's: one that the pickle makes empty first, and then gives its shape, type and bytes."""

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = array

    @classmethod
    def empty(cls, *arguments: Any) -> NumpyArray:
        return cls()

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.array = _frombuffer(content, dtype, shape, "F" if fortran else "C")


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise TypeError("an array without its type")
    content = content.encode("latin-1") if isinstance(content, str) else content
    x = np.frombuffer(content, dtype.dtype).reshape(_size(shape), order=order)
    half = x.dtype.kind == "f" and x.dtype.itemsize == 2
    return x.astype(np.float32 if half else x.dtype.newbyteorder("="))


def _made(content: Any, dtype: Any, shape: Any, order: Any = "C") -> NumpyArray:
    return NumpyArray(_frombuffer(content, dtype, shape, order))


def _scalar(dtype: Any, content: Any) -> NumpyArray:
    return _made(content, dtype, ())


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8") or not isinstance(text, str):
        raise ValueError("bytes in another encoding than latin1")
    return text.encode(encoding)


CONTAINERS: dict[str, Constructor | None] = {"collections.OrderedDict": _ordered, "collections.defaultdict": _default}
for _module in ("builtins", "__builtin__"):
    CONTAINERS.update({f"{_module}.set": _set, f"{_module}.frozenset": _set, f"{_module}.complex": complex})
    CONTAINERS.update(dict.fromkeys(f"{_module}.{kind}" for kind in ("dict", "list", "int", "float")))
NUMPY: dict[str, Constructor | None] = {"numpy.ndarray": None, "numpy.dtype": _Dtype, "_codecs.encode": _encode}
for _module in ("numpy.core", "numpy._core"):
    NUMPY.update({
        f"{_module}.multiarray._reconstruct": NumpyArray.empty, f"{_module}.multiarray.scalar": _scalar,
        f"{_module}.numeric._frombuffer": _made,
    })
