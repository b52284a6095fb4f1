"""Counts the CPU cores that this process may use, under the limit of its container."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")


def available(cgroup: Path = _CGROUP) -> int:
    """Return the number of cores, at least 1; a quota of 1.5 cores counts as 2."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota(cgroup)
    return max(1, math.ceil(min(cores or 1, quota)))


def _quota(cgroup: Path) -> float:
    """Return the cores of the container's CPU limit (cgroup 2 or 1); inf without a limit."""
    try:
        allowed, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            allowed = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return math.inf
    try:
        microseconds = int(allowed)
        return microseconds / int(period) if microseconds > 0 else math.inf
    except ValueError:  # "max"
        return math.inf
