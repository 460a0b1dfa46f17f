"""The default number of threads: affinity, and the limit of a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinynet.distributed import available_cores, workers


def test_it_follows_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_container_limit", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 8}, raising=False)
    assert available_cores() == 3


def test_where_there_is_no_affinity_it_is_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_container_limit", lambda: None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count, cores in ((5, 5), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert available_cores() == cores


@pytest.mark.parametrize(("limit", "cores"), [(0.5, 1), (1.9, 1), (2.0, 2), (3.5, 3), (64.0, 4), (None, 4)])
def test_a_container_s_limit_is_rounded_down_to_at_least_one(
    monkeypatch: pytest.MonkeyPatch, limit: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(workers, "_container_limit", lambda: limit)
    assert available_cores() == cores


@pytest.mark.parametrize(("files", "limit"), [
    ({"cpu.max": "150000 100000\n"}, 1.5), ({"cpu.max": "max 100000\n"}, None), ({}, None), ({"cpu.max": "what\n"}, None),
    ({"cpu.max": "100000 0\n"}, None),
    ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.5),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
])
def test_the_files_of_both_kinds_of_cgroup(tmp_path: Path, files: dict[str, str], limit: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert workers._container_limit(tmp_path) == limit
