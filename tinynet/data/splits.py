"""Parts of a dataset that hold every class in proportion, the same ones for the same seed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError
from .dataset import Dataset, Subset


def split(dataset: Dataset, parts: Sequence[float] | Sequence[int], seed: int = 0) -> list[Subset]:
    """Cut a dataset into parts that do not overlap, each with the classes in proportion.

    parts: fractions, which sum to at most 1, or counts of samples. split(ds, (0.9, 0.1)), split(ds, (1080, 120)).
    Raises ArgumentError if they ask for more than there is, or if a part would be empty.

    Every class is shuffled on its own and spread evenly over [0, 1). All samples, sorted by that position, form one row
    in which any stretch holds the classes in proportion, as nearly as whole samples allow. The parts are stretches of it.
    """
    total, counts = len(dataset), list(parts)
    if not counts or any(part <= 0 for part in counts):
        raise ArgumentError(f"split: expected positive fractions or counts, got {tuple(parts)}")
    whole = all(isinstance(part, int | np.integer) for part in counts)
    if sum(counts) > (total if whole else 1 + 1e-9):
        raise ArgumentError(f"split: expected parts of at most {total if whole else 1} together, got {tuple(parts)}")
    ends = np.cumsum(counts) if whole else np.rint(np.cumsum(counts) * total).astype(int)
    starts = [0, *ends[:-1].tolist()]
    if any(start == end for start, end in zip(starts, ends.tolist(), strict=True)):
        raise ArgumentError(f"split: a part of {tuple(parts)} is empty with {total} samples")

    position = np.empty(total)
    for _, members in _shuffled(dataset, seed):
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    row = np.argsort(position, kind="stable")
    return [Subset(dataset, np.sort(row[start:end])) for start, end in zip(starts, ends.tolist(), strict=True)]


def balanced_sample(dataset: Dataset, per_class: int, seed: int = 0) -> Subset:
    """`per_class` samples of every class, drawn without replacement, in the dataset's order.

    Raises ArgumentError, naming the class, if one has fewer.
    """
    if per_class < 1:
        raise ArgumentError(f"balanced_sample: expected per_class of at least 1, got {per_class}")
    chosen = []
    for label, members in _shuffled(dataset, seed):
        if len(members) < per_class:
            raise ArgumentError(f"balanced_sample: expected {per_class} samples of every class, class "
                                f"{dataset.classes[label]!r} has {len(members)}")
        chosen.append(members[:per_class])
    return Subset(dataset, np.sort(np.concatenate(chosen)))


def _shuffled(dataset: Dataset, seed: int) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """(label, its samples shuffled). Each class has its own generator: photos added to one leave the others alone."""
    def rng(label: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(label,)))
    return [(label, rng(label).permutation(np.flatnonzero(dataset.labels == label)))
            for label in range(len(dataset.classes))]
