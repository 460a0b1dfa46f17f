"""Products that are not computed: their rows, and their norm from the factors, against float64."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checking import values
from tinynet.errors import ShapeError
from tinynet.kernels import blocks, factors
from tinynet.kernels.blocks import in_turn
from tinynet.kernels.factors import Product, arrays_of


@pytest.fixture(autouse=True)
def small_blocks() -> Iterator[None]:
    with mock.patch.object(blocks, "NUMBERS", 40), mock.patch.object(factors, "_ENOUGH", 3):
        yield


sizes = st.tuples(st.integers(0, 6), st.integers(1, 23), st.integers(1, 60))


@given(sizes=sizes, dtype=st.sampled_from([np.float32, np.float64]))
def test_the_parts_are_all_rows_once_and_their_rows_are_those_of_the_value(sizes: tuple[int, int, int], dtype: type) -> None:
    n, out, inputs = sizes
    product = Product(values(0, (n, out)).astype(dtype), values(1, (n, inputs)).astype(dtype))
    parts = product.parts()
    assert [row for part in parts for row in range(out)[part]] == list(range(out))
    assert product.shape == (out, inputs) and product.size == out * inputs and product.dtype == dtype
    value = product.value()
    want, tolerance = product.dy.T.astype(np.float64) @ product.x, 1e-13 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(value, want, rtol=0, atol=tolerance)
    for part in parts:
        rows = product.rows(part)
        assert rows.dtype == dtype and rows.flags.c_contiguous
        np.testing.assert_array_equal(rows, value[part])


@pytest.mark.parametrize(("n", "inputs", "rows"), [
    (1, 10, 4), (1, 4, 10),            # four a sample, or a block's
    (3, 10, 12), (9, 10, 16),          # for more samples no more than four blocks' rows, …
    (9, 200, 3), (9, 50, 3), (0, 200, 1),   # … or three rows; at least one
])  # fmt: skip
def test_how_many_rows_a_part_has(n: int, inputs: int, rows: int) -> None:
    product = Product(np.zeros((n, 50), np.float32), np.zeros((n, inputs), np.float32))
    assert {part.stop - part.start for part in product.parts()[:-1]} == {rows}


def test_writing_is_shared_out() -> None:
    product = Product(values(0, (2, 50)), values(1, (2, 6)))
    seen: list[int] = []

    def each(work, items):  # type: ignore[no-untyped-def]
        items = list(items)
        seen.append(len(items))
        return in_turn(work, reversed(items))

    want = product.value()
    np.testing.assert_array_equal(product.value(each), want)
    assert seen == [len(product.parts())] and seen[0] > 4


@pytest.mark.parametrize("shapes", [((3, 4), (2, 5)), ((3,), (3, 5)), ((3, 4), (3, 5, 1))])
def test_factors_of_other_samples_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match=r"Product: expected dy \(n, out\) and x \(n, in\), got \(3.*\) and \(") as caught:
        Product(*map(np.zeros, shapes))
    assert "\n" not in str(caught.value)


@given(
    sizes=sizes, seed=st.integers(0, 1000), cancel=st.sampled_from([None, 1.0, 1e-2, 1e-4, 1e-6, 0.0]),
    scale=st.sampled_from([1.0, 1e-12, 1e15]),
)
def test_the_norm_is_that_of_the_product_in_float64(
    sizes: tuple[int, int, int], seed: int, cancel: float | None, scale: float
) -> None:
    """cancel: half of the samples take back what the other half give, but for that share.

    float64 sums of a few hundred terms leave 1e-13 of the square of what the terms come to, Σ ‖dy‖ ‖x‖; float32 rounds the norm.
    A written gradient in float32 has an error of 1e-7 of these terms itself: where they cancel, too, this is no worse.
    """
    n, out, inputs = sizes
    dy, x = values(seed, (n, out)), values(seed + 1, (n, inputs))
    if cancel is not None:
        dy = np.concatenate([dy, -dy + cancel * values(seed + 2, dy.shape)])
        x = np.concatenate([x, x])
    product = Product((dy * scale).astype(np.float32), x.astype(np.float32))
    assert product.norm_follows
    dy, x = product.dy.astype(np.float64), product.x.astype(np.float64)
    want, terms = np.linalg.norm(dy.T @ x), (np.linalg.norm(dy, axis=1) * np.linalg.norm(x, axis=1)).sum()
    norm = product.norm()
    assert norm.dtype == np.float32 and norm >= 0
    assert abs(float(norm) ** 2 - want**2) <= 1e-13 * terms**2 + 2e-7 * want**2
    if cancel is None or cancel == 1.0:
        np.testing.assert_allclose(norm, want, rtol=1e-6)


def test_where_a_written_gradient_would_overflow_or_has_more_digits_the_norm_does_not_follow() -> None:
    def follows(dy: float, x: float, dtype: type = np.float32) -> bool:
        factors = [np.ones((3, 4), dtype), np.ones((3, 5), dtype)]
        factors[0][1, 2], factors[1][1, 3] = dy, x
        with np.errstate(invalid="ignore"):
            return Product(*factors).norm_follows

    assert follows(1, 1) and follows(1e20, 1e17) and follows(-1e37, 1)
    for bad in (np.nan, np.inf, -np.inf):
        assert not follows(bad, 1) and not follows(1, bad) and not follows(bad, 0)
    assert not follows(1e20, 1e19) and not follows(1e20, -1e19)
    assert not follows(1, 1, np.float64)
    many = Product(np.full((8, 2), 1e37, np.float32), np.full((8, 3), 5, np.float32))
    assert not many.norm_follows                                # each term is finite, their sum is not
    assert Product(np.zeros((0, 4), np.float32), np.zeros((0, 5), np.float32)).norm_follows


def test_scaling_leaves_the_factors_of_others_alone() -> None:
    dy, x = values(0, (3, 4)).astype(np.float32), values(1, (3, 5)).astype(np.float32)
    one, other = Product(dy, x), Product(dy, x)
    want = other.value()
    one.scale(np.float64(0.5))
    np.testing.assert_array_equal(one.value(), 0.5 * want)
    np.testing.assert_array_equal(other.value(), want)
    assert one.dtype == np.float32
    assert [a is b for a, b in zip(arrays_of(other), (dy, x), strict=True)] == [True, True] and arrays_of(x) == (x,)
