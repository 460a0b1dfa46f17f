"""How many threads there is room for."""

from __future__ import annotations

import os
from pathlib import Path


def available_cores() -> int:
    """The cores this process may use: its affinity, and the limit of its container (cgroup v2 or v1) rounded down, at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:                                      # not Linux
        cores = os.cpu_count() or 1
    limit = _container_limit()
    return max(1, min(cores, int(limit)) if limit is not None else cores)


def _container_limit(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores that the container may use, a fraction perhaps; None: no limit."""
    try:
        if (root / "cpu.max").is_file():
            quota, period = (root / "cpu.max").read_text().split()[:2]
        else:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
