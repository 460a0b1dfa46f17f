"""Arrays that stay are zeros like any others, but lie outside of the heap that other arrays come from and go to."""

from __future__ import annotations

import mmap
import platform
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.checking import Backend
from tinynet.kernels import lasting
from tinynet.kernels.lasting import lasting_zeros


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeros_that_can_be_written(
    shape: tuple[int, ...], dtype: Any, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for large in (1, 1 << 20):
        monkeypatch.setattr(lasting, "LARGE", large)
        like = backend.array(np.ones(shape, dtype))
        x, other = lasting_zeros(like), lasting_zeros(like)
        assert type(x) is type(like) and x.shape == shape and x.dtype == dtype and x.flags.c_contiguous
        x += 1
        np.testing.assert_array_equal(backend.host(x), np.ones(shape))
        np.testing.assert_array_equal(backend.host(other), np.zeros(shape))


def test_the_layout_is_that_of_the_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "LARGE", 1)
    assert lasting_zeros(np.ones((3, 4)).T).strides == np.ones((3, 4)).T.strides


def test_no_memory_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **more: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(lasting, "LARGE", 1)
    monkeypatch.setattr(mmap, "mmap", full)
    with pytest.raises(MemoryError, match=r"no 12 bytes .* shape \(3,\)"):
        lasting_zeros(np.ones(3, np.float32))


OUTSIDE = """
import ctypes
import numpy as np
from tinynet.distributed import Shards
from tinynet.kernels.lasting import lasting_zeros

library = ctypes.CDLL(None)
library.sbrk.restype = ctypes.c_void_p
with Shards(2):
    others, stays = [np.ones(1 << 20) for _ in range(4)], lasting_zeros(np.ones(1 << 20))
    end = library.sbrk(0)
    print(all(x.ctypes.data < end for x in others), stays.ctypes.data < end)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_they_lie_outside_of_the_heap() -> None:
    done = subprocess.run([sys.executable, "-c", OUTSIDE], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"
