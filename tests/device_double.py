"""A strict double of a GPU array: an array that lives "elsewhere" and never becomes a NumPy array by itself.

No GPU is needed to find a host/device mistake. `DeviceArray` hides a NumPy array and behaves as `cupy.ndarray` does where
the two differ: conversion to NumPy is refused, operators refuse NumPy arrays, reductions give 0-d arrays and never
scalars, memory from `empty` holds garbage, floating-point trouble is silent. `device_module` is what
`tinynet.backend.array_module` finds for such arrays: it has the functions, and the parameters, of CuPy 14 that are listed
here and no others; `test_device_double.py` holds the list against CuPy's own signatures where CuPy can be imported.

Stricter than CuPy on purpose, since tinynet is to work through the array module alone: NumPy's functions are refused
(CuPy lets `numpy.sum(x)` through by dispatch), an index out of bounds raises (CuPy wraps it), and a host array can be an
index but not a value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

_SCALARS = (bool, int, float, complex, np.generic)

# Parameters of the functions, in CuPy's order. A mark says what the argument must be: "!" a device array,
# "?" a device array or a scalar, "[" a sequence of device arrays, "*" any number of device arrays. Without a mark: no array.
FUNCTIONS = {
    "all": "!a axis ?out keepdims",
    "allclose": "?a ?b rtol atol equal_nan",
    "amax": "!a axis ?out keepdims",
    "amin": "!a axis ?out keepdims",
    "any": "!a axis ?out keepdims",
    "argmax": "!a axis dtype ?out keepdims",
    "argmin": "!a axis dtype ?out keepdims",
    "argsort": "!a axis kind",
    "argwhere": "!a",
    "around": "!a decimals ?out",
    "array_equal": "!a1 !a2 equal_nan",
    "array_split": "!ary indices_or_sections axis",
    "atleast_1d": "*arys",
    "atleast_2d": "*arys",
    "bincount": "!x ?weights minlength",
    "broadcast_arrays": "*args",
    "broadcast_to": "!array shape",
    "clip": "?a ?a_min ?a_max ?out",
    "concatenate": "[tup axis ?out dtype casting",
    "copy": "!a order",
    "copyto": "!dst ?src casting ?where",
    "count_nonzero": "!a axis",
    "cumprod": "!a axis dtype ?out",
    "cumsum": "!a axis dtype ?out",
    "diagonal": "!a offset axis1 axis2",
    "diff": "!a n axis ?prepend ?append",
    "dot": "!a !b ?out",
    "expand_dims": "!a axis",
    "flatnonzero": "!a",
    "flip": "!a axis",
    "hstack": "[tup dtype casting",
    "inner": "!a !b",
    "isclose": "?a ?b rtol atol equal_nan",
    "isin": "!element ?test_elements assume_unique invert",
    "matmul": "*args axes axis keepdims casting dtype signature order ?out",
    "max": "!a axis ?out keepdims",
    "may_share_memory": "!a !b max_work",
    "mean": "!a axis dtype ?out keepdims",
    "median": "!a axis ?out overwrite_input keepdims",
    "min": "!a axis ?out keepdims",
    "moveaxis": "!a source destination",
    "nan_to_num": "?x copy nan posinf neginf",
    "nanmax": "!a axis ?out keepdims",
    "nanmean": "!a axis dtype ?out keepdims",
    "nanmin": "!a axis ?out keepdims",
    "nansum": "!a axis dtype ?out keepdims",
    "ndim": "!a",
    "nonzero": "!a",
    "outer": "!a !b ?out",
    "pad": "!array pad_width mode **kwargs",
    "permute_dims": "!a axes",
    "prod": "!a axis dtype ?out keepdims",
    "put_along_axis": "!arr !indices ?values axis",
    "ravel": "!a order",
    "repeat": "!a repeats axis",
    "reshape": "!a newshape order copy",
    "roll": "!a shift axis",
    "round": "!a decimals ?out",
    "searchsorted": "!a !v side ?sorter",
    "shape": "!a",
    "shares_memory": "!a !b max_work",
    "sort": "!a axis kind",
    "split": "!ary indices_or_sections axis",
    "squeeze": "!a axis",
    "stack": "[tup axis ?out dtype casting",
    "std": "!a axis dtype ?out ddof keepdims",
    "sum": "!a axis dtype ?out keepdims",
    "swapaxes": "!a axis1 axis2",
    "take": "!a ?indices axis ?out",
    "take_along_axis": "!a !indices axis",
    "tensordot": "!a !b axes",
    "tile": "!A reps",
    "transpose": "!a axes",
    "tril": "!m k",
    "triu": "!m k",
    "unique": "!ar return_index return_inverse return_counts axis equal_nan",
    "unravel_index": "?indices dims order",
    "var": "!a axis dtype ?out ddof keepdims",
    "vdot": "!a !b",
    "vstack": "[tup dtype casting",
    "where": "?condition ?x ?y",
    "zeros_like": "!a dtype order subok shape",
    "ones_like": "!a dtype order subok shape",
    "full_like": "!a ?fill_value dtype order subok shape",
}
EINSUM = "einsum"  # (subscripts, *operands)
CREATION = {
    "arange": "start stop step dtype",
    "eye": "N M k dtype order",
    "full": "shape fill_value dtype order",
    "identity": "n dtype",
    "indices": "dimensions dtype",
    "linspace": "start stop num endpoint retstep dtype axis",
    "ones": "shape dtype order",
    "tri": "N M k dtype",
    "zeros": "shape dtype order",
}
TRANSFER = {  # the doors through which host arrays come in
    "array": "obj dtype copy order subok ndmin blocking",
    "asarray": "a dtype order copy blocking",
    "ascontiguousarray": "a dtype",
}
GARBAGE = {"empty": "shape dtype order", "empty_like": "!prototype dtype order subok shape"}
UFUNCS = (  # noqa: SIM905 (a list of words reads better as a sentence)
    "abs absolute add arctan arctan2 bitwise_and bitwise_not bitwise_or bitwise_xor cbrt ceil conj conjugate "
    "copysign cos cosh divide divmod equal exp exp2 expm1 fabs floor floor_divide fmax fmin fmod greater "
    "greater_equal hypot invert isfinite isinf isnan left_shift less less_equal log log10 log1p log2 logaddexp "
    "logical_and logical_not logical_or logical_xor maximum minimum mod modf multiply negative not_equal "
    "positive pow power reciprocal remainder right_shift rint sign signbit sin sinh sqrt square subtract tan "
    "tanh true_divide trunc"
).split()
CONSTANTS = (  # noqa: SIM905 (a list of words reads better as a sentence)
    "pi e inf nan newaxis bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 intp "
    "floating integer generic number dtype finfo iinfo issubdtype isscalar can_cast promote_types "
    "broadcast_shapes"
).split()
LINALG = {"norm": "!x ord axis keepdims", "matmul": "*args"}
METHODS = {
    "all": "axis ?out keepdims",
    "any": "axis ?out keepdims",
    "argmax": "axis ?out dtype keepdims",
    "argmin": "axis ?out dtype keepdims",
    "argsort": "axis kind",
    "astype": "dtype order casting subok copy",
    "clip": "?min ?max ?out",
    "conj": "",
    "copy": "order",
    "cumprod": "axis dtype ?out",
    "cumsum": "axis dtype ?out",
    "diagonal": "offset axis1 axis2",
    "dot": "!b ?out",
    "flatten": "order",
    "max": "axis ?out keepdims",
    "mean": "axis dtype ?out keepdims",
    "min": "axis ?out keepdims",
    "nonzero": "",
    "prod": "axis dtype ?out keepdims",
    "ravel": "order",
    "repeat": "repeats axis",
    "round": "decimals ?out",
    "searchsorted": "!v side ?sorter",
    "squeeze": "axis",
    "std": "axis dtype ?out ddof keepdims",
    "sum": "axis dtype ?out keepdims",
    "swapaxes": "axis1 axis2",
    "take": "?indices axis ?out",
    "var": "axis dtype ?out ddof keepdims",
    "view": "dtype",
}


def _refuse(what: str, value: Any) -> TypeError:
    return TypeError(f"{what}: unsupported type {type(value).__module__}.{type(value).__name__}")


def _device(what: str, value: Any) -> np.ndarray:
    if not isinstance(value, DeviceArray):
        raise _refuse(what, value)
    return value._host


def _device_or_scalar(what: str, value: Any) -> Any:
    return value if value is None or isinstance(value, _SCALARS) else _device(what, value)


def _no_array(what: str, value: Any) -> Any:
    """Sizes, axes, dtypes, …: no array of either kind may hide in them."""
    if isinstance(value, (DeviceArray, np.ndarray)):
        raise _refuse(what, value)
    if isinstance(value, (list, tuple)):
        for part in value:
            _no_array(what, part)
    return value


def _checked(function: str, mark: str, value: Any) -> Any:
    if mark == "!":
        return _device(function, value)
    if mark == "?":
        return _device_or_scalar(function, value)
    if mark == "[":
        if not isinstance(value, (list, tuple)):
            raise _refuse(function, value)
        return [_device(function, part) for part in value]
    return _no_array(function, value)


def _wrap(value: Any) -> Any:
    """What NumPy returned, on the device: arrays and array scalars alike, also inside tuples and lists."""
    if isinstance(value, (np.ndarray, np.generic)):
        return DeviceArray(np.asarray(value))
    if isinstance(value, (list, tuple)):
        return type(value)(_wrap(part) for part in value) if type(value) in (list, tuple) else tuple(map(_wrap, value))
    return value


def _function(name: str, parameters: str, target: Callable[..., Any], start: int = 0) -> Callable[..., Any]:
    """target behind a check of its arguments; start: how many parameters are bound already (self of a method)."""
    marks = {part.lstrip("!?[*"): part[0] if part[0] in "!?[*" else "" for part in parameters.split()}
    variadic = next((key for key, mark in marks.items() if mark == "*" and key != "kwargs"), None)
    order = list(marks)

    def call(*args: Any, **kwargs: Any) -> Any:
        if variadic is not None:
            host_args = [_device(name, arg) for arg in args]
        elif len(args) > len(order):
            raise TypeError(f"{name}() takes {len(order)} arguments, got {len(args)}")
        else:
            host_args = [_checked(name, marks[key], arg) for key, arg in zip(order, args, strict=False)]
        for key in kwargs:
            if key not in marks and "kwargs" not in marks:
                raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
        host_kwargs = {key: _checked(name, marks.get(key, ""), value) for key, value in kwargs.items()}
        out = kwargs.get("out")
        with np.errstate(all="ignore"):
            result = target(*host_args, **host_kwargs)
        return out if out is not None else _wrap(result)

    call.__name__ = name
    return call


class _Ufunc:
    """An elementwise function: device arrays and scalars in, a device array out."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self._target: np.ufunc = getattr(np, name)
        self.nin, self.nout = self._target.nin, self._target.nout

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        unknown = set(kwargs) - {"out", "where", "dtype", "casting"}
        if unknown:
            raise TypeError(f"{self.__name__}() got unexpected keyword arguments {sorted(unknown)}")
        if len(args) < self.nin:
            raise TypeError(f"{self.__name__}() takes {self.nin} inputs, got {len(args)}")
        if any(arg is None for arg in args[: self.nin]):
            raise _refuse(self.__name__, None)
        inputs = [_device_or_scalar(self.__name__, arg) for arg in args[: self.nin]]
        out = kwargs.pop("out", args[self.nin] if len(args) > self.nin else None)
        if out is not None:
            kwargs["out"] = tuple(_device(self.__name__, o) for o in out) if isinstance(out, tuple) else _device(
                self.__name__, out
            )
        if isinstance(kwargs.get("where"), (DeviceArray, np.ndarray)):
            kwargs["where"] = _device(self.__name__, kwargs["where"])
        with np.errstate(all="ignore"):
            result = self._target(*inputs, **kwargs)
        return out if out is not None else _wrap(result)

    def at(self, a: DeviceArray, indices: Any, b: Any = None) -> None:
        if self.__name__ not in ("add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"):
            raise NotImplementedError(f"{self.__name__}.at is not supported")
        self._target.at(_device("at", a), _index(indices), _device_or_scalar("at", b))

    def reduce(self, array: DeviceArray, axis: int = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"{self.__name__}.reduce is not supported")
        if out is not None:
            raise TypeError("reduce: out is not supported by the double")
        return _wrap(self._target.reduce(_device("reduce", array), axis=axis, dtype=dtype, keepdims=keepdims))


