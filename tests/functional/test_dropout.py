"""dropout: PyTorch's cannot be repeated number by number, so its definition is held to properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import Backend, adjoint, check_op, check_refused, values


@given(
    st.lists(st.integers(0, 4), max_size=4), st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]), st.integers(0, 1000),
    st.sampled_from(["float64", "float32"]),
)  # fmt: skip
def test_dropout_multiplies_by_its_mask_and_so_does_the_gradient(
    backend: Backend, shape: list[int], p: float, seed: int, dtype: str
) -> None:
    x = values(seed, tuple(shape))
    mask = F.dropout_mask(tuple(shape), p, np.random.default_rng(seed), np.dtype(dtype), backend.xp)
    host = backend.host(mask)
    assert host.dtype == dtype and host.shape == x.shape
    kept = 1 / (1 - p) if p < 1 else 0.0
    assert set(np.unique(host)) <= {0.0, np.dtype(dtype).type(kept)}
    assert p != 0.0 or (host == 1).all()
    check_op(
        backend,
        lambda input: F.dropout(input, p, rng=np.random.default_rng(seed)),
        lambda input: input * torch.from_numpy(np.asarray(host, np.float64)),
        {"input": x},
        {"input": lambda a, y, dy: F.dropout_input_gradient(dy, mask)},
        dtype=dtype,
        seed=seed,
    )


@given(st.lists(st.integers(0, 4), max_size=3), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from(["float64", "float32"]))
def test_without_training_nothing_changes(backend: Backend, shape: list[int], p: float, dtype: str) -> None:
    check_op(
        backend,
        lambda input: F.dropout(input, p, training=False),
        lambda input: torch.nn.functional.dropout(input, p, training=False),
        {"input": values(0, tuple(shape))},
        {},
        dtype=dtype,
    )


def test_the_share_of_zeros_is_p_and_the_mean_stays(backend: Backend) -> None:
    n = 200_000
    for p in (0.1, 0.5, 0.8):
        y = backend.host(F.dropout(backend.array(np.ones(n)), p, rng=np.random.default_rng(1)))
        deviation = np.sqrt(p * (1 - p) / n)
        assert abs((y == 0).mean() - p) < 5 * deviation
        assert abs(y.mean() - 1) < 5 * deviation / (1 - p)


def test_the_same_seed_gives_the_same_mask_on_every_device_and_dtype(backend: Backend) -> None:
    expected = F.dropout_mask((50,), 0.5, np.random.default_rng(7), np.float64)
    for dtype in (np.float32, np.float64):
        mask = backend.host(F.dropout_mask((50,), 0.5, np.random.default_rng(7), dtype, backend.xp))
        np.testing.assert_array_equal(mask, expected)
    rng = np.random.default_rng(7)
    first, second = (backend.host(F.dropout(backend.array(np.ones(50)), rng=rng)) for _ in range(2))
    assert (first != second).any()
    a, b = (backend.host(F.dropout(backend.array(np.ones(50)))) for _ in range(2))
    assert (a != b).any()


def test_in_place(backend: Backend) -> None:
    for training in (True, False):
        x = backend.array(values(0, (4, 5)))
        expected = backend.host(F.dropout(x, 0.5, training, rng=np.random.default_rng(0)))
        assert F.dropout(x, 0.5, training, inplace=True, rng=np.random.default_rng(0)) is x
        np.testing.assert_array_equal(backend.host(x), expected)


def test_the_gradient_is_the_adjoint(backend: Backend) -> None:
    x, dy = backend.array(values(0, (6, 7))), backend.array(values(1, (6, 7)))
    mask = F.dropout_mask((6, 7), 0.3, np.random.default_rng(0), np.float64, backend.xp)
    adjoint(backend, F.dropout(x, 0.3, rng=np.random.default_rng(0)), dy, x, F.dropout_input_gradient(dy, mask))


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), None, "half"])
def test_invalid_probabilities(backend: Backend, p: Any) -> None:
    for training in (True, False):
        check_refused(
            lambda t=training: F.dropout(backend.array(np.zeros(3)), p, t),
            None if p != p else lambda t=training: torch.nn.functional.dropout(torch.zeros(3), p, t),  # PyTorch takes NaN
            "dropout",
        )


def test_other_invalid_calls(backend: Backend) -> None:
    check_refused(lambda: F.dropout(backend.array(np.zeros(3, np.int64))), None, "dropout")
    mask = backend.array(np.ones((2, 3)))
    check_refused(lambda: F.dropout_input_gradient(backend.array(np.zeros((3, 2))), mask), None, "dropout_input_gradient")
