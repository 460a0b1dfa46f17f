"""local_response_norm against PyTorch: values, the gradient, invalid calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, check_op, check_refused, values


@given(
    st.tuples(st.integers(0, 3), st.integers(1, 7)), st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(1, 9),
    st.sampled_from([1e-4, 0.5]), st.sampled_from([0.75, 2.0]), st.sampled_from([1.0, 2.0]),
    st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS), st.integers(0, 1000),
)  # fmt: skip
def test_local_response_norm_and_its_gradient(
    backend: Backend, head: tuple[int, int], rest: list[int], size: int, alpha: float, beta: float, k: float, dtype: str,
    layout: str, seed: int,
) -> None:  # fmt: skip
    check_op(
        backend,
        lambda input: F.local_response_norm(input, size, alpha, beta, k),
        lambda input: torch.nn.functional.local_response_norm(input, size, alpha, beta, k),
        {"input": values(seed, (*head, *rest))},
        {"input": lambda a, y, dy: F.local_response_norm_input_gradient(dy, a["input"], size, alpha, beta, k)},
        dtype=dtype,
        layout=layout,
        seed=seed,
    )


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 3, 4), 0), ((2, 3, 4), -1), ((2, 3, 4), 1.5), ((2, 3), 2), ((3,), 2), ((), 2)]
)
def test_invalid_local_response_norm_calls(backend: Backend, shape: tuple[int, ...], size: Any) -> None:
    check_refused(
        lambda: F.local_response_norm(backend.array(np.ones(shape)), size),
        lambda: torch.nn.functional.local_response_norm(torch.ones(shape), size),
        "local_response_norm",
    )


def test_the_gradient_refuses_a_signal_of_the_wrong_shape(backend: Backend) -> None:
    x = backend.array(np.ones((4, 3, 2)))
    for shape in [(4, 3), (4, 3, 1), (1, 3, 2), (3, 4, 2)]:
        dy = backend.array(np.ones(shape))
        check_refused(
            lambda dy=dy: F.local_response_norm_input_gradient(dy, x, 2), None, "local_response_norm_input_gradient"
        )
