"""Products in pieces are the products: against float64, whatever divides, however the factors lie, with and without `out`."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checking import close, values
from tinynet import functional as F
from tinynet.kernels import linear, products


@pytest.fixture(autouse=True)
def small_kernels() -> object:
    """As on a processor whose BLAS has kernels for small products, and as if they ended at a size that tests can pass."""
    with mock.patch.multiple(products, _multiplies_in_place=lambda: True, _SMALL=5000):
        yield


@given(data=st.data())
def test_a_product_with_a_transposed_factor(data: st.DataObject) -> None:
    def size(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    lead, (m, n, k) = data.draw(st.sampled_from([(), (2,), (2, 0), (3, 2)])), (size(0, 99), size(0, 160), size(0, 40))
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    a, b = numbers(0, (*lead, m, k)).astype(dtype), numbers(1, (*lead, n, 2 * k)).astype(dtype)[..., ::2]
    found = products.matmul_transposed(a, b)
    assert found.shape == (*lead, m, n) and found.dtype == dtype
    close(found, np.einsum("...mk,...nk->...mn", a.astype(np.float64), b.astype(np.float64)), dtype)


@pytest.mark.parametrize("m, n, turned", [(32, 96, True), (32, 40, False), (96, 288, True), (97, 288, False), (96, 32, False)])
def test_the_factor_of_more_rows_is_on_the_left(m: int, n: int, turned: bool) -> None:
    found = products.matmul_transposed(numbers(0, (2, m, 5)), numbers(1, (2, n, 5)))
    assert found.strides[-2:] == ((4, 4 * m) if turned else (4 * n, 4))


def numbers(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return values(seed, shape).astype(np.float32)


CUTS = {
    "columns": (lambda d: (d(3, 8), d(3, 8), d(700, 1500))),
    "rows by few columns": (lambda d: (d(200, 400), d(110, 140), d(2, 8))),
    "rows by few terms": (lambda d: (d(200, 400), d(2, 16), d(60, 70))),
    "blocks": (lambda d: (d(2, 8), d(64, 200), d(1300, 1700))),
    "whole": (lambda d: (d(17, 40), d(17, 40), d(17, 40))),
}


@pytest.mark.parametrize("kind", CUTS)
@given(data=st.data())
def test_pieces_make_the_product(kind: str, data: st.DataObject) -> None:
    m, k, n = CUTS[kind](lambda low, high: data.draw(st.integers(low, high)))
    lead = data.draw(st.sampled_from([(), (3,)])) if kind in ("columns", "whole") else ()
    a, b = numbers(0, (*lead, m, k)), numbers(1, (*lead, k, n))
    if data.draw(st.booleans()):
        a = np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)
    if data.draw(st.booleans()):
        b = np.concatenate([b, b], axis=-1)[..., :n]
    room = np.empty((*lead, m, n + 3), np.float32)
    out = data.draw(st.sampled_from([None, room[..., :n], np.empty((*lead, m, n), np.float32)]))
    with (
        mock.patch.object(products, "_by_columns", wraps=products._by_columns) as columns,
        mock.patch.object(products, "_by_rows", wraps=products._by_rows) as rows,
        mock.patch.object(products, "_by_blocks", wraps=products._by_blocks) as blocks,
    ):
        found = products.matmul(a, b, out=out)
    taken = {"columns": columns, "rows": rows, "blocks": blocks}
    assert [name for name, spy in taken.items() if spy.called] == [name for name in taken if kind.startswith(name)]
    assert out is None or found is out
    close(found, a.astype(np.float64) @ b.astype(np.float64), "float32")


def test_a_right_factor_in_columns_and_vectors_go_whole() -> None:
    a, b = numbers(0, (4, 30)), np.asfortranarray(numbers(1, (30, 900)))
    close(products.matmul(a, b), a.astype(np.float64) @ b, "float32")
    close(products.matmul(a[:1], b), a[:1].astype(np.float64) @ b, "float32")
    close(products.matmul(a[0], b), a[0].astype(np.float64) @ b, "float32")


def test_other_libraries_are_asked_for_the_whole_product() -> None:
    a, b = numbers(0, (4, 30)), numbers(1, (30, 900))
    with mock.patch.object(products, "_multiplies_in_place", lambda: False), mock.patch.object(products, "_by_columns") as cut:
        close(products.matmul(a, b), a.astype(np.float64) @ b, "float32")
    assert not cut.called


def test_only_an_openblas_for_avx512_has_such_kernels() -> None:
    for found, expected in (
        ([{"user_api": "blas", "internal_api": "openblas", "architecture": "SkylakeX"}], True),
        ([{"user_api": "blas", "internal_api": "openblas", "architecture": "Haswell"}], False),
        ([{"user_api": "blas", "internal_api": "mkl"}], False),
        ([{"user_api": "blas", "internal_api": "blis", "architecture": "SkylakeX"}], False),
        ([{"user_api": "openmp", "internal_api": "openmp"}], False),
        ([], False),
    ):
        with mock.patch("threadpoolctl.threadpool_info", lambda found=found: found):
            assert products.multiplies_in_place() is expected


@given(n=st.integers(0, 40), i=st.integers(1, 120), o=st.integers(1, 200), lead=st.sampled_from([(), (2,)]))
def test_few_samples_of_a_linear_layer(n: int, i: int, o: int, lead: tuple[int, ...]) -> None:
    x, w, dy = (numbers(seed, shape) for seed, shape in enumerate([(*lead, n, i), (o, i), (*lead, n, o)]))
    with mock.patch.object(linear, "_LARGE", 0):
        y = linear.forward(x, w)
    assert y.flags.c_contiguous
    close(y, x.astype(np.float64) @ w.T, "float32")
    close(F.linear_input_gradient(dy, w), dy.astype(np.float64) @ w, "float32")
    expected = dy.reshape(-1, o).T.astype(np.float64) @ x.reshape(-1, i)
    close(F.linear_weight_gradient(dy, x), expected, "float32")
