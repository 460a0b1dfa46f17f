"""Batches of a dataset, prepared ahead by threads: the same bits whatever their number."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, DtypeError, FileError, ShapeError
from .dataset import BrokenPhoto, Dataset, name
from .transforms import ToArray

Transform = Callable[[Any, np.random.Generator], Any]
Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


class Loader:
    """Batches (x float32 (N, 3, H, W), y int64 (N,)) of a dataset.

    transform: (image, rng) -> float32 (3, H, W); ToArray() if None.
    shuffle: a new order every epoch, from seed and epoch. A sample's rng comes from seed, epoch and its index.
    `for x, y in loader` is epoch 0 every time, unlike PyTorch's: a loader counts nothing, so that whoever goes on later, or looks
    twice, sees the same. A loop of one's own over several epochs takes `loader.batches(epoch)`, as the Trainer does.
    workers: threads that prepare batches; 0 prepares each when it is asked for.
    prefetch: the most batches that are ready or in the making. drop_last: leave out a short last batch.
    A photo that is found broken (BrokenPhoto) is left out of its batch.
    Raises ArgumentError for an empty dataset or arguments outside their range.
    """

    def __init__(self, dataset: Dataset, batch_size: int, transform: Transform | None = None, shuffle: bool = False,
                 seed: int = 0, workers: int = 1, prefetch: int = 4, drop_last: bool = False) -> None:
        for what, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("workers", workers, 0),
                                   ("prefetch", prefetch, 1)):
            if not isinstance(value, int | np.integer) or value < least:
                raise ArgumentError(f"Loader: expected {what} to be an integer of at least {least}, got {value!r}")
        if len(dataset) == 0:
            raise ArgumentError("Loader: expected a dataset with samples, got an empty one")
        if drop_last and len(dataset) < batch_size:
            raise ArgumentError(f"Loader: drop_last leaves nothing of {len(dataset)} samples, batch_size {batch_size}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.transform: Transform = ToArray() if transform is None else transform
        self.shuffle = shuffle
        self.seed = seed
        self.workers = workers
        self.prefetch = prefetch
        self.drop_last = drop_last

    def __len__(self) -> int:
        """Batches in an epoch."""
        samples = len(self.dataset)
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of epoch 0, every time; of another one: `batches(epoch)`."""
        return self.batches(0)

    def order(self, epoch: int = 0) -> npt.NDArray[np.int64]:
        """The samples' indices in the order of this epoch (N,)."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        return rng.permutation(len(self.dataset))

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `start` on: what an uninterrupted epoch would give from there.

        What a transform or a file raises is raised here. Closing the generator or leaving the loop ends the threads.
        """
        if epoch < 0 or not 0 <= start <= len(self):
            raise ArgumentError(f"Loader: expected epoch >= 0 and start in 0 to {len(self)}, got {epoch} and {start}")
        return self._inline(epoch, start) if self.workers == 0 else self._ahead(epoch, start)

    def _inline(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self.order(epoch)
        for number in range(start, len(self)):
            yield self._batch(order, epoch, number, threading.Event())

    def _ahead(self, epoch: int, start: int) -> Iterator[Batch]:
        order, stopped = self.order(epoch), threading.Event()
        numbers = iter(range(start, len(self)))
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="tinynet-loader")
        queue: deque[Future[Batch]] = deque()          # in the order of the batches, whichever is ready first
        try:
            while True:
                while len(queue) < self.prefetch and (number := next(numbers, None)) is not None:
                    queue.append(pool.submit(self._batch, order, epoch, number, stopped))
                if not queue:
                    return
                yield queue.popleft().result()
        finally:                                       # also on an error, on Ctrl-C, and when the consumer stops early
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, order: npt.NDArray[np.int64], epoch: int, number: int, stopped: threading.Event) -> Batch:
        chosen = order[number * self.batch_size:(number + 1) * self.batch_size].tolist()
        x: npt.NDArray[Any] | None = None
        y: list[int] = []
        for index in chosen:
            if stopped.is_set():                       # nobody waits for this batch any more
                break
            try:
                image, label = self.dataset[index]
            except BrokenPhoto:                        # the dataset has reported it
                continue
            sample = self.transform(image, self._rng(epoch, index))
            if x is None:
                x = self._buffer(sample, len(chosen), index)
            elif sample.shape != x.shape[1:]:
                raise ShapeError(f"{name(self.dataset, index)}: expected {x.shape[1:]} as the others of its batch, got "
                                 f"{sample.shape}; let the transform end in one size (Resize((h, w)), CenterCrop, ...)")
            x[len(y)] = sample
            y.append(label)
        if x is None:
            raise FileError(f"{name(self.dataset, chosen[0])}: broken, as every photo of its batch; remove them")
        return x[:len(y)], np.array(y, dtype=np.int64)

    def _rng(self, epoch: int, index: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch, index)))

    def _buffer(self, sample: Any, count: int, index: int) -> npt.NDArray[Any]:
        kind, shape = getattr(sample, "dtype", None), getattr(sample, "shape", ())
        if kind not in (np.float32, np.float64) or len(shape) != 3:
            raise DtypeError(f"{name(self.dataset, index)}: expected the transform to give float32 (3, H, W), got "
                             f"{kind or type(sample).__name__} {shape}; let it end in ToArray() or Normalize(...)")
        return np.empty((count, *shape), dtype=kind)
