"""The number of usable cores is the machine's, limited by the container's quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.shared import cores


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("20000 100000", 1),
        ("9900000 100000", 8),
        ("nonsense", 8),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, limit: str, expected: int) -> None:
    """A quota of CPU time is rounded up to whole cores, and never exceeds the cores."""
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert cores.available(tmp_path) == expected


def test_an_older_containers_limit_counts(tmp_path: Path) -> None:
    """Version 1 of cgroups holds the quota in two files, with -1 for no limit."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    quota = tmp_path / "cpu/cpu.cfs_quota_us"
    quota.write_text("300000\n")
    assert cores.available(tmp_path) == 3
    quota.write_text("-1\n")
    assert cores.available(tmp_path) == 8


def test_without_a_container_all_cores_count(tmp_path: Path) -> None:
    """Without a limit, the cores that the process may run on count."""
    assert cores.available(tmp_path) == 8
