"""linear against PyTorch: values, all gradients, invalid calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, check_op, check_refused, close, values


@given(
    st.lists(st.integers(0, 3), max_size=3), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 4)), st.booleans(),
    st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS), st.integers(0, 1000),
)  # fmt: skip
def test_linear_and_its_gradients(
    backend: Backend, leading: list[int], features: int, out: int | None, with_bias: bool, dtype: str, layout: str, seed: int
) -> None:
    # out None: a weight of one axis, one output without an axis of its own; PyTorch takes a scalar bias with it.
    weight_shape = (features,) if out is None else (out, features)
    gradients = {
        "input": lambda a, y, dy: F.linear_input_gradient(dy, a["weight"]),
        "weight": lambda a, y, dy: F.linear_weight_gradient(dy, a["input"]),
    }
    if out is not None:
        gradients["bias"] = lambda a, y, dy: F.linear_bias_gradient(dy)
    check_op(
        backend,
        F.linear,
        torch.nn.functional.linear,
        {
            "input": values(seed, (*leading, features)),
            "weight": values(seed + 1, weight_shape),
            "bias": values(seed + 2, weight_shape[:-1]) if with_bias and out is not None else None,
        },
        gradients,
        dtype=dtype,
        layout=layout,
        seed=seed,
    )


def test_a_weight_of_one_axis_with_a_scalar_bias(backend: Backend) -> None:
    for shape in [(3,), (2, 4, 3)]:  # PyTorch refuses an input of two axes here, and only that
        x, w, b = values(0, shape), values(1, (3,)), np.asarray(0.5)
        expected = torch.nn.functional.linear(torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(b)).numpy()
        close(backend.host(F.linear(*(backend.array(a) for a in (x, w, b)))), expected, "float64")


INVALID = {
    "features differ": ((2, 3), (4, 5), None),
    "an input without axes": ((), (4, 5), None),
    "a weight without axes": ((2, 3), (), None),
    "a weight of three axes": ((2, 3), (4, 3, 1), None),
    "bias for a weight of one axis": ((2, 3), (3,), (3,)),
    "bias of the wrong length": ((2, 3), (4, 3), (3,)),
    "bias as large as the result": ((2, 3), (4, 3), (3, 4)),
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_calls(backend: Backend, what: str) -> None:
    arrays = [None if shape is None else np.zeros(shape) for shape in INVALID[what]]
    check_refused(
        lambda: F.linear(*(None if x is None else backend.array(x) for x in arrays)),
        lambda: torch.nn.functional.linear(*(None if x is None else torch.from_numpy(x) for x in arrays)),
        "linear",
    )


def test_a_bias_that_would_be_broadcast_is_refused(backend: Backend) -> None:
    # PyTorch broadcasts these; tinynet broadcasts nothing silently.
    x, w = backend.array(np.zeros((2, 3))), backend.array(np.zeros((4, 3)))
    for shape in [(1,), (), (2, 4), (1, 4)]:
        check_refused(lambda shape=shape: F.linear(x, w, backend.array(np.zeros(shape))), None, "linear")


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("int64", "float64"), ("float64", "int64"), ("float64", "float32")])
def test_mixed_dtypes(backend: Backend, dtypes: tuple[str, str]) -> None:
    x, w = np.zeros((2, 3), dtypes[0]), np.zeros((4, 3), dtypes[1])
    check_refused(
        lambda: F.linear(backend.array(x), backend.array(w)),
        lambda: torch.nn.functional.linear(torch.from_numpy(x), torch.from_numpy(w)),
        "linear",
    )


def test_gradients_refuse_a_signal_of_the_wrong_shape(backend: Backend) -> None:
    x, w = backend.array(np.zeros((2, 5, 3))), backend.array(np.zeros((4, 3)))
    for shape in [(), (2, 5, 3), (2, 5)]:
        dy = backend.array(np.zeros(shape))
        check_refused(lambda dy=dy: F.linear_input_gradient(dy, w), None, "linear_input_gradient")
    for shape in [(), (2, 4), (5, 2, 4), (2, 5, 1, 4)]:
        dy = backend.array(np.zeros(shape))
        check_refused(lambda dy=dy: F.linear_weight_gradient(dy, x), None, "linear_weight_gradient")
