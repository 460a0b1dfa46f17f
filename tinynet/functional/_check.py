"""What every op asks of its arguments, and the one-line errors that say what is wrong."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..errors import ArgumentError, DtypeError, ShapeError

_FLOATS = "fd"                                                 # what dtype.char says for float32 and float64


def check_floats(op: str, **arrays: Array | None) -> Any:
    """The array module of the given arrays, all float32 or all float64 and on one device. All but the first may be None."""
    first = next(iter(arrays))
    if arrays[first] is None:
        check_array(op, first, None)
    given = {name: x for name, x in arrays.items() if x is not None}
    try:
        xp = array_module(*given.values())
    except DtypeError:
        for name, x in given.items():
            check_array(op, name, x)
        raise
    for name, x in given.items():
        if x.dtype.char not in _FLOATS:
            raise DtypeError(f"{op}: expected {name} of float32 or float64, got {x.dtype}; convert with .astype first")
        if x.dtype != given[first].dtype:
            wide = name if x.dtype.char == "d" else first       # NumPy's default is what is there unasked
            raise DtypeError(
                f"{op}: expected one dtype, got {first} of {given[first].dtype} and {name} of {x.dtype}; "
                f"convert one of them, such as {wide}.astype(numpy.float32)"
            )
    return xp


def check_array(op: str, name: str, x: Any) -> None:
    """x must be an array; None is none."""
    if x is None:
        raise DtypeError(f"{op}: {name}: expected a NumPy or CuPy array, got None")
    try:
        array_module(x)
    except DtypeError as error:
        raise DtypeError(f"{op}: {name}: {error}") from None


def generator(rng: Any) -> np.random.Generator:
    """rng if it draws random numbers; None: a fresh generator, which cannot be repeated. A seed is refused: 0 is no None."""
    if rng is None:
        return np.random.default_rng()
    if not isinstance(rng, np.random.Generator):
        raise ArgumentError(f"expected a numpy.random.Generator, such as numpy.random.default_rng(0), got {rng!r}")
    return rng


def check_indices(op: str, name: str, indices: Array) -> None:
    """indices must be an int64 array."""
    if str(getattr(indices, "dtype", None)) != "int64":
        raise DtypeError(f"{op}: expected {name} of int64, got {getattr(indices, 'dtype', type(indices).__name__)}")


def integer(op: str, name: str, value: Any, low: int | None = None) -> int:
    """value as an int that is at least low; a float is refused even if it is whole, as PyTorch does."""
    try:
        number = operator.index(value)
    except TypeError:
        raise DtypeError(f"{op}: expected {name} to be an integer, got {value!r}") from None
    if low is not None and number < low:
        raise ArgumentError(f"{op}: expected {name} of at least {low}, got {number}")
    return number


def integers(op: str, name: str, value: Any, n: int, low: int | None = None) -> tuple[int, ...]:
    """value as n ints: one int (or a sequence of one) stands for all axes."""
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, n):
            raise ArgumentError(f"{op}: expected {name} to be one integer or {n}, got {tuple(value)}")
        numbers = tuple(integer(op, name, v, low) for v in value)
        return numbers * n if len(numbers) == 1 else numbers
    return (integer(op, name, value, low),) * n


def batched(op: str, name: str, x: Array, n: int) -> tuple[Array, bool]:
    """x with a batch axis, and whether it had none: (C, *n sizes) becomes (1, C, *n sizes)."""
    if x.ndim == n + 2:
        return x, False
    if x.ndim == n + 1:
        return x[None], True
    axes = ", ".join(["D", "H", "W"][3 - n :])
    raise ShapeError(f"{op}: expected {name} (N, C, {axes}) or (C, {axes}), got {tuple(x.shape)}")


def axis(op: str, name: str, value: Any, ndim: int) -> int:
    """value as an axis 0 … ndim−1; a scalar counts as one axis, as in PyTorch."""
    number, count = integer(op, name, value), max(ndim, 1)
    if not -count <= number < count:
        raise ArgumentError(f"{op}: expected {name} from {-count} to {count - 1}, got {number}")
    return number % count


def same_shape(op: str, **arrays: Array) -> None:
    """All given arrays must have one shape: nothing is broadcast silently."""
    (first, x), *rest = arrays.items()
    for name, other in rest:
        if tuple(other.shape) != tuple(x.shape):
            raise ShapeError(f"{op}: expected {name} {tuple(x.shape)} as {first} is, got {tuple(other.shape)}")


def check_signal(op: str, dy: Array, expected: Sequence[int]) -> None:
    """dy, what arrives from above, must have the shape of the op's output."""
    if tuple(dy.shape) != tuple(expected):
        raise ShapeError(f"{op}: expected dy {tuple(expected)}, the shape of the output, got {tuple(dy.shape)}")


def choice(op: str, name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """value must be one of the allowed words."""
    if value not in allowed:
        words = ", ".join(f'"{word}"' for word in allowed)
        raise ArgumentError(f"{op}: expected {name} to be one of {words}, got {value!r}")
    return value
