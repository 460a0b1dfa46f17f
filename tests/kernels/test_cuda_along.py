"""Cells added back along an axis as CUDA, against NumPy's own sum, one cell after the other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.checking import close, values
from tests.device_double import device_module
from tests.kernels.cuda_on_cpu import Cpu
from tests.kernels.test_cuda_convolution import wide_indices
from tinynet.functional._along import add_along


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.data(), st.sampled_from(["float64", "float32"]), st.booleans())
def test_every_axis_and_any_places(cuda: Cpu, shape: list[int], data: st.DataObject, dtype: str, wide: bool) -> None:
    axis, size = data.draw(st.integers(-len(shape), len(shape) - 1)), data.draw(st.integers(1, 6))
    places = data.draw(st.lists(st.integers(0, size - 1), min_size=shape[axis], max_size=shape[axis]))
    dy = values(0, tuple(shape))
    expected = np.zeros((size, *np.delete(shape, axis)))
    for place, line in zip(places, np.moveaxis(dy, axis, 0), strict=True):
        expected[place] += line
    with wide_indices(wide):
        got = add_along(device_module.asarray(dy.astype(dtype)), device_module.asarray(np.array(places, np.int64)), axis, size)
    close(got.get(), np.moveaxis(expected, 0, axis), dtype)


def test_what_is_not_finite_stays_where_it_belongs(cuda: Cpu) -> None:
    dy = device_module.asarray(np.array([[1, np.nan, 3, np.inf]], np.float32))
    got = add_along(dy, device_module.asarray(np.array([0, 1, 0, 3])), 1, 5).get()
    np.testing.assert_array_equal(got, [[4, np.nan, 0, np.inf, 0]])
    assert cuda.launches[-1][0] == "add_along<float, int>"


def test_the_order_is_that_of_the_cells(cuda: Cpu) -> None:
    dy = device_module.asarray(np.array([1e8, 1, -1e8, 1], np.float32))     # the first 1 is lost beside 1e8
    assert add_along(dy, device_module.asarray(np.zeros(4, np.int64)), 0, 1).get().tolist() == [1]


def test_an_index_of_another_kind_is_turned(cuda: Cpu) -> None:
    got = add_along(device_module.asarray(np.arange(3.0)), device_module.asarray(np.array([1, 0, 1], np.int32)), 0, 2)
    assert got.get().tolist() == [1, 2]
