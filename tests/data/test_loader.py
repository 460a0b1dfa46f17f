"""The loader: the same bits whatever the threads, resumable anywhere, and no thread left behind."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet.data import ArrayDataset, Loader
from tinynet.data.transforms import Compose, RandomCrop, RandomHorizontalFlip, ToArray
from tinynet.errors import ArgumentError, DtypeError, ShapeError

AUGMENT = Compose([RandomCrop(6, padding=2), RandomHorizontalFlip(), ToArray()])


def numbered(count: int) -> ArrayDataset:
    """Sample i: a random picture, label i, so that a label says which sample it is."""
    images = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return ArrayDataset(images, np.arange(count), [str(i) for i in range(count)])


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("tinynet-loader")]


def same(some: list, others: list) -> bool:
    return len(some) == len(others) and all(
        np.array_equal(a, b) for one, other in zip(some, others, strict=True) for a, b in zip(one, other, strict=True))


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_workers_and_prefetch_do_not_change_a_bit(
    count: int, batch: int, workers: int, prefetch: int, epoch: int, shuffle: bool
) -> None:
    dataset = numbered(count)
    plain = list(Loader(dataset, batch, AUGMENT, shuffle, seed=7, workers=0).batches(epoch))
    other = list(Loader(dataset, batch, AUGMENT, shuffle, seed=7, workers=workers, prefetch=prefetch).batches(epoch))
    assert same(plain, other)
    assert sorted(np.concatenate([y for _, y in plain]).tolist()) == list(range(count))      # each sample once


def test_a_samples_randomness_is_its_own() -> None:
    """The picture of a sample depends on seed, epoch and index: not on its batch, nor on who came before it."""
    dataset = numbered(30)
    def pictures(batch: int, shuffle: bool, epoch: int = 1, seed: int = 0) -> dict[int, bytes]:
        return {int(label): x.tobytes() for xs, ys in Loader(dataset, batch, AUGMENT, shuffle, seed).batches(epoch)
                for x, label in zip(xs, ys, strict=True)}
    assert pictures(4, True) == pictures(7, False) == pictures(30, True)
    assert pictures(4, True) != pictures(4, True, epoch=2)
    assert pictures(4, True) != pictures(4, True, seed=1)


def test_samples_of_an_epoch_draw_differently() -> None:
    def draw(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.full((1, 1, 1), rng.random(), np.float32)
    drawn = np.concatenate([x.ravel() for epoch in (0, 1) for x, _ in Loader(numbered(50), 8, draw).batches(epoch)])
    assert len(np.unique(drawn)) == 100


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_resume_in_the_middle_of_an_epoch(workers: int, start: int) -> None:
    loader = Loader(numbered(18), 4, AUGMENT, shuffle=True, seed=3, workers=workers)
    assert same(list(loader.batches(2))[start:], list(loader.batches(2, start)))


def test_order() -> None:
    loader = Loader(numbered(50), 8, shuffle=True, seed=1)
    orders = [loader.order(epoch).tolist() for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1] and sorted(orders[1]) == list(range(50))
    assert np.concatenate([y for _, y in loader.batches(1)]).tolist() == orders[1]
    assert np.concatenate([y for _, y in Loader(numbered(50), 8)]).tolist() == list(range(50))
    assert Loader(numbered(50), 8, shuffle=True, seed=2).order(0).tolist() != orders[0]


def test_a_loader_counts_no_epochs() -> None:
    loader = Loader(numbered(18), 4, AUGMENT, shuffle=True, seed=3)
    assert same(list(loader), list(loader.batches(0)))
    assert list(loader.batches(1)) and same(list(loader), list(loader.batches(0)))


def test_shapes_types_and_lengths() -> None:
    dataset = numbered(10)
    batches = list(Loader(dataset, 4))
    assert [x.shape for x, _ in batches] == [(4, 3, 6, 6), (4, 3, 6, 6), (2, 3, 6, 6)]
    assert {(x.dtype, y.dtype) for x, y in batches} == {(np.dtype(np.float32), np.dtype(np.int64))}
    np.testing.assert_array_equal(batches[1][0][2], ToArray()(dataset.images[6]))
    short = Loader(dataset, 4, drop_last=True)
    assert (len(Loader(dataset, 4)), len(short), len(list(short))) == (3, 2, 2)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_a_worker_raises_reaches_the_consumer(workers: int) -> None:
    def fail(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if image.mean() == dataset.images[9].mean():
            raise RuntimeError("sample nine")
        return ToArray()(image)
    dataset, seen = numbered(20), []
    with pytest.raises(RuntimeError, match="sample nine"):
        for _, y in Loader(dataset, 2, fail, workers=workers):
            seen += y.tolist()
    assert seen == list(range(8))                      # everything before it came first
    assert not threads()


def test_threads_end_when_the_consumer_stops_early() -> None:
    batches = Loader(numbered(40), 2, AUGMENT, workers=3).batches(0)
    next(batches)
    assert threads()
    batches.close()                                    # what leaving a for loop does
    assert not threads()


def test_a_large_batch_in_the_making_is_given_up() -> None:
    made = []
    def slow(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        made.append(time.sleep(0.002))
        return ToArray()(image)
    batches = Loader(numbered(1000), 500, slow, workers=1).batches(0)
    next(batches)
    batches.close()
    assert len(made) < 900


def test_no_more_than_prefetch_batches_are_made_ahead() -> None:
    made = []
    def count(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        made.append(1)
        return ToArray()(image)
    batches = Loader(numbered(40), 1, count, workers=2, prefetch=3).batches(0)
    next(batches)
    time.sleep(0.1)
    assert len(made) <= 4                              # the one taken and three ahead
    batches.close()


def test_ctrl_c_ends_a_loading_program_at_once(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import signal
        import time
        import numpy as np
        from tinynet.data import ArrayDataset, Loader
        from tinynet.data.transforms import ToArray

        def slow(image, rng):
            time.sleep(0.05)
            return ToArray()(image)

        signal.signal(signal.SIGINT, signal.default_int_handler)      # a job in the background inherits "ignore"
        dataset = ArrayDataset(np.zeros((10000, 2, 2, 3), np.uint8), np.zeros(10000, int), ["a"])
        try:
            for x, y in Loader(dataset, 20, slow, workers=2):
                print("batch", flush=True)
        except KeyboardInterrupt:
            print("stopped", flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True,
                               cwd=Path(__file__).parents[2])
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "batch\n"
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=10)
        finally:
            process.kill()
    assert out.endswith("stopped\n") and process.returncode == 0


def test_pictures_of_different_sizes_need_a_transform() -> None:
    class Mixed:
        classes, labels = ["a"], np.zeros(2, np.int64)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            return np.zeros((4 + index, 4, 3), np.uint8), 0
    with pytest.raises(ShapeError, match=r"sample 1: expected \(3, 4, 4\) .* got \(3, 5, 4\); let the transform end"):
        list(Loader(Mixed(), 2))
    with pytest.raises(DtypeError, match="let it end in ToArray"):
        list(Loader(Mixed(), 2, lambda image, rng: image))


def test_refusals() -> None:
    dataset = numbered(4)
    for wrong in ({"batch_size": 0}, {"batch_size": 2.0}, {"workers": -1}, {"prefetch": 0}, {"seed": -1},
                  {"batch_size": 8, "drop_last": True}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            Loader(dataset, **{"batch_size": 2, **wrong})
    with pytest.raises(ArgumentError, match="empty"):
        Loader(numbered(0), 2)
    for epoch, start in ((-1, 0), (0, -1), (0, 3)):
        with pytest.raises(ArgumentError, match="epoch"):
            Loader(dataset, 2).batches(epoch, start)
