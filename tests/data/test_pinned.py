"""Batches reach the GPU through pinned memory on a stream of their own: in order, whole, and none before its memory is free."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.device_double import DeviceArray, device_module
from tests.fake_gpu import FakeCuda, fake_gpu
from tinynet.data.pinned import transferred


def batches(sizes: tuple[int, ...] = (4, 4, 3, 0, 9)) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((n, 3, 2, 2)).astype(np.float32)[:, ::-1], rng.integers(0, 9, n)) for n in sizes]


@pytest.fixture
def gpu() -> Iterator[FakeCuda]:
    with fake_gpu() as cuda:
        yield cuda


def test_every_batch_arrives_whole_and_stays_as_it_is(gpu: FakeCuda) -> None:
    sent = batches()
    received = list(transferred(sent, device_module.asarray(np.zeros(1))))
    assert len(received) == len(sent)
    for (x, y), (a, b) in zip(sent, received, strict=True):
        assert isinstance(a, DeviceArray) and isinstance(b, DeviceArray)
        np.testing.assert_array_equal(a.get(), x)
        np.testing.assert_array_equal(b.get(), y)
        assert (a.dtype, b.dtype) == (x.dtype, y.dtype)


def test_the_next_batch_is_on_its_way_before_this_one_is_worked_on(gpu: FakeCuda) -> None:
    stream = transferred(batches((2, 2, 2)), device_module.asarray(np.zeros(1)))
    next(stream)
    sending = ["record on current", "own waits for event", "record on own"]
    assert [line for line in gpu.log if line != "pinned memory"] == [*sending, *sending, "current waits for event"]
    gpu.log.clear()
    next(stream)
    assert [line for line in gpu.log if line != "pinned memory"] == [*sending, "current waits for event"]
    gpu.log.clear()
    assert len(list(stream)) == 1 and gpu.log == ["current waits for event"]


def test_pinned_memory_is_kept_and_grows(gpu: FakeCuda) -> None:
    list(transferred(batches((2,) * 10), device_module.asarray(np.zeros(1))))
    assert gpu.log.count("pinned memory") == 3
    gpu.log.clear()
    list(transferred(batches((2, 2, 2, 40, 40, 40)), device_module.asarray(np.zeros(1))))
    assert gpu.log.count("pinned memory") == 6


@pytest.mark.parametrize("like", [None, np.zeros(1)])
def test_on_the_host_batches_are_handed_through(like: Any) -> None:
    sent = batches()
    for (x, y), (a, b) in zip(sent, transferred(sent, like), strict=True):
        assert a is x and b is y


def test_what_is_on_the_gpu_already_stays_there(gpu: FakeCuda) -> None:
    x = device_module.asarray(np.ones((2, 3)))
    ((a, b),) = transferred([(x, np.zeros(2, np.int64))], x)
    assert a is x and isinstance(b, DeviceArray)


def test_leaving_early_closes_the_loader(gpu: FakeCuda) -> None:
    closed = []

    def loader() -> Iterator[Any]:
        try:
            yield from batches()
        finally:
            closed.append(True)

    for like in (None, device_module.asarray(np.zeros(1))):
        stream = transferred(loader(), like)
        next(stream)
        stream.close()
    assert closed == [True, True]
