"""Finds the metrics in an expression, and those that docs/metrics.md lists."""

from __future__ import annotations

import re
from typing import Final

from tools import reference

# Excludes label values and labels: a selector, a range or a bracket follows a label.
_NAME: Final = re.compile(r"\b(?:simile|process)_[a-z0-9_]+\b(?!:)")
_SUFFIX: Final = re.compile(r"_(bucket|count|sum)$")

OF_EVERY_PROCESS: Final = {"process_resident_memory_bytes", "process_start_time_seconds"}
"""Metrics that the client library adds on Linux."""


def metrics(expression: str) -> set[str]:
    """Return the metrics that it selects, without recorded series."""
    return set(_NAME.findall(re.sub(r"\b\w+:\w+:\w+|\"[^\"]*\"", "", expression)))


def recorded(expression: str) -> set[str]:
    """Return the recorded series that it selects."""
    return set(re.findall(r"\b\w+:\w+:\w+", expression))


def documented() -> set[str]:
    """Return every metric of docs/metrics.md, as a scrape names its series."""
    page = (reference.DOCS / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) ", page, re.MULTILINE)
    names = {name for name, _ in rows}
    histograms = {name for name, kind in rows if kind == "histogram"}
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}
    return (names - histograms) | parts | OF_EVERY_PROCESS