def _index(key: Any) -> Any:
    """An index as NumPy takes it: device arrays opened; host arrays and lists pass, as CuPy copies them over."""
    if isinstance(key, tuple):
        return tuple(_index(part) for part in key)
    return key._host if isinstance(key, DeviceArray) else key


class Flags:
    """The memory layout of a device array; a device array is always writeable and does not say so."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous: bool = flags.c_contiguous
        self.f_contiguous: bool = flags.f_contiguous
        self.owndata: bool = flags.owndata

    def __getitem__(self, name: str) -> bool:
        return {"C_CONTIGUOUS": self.c_contiguous, "F_CONTIGUOUS": self.f_contiguous, "OWNDATA": self.owndata}[name]


class DeviceArray:
    """An array on a device that is not there. Made by `device_module.asarray`, brought back by `.get()`."""

    __slots__ = ("_host",)
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray) -> None:
        self._host = host

    # Doors to NumPy: all closed.
    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("implicit conversion to a NumPy array is not allowed; use .get()")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called on a device array; use the array module's")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        # numpy.float32(2) * x arrives here, as it does in CuPy (from a comparison as a 0-d array); numpy.exp(x) and
        # ndarray * x do too, and are refused.
        scalar = len(inputs) == 2 and isinstance(inputs[0], (np.generic, np.ndarray)) and inputs[0].ndim == 0
        if method == "__call__" and scalar and not kwargs:
            return getattr(device_module, ufunc.__name__)(inputs[0][()], inputs[1])
        raise TypeError(f"numpy.{ufunc.__name__} was called on a device array; use the array module's")

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return device_module

    # Doors to the host that one has to open by hand.
    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        if out is not None:
            if out.shape != self.shape or out.dtype != self.dtype:
                raise _refuse("get", out)
            out[...] = self._host
            return out
        return self._host.copy(order=order)  # type: ignore[arg-type]

    def item(self) -> Any:
        return self._host.item()

    def tolist(self) -> Any:
        return self._host.tolist()

    def __bool__(self) -> bool:
        return bool(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return f"DeviceArray({self._host!r})"

    # Attributes.
    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    strides = property(lambda self: self._host.strides)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    flags = property(lambda self: Flags(self._host.flags))
    device = property(lambda self: SimpleNamespace(id=0))
    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data))
    T = property(lambda self: DeviceArray(self._host.T))
    mT = property(lambda self: DeviceArray(self._host.mT))
    real = property(lambda self: DeviceArray(self._host.real))
    base = property(lambda self: None if self._host.base is None else DeviceArray(self._host.base))

    # Indexing.
    def __getitem__(self, key: Any) -> DeviceArray:
        return DeviceArray(np.asarray(self._host[_index(key)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._host[_index(key)] = _device_or_scalar("assignment", value)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (DeviceArray(np.asarray(part)) for part in self._host)

    # Methods that take sizes one by one, or change the array.
    def reshape(self, *shape: Any, order: str = "C") -> DeviceArray:
        return DeviceArray(self._host.reshape(*_no_array("reshape", shape), order=order))  # type: ignore[call-overload]

    def transpose(self, *axes: Any) -> DeviceArray:
        return DeviceArray(self._host.transpose(*_no_array("transpose", axes)))

    def fill(self, value: Any) -> None:
        self._host.fill(_device_or_scalar("fill", value))

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        self._host.sort(axis=axis, kind=kind)

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray) or arr.shape != self.shape or arr.dtype != self.dtype:
            raise _refuse("set", arr)
        self._host[...] = arr

    def __copy__(self) -> DeviceArray:
        return DeviceArray(self._host.copy())

    def __deepcopy__(self, memo: Any) -> DeviceArray:
        return DeviceArray(self._host.copy())


def _add_methods() -> None:
    def method(name: str, parameters: str) -> Callable[..., Any]:
        def call(self: DeviceArray, *args: Any, **kwargs: Any) -> Any:
            return _function(name, parameters, getattr(self._host, name))(*args, **kwargs)

        return call

    def binary(name: str, ufunc: str, reflected: bool) -> Callable[..., Any]:
        def call(self: DeviceArray, other: Any) -> Any:
            operands = (other, self) if reflected else (self, other)
            return getattr(device_module, ufunc)(*operands)

        return call

    def inplace(name: str) -> Callable[..., Any]:
        def call(self: DeviceArray, other: Any) -> Any:
            with np.errstate(all="ignore"):
                getattr(operator, name)(self._host, _device_or_scalar(name, other))
            return self

        return call

    for name, parameters in METHODS.items():
        setattr(DeviceArray, name, method(name, parameters))
    arithmetic = {
        "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
        "mod": "remainder", "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or",
        "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift",
    }  # fmt: skip
    for name, ufunc in arithmetic.items():
        setattr(DeviceArray, f"__{name}__", binary(name, ufunc, reflected=False))
        setattr(DeviceArray, f"__r{name}__", binary(name, ufunc, reflected=True))
        if name != "matmul":  # cupy.ndarray has no in-place matrix product
            setattr(DeviceArray, f"__i{name}__", inplace(f"i{name}"))
    compare = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal"}
    for name, ufunc in compare.items():
        setattr(DeviceArray, f"__{name}__", binary(name, ufunc, reflected=False))
    for name, ufunc in {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}.items():
        setattr(DeviceArray, f"__{name}__", lambda self, ufunc=ufunc: getattr(device_module, ufunc)(self))


def _transfer(name: str, parameters: str) -> Callable[..., Any]:
    def call(value: Any, *args: Any, **kwargs: Any) -> DeviceArray:
        source = value._host if isinstance(value, DeviceArray) else value
        result = _function(name, parameters, lambda *a, **k: getattr(np, name)(source, *a[1:], **k))(None, *args, **kwargs)
        if not isinstance(value, DeviceArray) and isinstance(value, np.ndarray) and np.shares_memory(result._host, value):
            return DeviceArray(result._host.copy())  # a transfer is a copy: nothing on the device shares memory with the host
        return result

    return call


def _garbage(name: str, parameters: str) -> Callable[..., Any]:
    """empty, whose memory holds what was there before: NaN, or numbers that make a mistake loud."""
    make = _function(name, parameters, getattr(np, name))

    def call(*args: Any, **kwargs: Any) -> DeviceArray:
        result = make(*args, **kwargs)
        result._host.fill(np.nan if result.dtype.kind in "fc" else {"b": True, "i": -77, "u": 77}[result.dtype.kind])
        return result

    return call


def _einsum(subscripts: str, *operands: Any, **kwargs: Any) -> DeviceArray:
    if set(kwargs) - {"dtype", "optimize"}:
        raise TypeError(f"einsum() got unexpected keyword arguments {sorted(kwargs)}")
    return _wrap(np.einsum(subscripts, *(_device("einsum", x) for x in operands), **kwargs))


def _result_type(*arrays_and_dtypes: Any) -> np.dtype:
    return np.result_type(*(x._host if isinstance(x, DeviceArray) else _no_array("result_type", x) for x in arrays_and_dtypes))


class _Generator:
    """cupy.random.Generator has no normal, permutation, shuffle or choice."""

    def __init__(self, seed: Any = None) -> None:
        self._host = np.random.default_rng(seed)

    def random(self, size: Any = None, dtype: Any = np.float64) -> DeviceArray:
        return _wrap(np.asarray(self._host.random(size=size, dtype=dtype)))

    def standard_normal(self, size: Any = None, dtype: Any = np.float64) -> DeviceArray:
        return _wrap(np.asarray(self._host.standard_normal(size=size, dtype=dtype)))

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = None) -> DeviceArray:
        return _wrap(np.asarray(self._host.uniform(low, high, size)))

    def integers(self, low: int, high: Any = None, size: Any = None, dtype: Any = np.int64) -> DeviceArray:
        return _wrap(np.asarray(self._host.integers(low, high, size, dtype=dtype)))


def _asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    return a.get(order=order) if isinstance(a, DeviceArray) else np.asarray(a)


def _module() -> SimpleNamespace:
    names: dict[str, Any] = {name: getattr(np, name) for name in CONSTANTS}
    names |= {name: _function(name, parameters, getattr(np, name)) for name, parameters in FUNCTIONS.items()}
    names |= {name: _function(name, parameters, getattr(np, name)) for name, parameters in CREATION.items()}
    names |= {name: _transfer(name, parameters) for name, parameters in TRANSFER.items()}
    names |= {name: _garbage(name, parameters) for name, parameters in GARBAGE.items()}
    names |= {name: _Ufunc(name) for name in UFUNCS}
    tricks = np.lib.stride_tricks
    names["lib"] = SimpleNamespace(
        stride_tricks=SimpleNamespace(
            as_strided=_function("as_strided", "!x shape strides", tricks.as_strided),
            sliding_window_view=_function("sliding_window_view", "!x window_shape axis", tricks.sliding_window_view),
        )
    )
    names["linalg"] = SimpleNamespace(
        **{name: _function(name, parameters, getattr(np.linalg, name)) for name, parameters in LINALG.items()}
    )
    names["random"] = SimpleNamespace(default_rng=_Generator, Generator=_Generator)
    names |= {"einsum": _einsum, "result_type": _result_type, "asnumpy": _asnumpy, "ndarray": DeviceArray}
    return SimpleNamespace(__name__="device_double", **names)


device_module = _module()
_add_methods()
