"""softmax and log_softmax against PyTorch: values, the full Jacobian product, stability, invalid calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, check_op, check_refused, values


@st.composite
def shape_and_dim(draw: st.DrawFn) -> tuple[tuple[int, ...], int]:
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    return shape, draw(st.integers(-max(len(shape), 1), max(len(shape), 1) - 1))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(shape_and_dim(), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS), st.integers(0, 1000))
def test_softmax_and_its_gradient(
    backend: Backend, name: str, case: tuple[tuple[int, ...], int], dtype: str, layout: str, seed: int
) -> None:
    shape, dim = case
    check_op(
        backend,
        lambda input: getattr(F, name)(input, dim),
        lambda input: getattr(torch.nn.functional, name)(input, dim),
        {"input": values(seed, shape)},
        {"input": lambda a, y, dy: getattr(F, f"{name}_input_gradient")(dy, y, dim)},
        dtype=dtype,
        layout=layout,
        seed=seed,
    )


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(
    "row",
    [
        [1e4, 0.0, -1e4], [1e308, 1e308, 0.0], [-np.inf, 0.0, 1.0], [-np.inf, -np.inf, -np.inf], [np.inf, 0.0, 1.0],
        [np.inf, np.inf, -np.inf], [np.nan, 0.0, 1.0], [-800.0, -801.0, -1e308],
    ],
)  # fmt: skip
def test_extreme_numbers(backend: Backend, name: str, row: list[float]) -> None:
    x = np.array([row, [0.0, 1.0, 2.0]])
    got = backend.host(getattr(F, name)(backend.array(x), 1))
    np.testing.assert_allclose(got, getattr(torch.nn.functional, name)(torch.from_numpy(x), 1).numpy(), rtol=1e-12)


@given(shape_and_dim(), st.integers(0, 1000), st.sampled_from([-1e3, 3.0, 1e5]))
def test_a_distribution_that_a_common_shift_does_not_change(
    backend: Backend, case: tuple[tuple[int, ...], int], seed: int, shift: float
) -> None:
    shape, dim = case
    x = values(seed, shape)
    y = backend.host(F.softmax(backend.array(x), dim))
    assert (y >= 0).all()
    if x.size:
        np.testing.assert_allclose(y.sum(dim) if shape else y, 1, rtol=1e-12)
    np.testing.assert_allclose(backend.host(F.softmax(backend.array(x + shift), dim)), y, rtol=1e-9)


@given(
    st.integers(0, 4), st.permutations(range(6)), st.integers(1, 5), st.sampled_from(["float64", "float32"]),
    st.sampled_from(LAYOUTS), st.integers(0, 1000),
)  # fmt: skip
def test_group_logsumexp_of_groups_as_drawn(
    backend: Backend, n: int, columns: list[int], cut: int, dtype: str, layout: str, seed: int
) -> None:
    groups = [columns[:cut], columns[cut:]]
    check_op(
        backend,
        lambda input: F.group_logsumexp(input, groups),
        lambda input: torch.stack([torch.logsumexp(input[:, group], 1) for group in groups], 1),
        {"input": values(seed, (n, 6))},
        {"input": lambda a, y, dy: F.group_logsumexp_input_gradient(dy, a["input"], y, groups)},
        dtype=dtype,
        layout=layout,
        seed=seed,
    )


def test_group_logsumexp_does_not_overflow(backend: Backend) -> None:
    y = backend.host(F.group_logsumexp(backend.array(np.array([[1e4, 1e4, -1e4]])), [[0, 1], [2]]))
    np.testing.assert_allclose(y, [[1e4 + np.log(2), -1e4]])
    for groups in ([[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2], []], [[0, 1], [2, 3]]):
        check_refused(lambda g=groups: F.group_logsumexp(backend.array(np.zeros((2, 3))), g), None, "group_logsumexp")


def test_the_gradient_is_the_whole_jacobian(backend: Backend) -> None:
    # Row by row against the definition J = diag(y) − y yᵀ.
    y = backend.host(F.softmax(backend.array(values(5, (4,))), 0))
    jacobian = np.diag(y) - np.outer(y, y)
    for i in range(4):
        dy = backend.array(np.eye(4)[i])
        np.testing.assert_allclose(
            backend.host(F.softmax_input_gradient(dy, backend.array(y), 0)), jacobian[i], atol=1e-15
        )


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_dtype_is_converted_on_request(backend: Backend, name: str) -> None:
    x = backend.array(values(1, (3, 4)).astype(np.float32))
    y = backend.host(getattr(F, name)(x, 1, dtype=np.float64))
    expected = getattr(torch.nn.functional, name)(torch.from_numpy(backend.host(x)), 1, dtype=torch.float64).numpy()
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, expected, rtol=1e-14)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_without_dim_it_guesses_as_pytorch_and_warns(backend: Backend, name: str, shape: tuple[int, ...]) -> None:
    x = values(0, shape)
    with pytest.warns(UserWarning, match="dim"):
        got = getattr(F, name)(backend.array(x))
    with pytest.warns(UserWarning, match="dim"):
        expected = getattr(torch.nn.functional, name)(torch.from_numpy(x))
    np.testing.assert_allclose(backend.host(got), expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(("shape", "dim"), [((2, 3), 2), ((2, 3), -3), ((), 1), ((), -2), ((2, 3), 1.0), ((2, 3), (0, 1))])
def test_invalid_calls(backend: Backend, name: str, shape: tuple[int, ...], dim: Any) -> None:
    check_refused(
        lambda: getattr(F, name)(backend.array(np.zeros(shape)), dim),
        lambda: getattr(torch.nn.functional, name)(torch.zeros(shape), dim),
        name,
    )
    gradient = getattr(F, f"{name}_input_gradient")
    x = backend.array(np.zeros(shape))
    check_refused(lambda: gradient(x, x, dim), None, f"{name}_input_gradient")
    check_refused(lambda: gradient(backend.array(np.zeros((1, 3))), backend.array(np.zeros((2, 3))), 0), None, name)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_integers_are_refused(backend: Backend, name: str) -> None:
    check_refused(
        lambda: getattr(F, name)(backend.array(np.zeros(3, np.int64)), 0),
        lambda: getattr(torch.nn.functional, name)(torch.zeros(3, dtype=torch.int64), 0),
        name,
    )


@pytest.mark.parametrize("groups", [[[0], [1, 2, 3]], [[2, 0], [3, 1]], [[0, 1, 2, 3]], [[3], [2], [1], [0]]])
@pytest.mark.parametrize("scale", [1.0, 400.0])  # e^400 does not overflow if the largest is taken out first
@pytest.mark.parametrize("count", [0, 1, 3])
def test_group_logsumexp_and_its_gradient(backend: Backend, groups: list[list[int]], scale: float, count: int) -> None:
    check_op(
        backend,
        lambda input: F.group_logsumexp(input, groups),
        lambda input: torch.stack([torch.logsumexp(input[:, group], 1) for group in groups], 1),
        {"input": scale * values(7, (count, 4))},
        {"input": lambda a, y, dy: F.group_logsumexp_input_gradient(dy, a["input"], y, groups)},
        dtype="float64",
    )


def test_group_logsumexp_gives_the_probabilities_of_unions() -> None:
    x = values(3, (5, 6))
    united = F.softmax(F.group_logsumexp(x, [[4, 1], [0, 2, 3, 5]]), 1)
    np.testing.assert_allclose(united[:, 0], F.softmax(x, 1)[:, [4, 1]].sum(axis=1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("groups", [[[0]], [[0, 1], [1, 2]], [[0, 1], []], [[0, 1, 2, 3]]])
def test_groups_must_share_out_the_columns(groups: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="share its K columns"):
        F.group_logsumexp(np.zeros((2, 3)), groups)
