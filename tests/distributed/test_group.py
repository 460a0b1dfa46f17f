"""Sums over the threads of a group: one after the other, however unevenly the threads run, each is of its own call."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tinynet.nn.group import Group, Member, current_member, membership


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_sum_is_of_one_call(size: int) -> None:
    group, calls = Group(size), 60

    def run(rank: int) -> list[float]:
        rng, found = random.Random(rank), []
        for call in range(calls):
            if rng.random() < 0.3:
                time.sleep(rng.random() * 2e-3)
            mine = np.array([10.0**rank * (call % 7)])
            found.append(float(group.sum(rank, mine)[0]))
            if rng.random() < 0.3:
                time.sleep(rng.random() * 2e-3)
        return found

    with ThreadPoolExecutor(size) as pool:
        results = [future.result(timeout=30) for future in [pool.submit(run, rank) for rank in range(size)]]
    expected = [sum(10.0**rank for rank in range(size)) * (call % 7) for call in range(calls)]
    for result in results:
        assert result == expected


def test_a_thread_is_a_member_within_the_block_and_what_it_was_behind_it() -> None:
    outer, inner = (Member(Group(1), 0) for _ in range(2))
    assert current_member() is None
    with pytest.raises(ZeroDivisionError), membership(outer):
        with membership(inner):
            assert current_member() is inner
        assert current_member() is outer
        with membership(None):
            assert current_member() is None
        raise ZeroDivisionError
    assert current_member() is None
