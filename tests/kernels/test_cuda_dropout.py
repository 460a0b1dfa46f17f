"""The mask that a GPU draws is the one that NumPy draws, and the generator goes on behind it as NumPy's does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.device_double import DeviceArray, device_module
from tests.kernels.cuda_on_cpu import Cpu
from tests.kernels.test_cuda_convolution import wide_indices
from tinynet.functional.dropout import dropout_mask

SHAPES = st.sampled_from([(), (1,), (2,), (0,), (3, 5), (16,), (17,), (2, 3, 7), (33,), (5000,), (70, 101)])


def masks(rng: np.random.Generator, shapes: list[Any], p: float, dtype: str, xp: Any) -> list[Any]:
    return [dropout_mask(shape, p, rng, dtype=dtype, xp=xp) for shape in shapes]


@given(
    st.integers(0, 1000), st.lists(SHAPES, min_size=1, max_size=5), st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from(["float32", "float64"]), st.booleans(), st.sampled_from([0, 1, 1 << 80]),
)  # fmt: skip
def test_the_mask_and_the_generator_behind_it_are_numpys(
    cuda: Cpu, seed: int, shapes: list[Any], p: float, dtype: str, wide: bool, ahead: int
) -> None:
    host, there = (np.random.default_rng((seed, 7)) for _ in range(2))
    for rng in (host, there):
        rng.bit_generator.advance(ahead)
    with wide_indices(wide):
        got = masks(there, shapes, p, dtype, device_module)
    for mine, its in zip(masks(host, shapes, p, dtype, np), got, strict=True):
        assert isinstance(its, DeviceArray) and its.dtype == dtype
        np.testing.assert_array_equal(its.get(), mine)
    assert there.random(3, dtype=np.float32).tolist() == host.random(3, dtype=np.float32).tolist()
    assert there.integers(0, 9, 4).tolist() == host.integers(0, 9, 4).tolist() and there.normal() == host.normal()


@pytest.mark.parametrize("kind", [np.random.Philox, np.random.MT19937, np.random.PCG64DXSM])
def test_another_kind_of_generator_draws_on_the_host(cuda: Cpu, kind: Any) -> None:
    before = len(cuda.launches)
    there, host = (dropout_mask((9, 3), 0.4, np.random.Generator(kind(5)), xp=xp) for xp in (device_module, np))
    np.testing.assert_array_equal(there.get(), host)
    assert len(cuda.launches) == before
    dropout_mask((9, 3), 0.4, np.random.default_rng(5), xp=device_module)
    assert len(cuda.launches) == before + 1
