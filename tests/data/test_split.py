"""Splits hold every class in proportion, share nothing, and come out the same again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinynet.data import ArrayDataset, Relabelled, balanced_sample, split
from tinynet.errors import ArgumentError


def dataset(counts: list[int], seed: int = 0) -> ArrayDataset:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    names = [f"class{k}" for k in range(len(counts))]
    return ArrayDataset(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, names)


@given(st.lists(st.integers(5, 60), min_size=2, max_size=5), st.integers(0, 5), st.data())
def test_parts_are_disjoint_and_in_proportion(counts: list[int], seed: int, data: st.DataObject) -> None:
    ds, total = dataset(counts), sum(counts)
    first = data.draw(st.integers(1, total - 1))
    second = data.draw(st.integers(1, total - first))
    parts = split(ds, (first, second), seed)
    assert [len(part) for part in parts] == [first, second]
    together = np.concatenate([part.indices for part in parts])
    assert len(set(together.tolist())) == first + second
    for part in parts:
        share = np.array(counts) * len(part) / total
        assert np.abs(np.bincount(part.labels, minlength=len(counts)) - share).max() < len(counts)
        assert (np.diff(part.indices) > 0).all()


def test_the_protocol_of_600_and_600() -> None:
    ds = balanced_sample(dataset([1026, 1216]), 600, seed=3)
    assert np.bincount(ds.labels).tolist() == [600, 600]
    train, validation = split(ds, (0.9, 0.1), seed=3)
    assert np.bincount(train.labels).tolist() == [540, 540] and np.bincount(validation.labels).tolist() == [60, 60]
    assert not set(train.indices.tolist()) & set(validation.indices.tolist())
    by_count = split(ds, (1080, 120), seed=3)
    np.testing.assert_array_equal(by_count[1].indices, validation.indices)


def test_the_nearest_whole_number_of_each_class() -> None:
    few, many = split(dataset([90, 10]), (4, 96))      # shares 3.6 and 0.4
    assert np.bincount(few.labels, minlength=2).tolist() == [4, 0] and np.bincount(many.labels).tolist() == [86, 10]


def test_classes_are_shuffled_apart() -> None:
    ds = ArrayDataset(np.zeros((60, 1, 1, 3), np.uint8), np.repeat([0, 1], 30), ["a", "b"])
    chosen = balanced_sample(ds, 10).indices
    assert chosen[:10].tolist() != (chosen[10:] - 30).tolist()


def test_fractions_that_do_not_add_up_exactly_in_binary_lose_nothing() -> None:
    assert [len(part) for part in split(dataset([50, 50]), (0.7, 0.2, 0.1))] == [70, 20, 10]


def test_the_seed_decides() -> None:
    ds = dataset([40, 40])
    same = [split(ds, (0.5, 0.5), seed)[0].indices.tolist() for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]
    again = [balanced_sample(ds, 10, seed).indices.tolist() for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_photos_added_to_one_class_leave_the_others_alone() -> None:
    def cats(others: int) -> list[int]:
        labels = np.repeat([0, 1], [30, others])
        ds = ArrayDataset(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, ["cat", "notcat"])
        return [i for i in balanced_sample(ds, 10, seed=1).indices.tolist() if i < 30]
    assert cats(30) == cats(50)


def test_refusals() -> None:
    ds = dataset([10, 4])
    for wrong in ((), (0.5, 0.0), (-1, 3), (0.9, 0.2), (10, 5), (0.01, 0.5)):
        with pytest.raises(ArgumentError, match="split"):
            split(ds, wrong)
    with pytest.raises(ArgumentError, match="class 'class1' has 4"):
        balanced_sample(ds, 5)
    with pytest.raises(ArgumentError, match="per_class"):
        balanced_sample(ds, 0)


def test_relabelled_unites_classes_and_keeps_the_pictures() -> None:
    images = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    fine = ArrayDataset(images, [0, 1, 2, 1], ["cat", "dog", "ship"])
    coarse = Relabelled(fine, [0, 1, 1], ["cat", "notcat"])
    assert coarse.classes == ["cat", "notcat"] and coarse.labels.tolist() == [0, 1, 1, 1] and len(coarse) == 4
    np.testing.assert_array_equal(coarse[3][0], images[3])
    assert coarse[2][1] == 1 and coarse.name(2) == fine.name(2)
    with pytest.raises(ArgumentError, match="3 new labels"):
        Relabelled(fine, [0, 1], ["cat", "notcat"])
