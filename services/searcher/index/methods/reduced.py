"""Implements `reduced`: compares every reduced vector, and re-ranks the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from services.searcher.index import scan
from services.searcher.index.methods.method import Tuner, Workspace
from services.searcher.index.scan import Positions, Vectors, mapped
from services.searcher.settings import IndexSettings
from services.shared.volume.manifest import (
    REDUCED,
    Manifest,
    MethodName,
    Plan,
    Shard,
    Shards,
    require_no_shards,
    require_rows,
)

_NONE: Final[Positions] = np.empty(0, np.int64)


class ScanProposer:
    """Proposes the best of all reduced vectors."""

    def __init__(self, reduced: Vectors, without: Positions = _NONE) -> None:
        """Take the vectors (n, dimension); positions `without` (ascending) are never named."""
        self._reduced = reduced
        self._without = without

    def propose(self, queries: Vectors, k_blocks: int, depth: int) -> Sequence[Positions]:
        """Return the best by their reduced vectors, best first."""
        del k_blocks
        found = scan.nearest(self._reduced, queries, depth, without=self._without)
        return [positions for positions, _ in found]


class Reduced:
    """Builds a file of the reduced vectors."""

    name: MethodName = "reduced"
    files: tuple[str, ...] = (REDUCED,)

    def check(self, manifest: Manifest) -> None:
        """Refuse a matrix of another shape."""
        require_no_shards(manifest)
        require_rows(manifest, REDUCED, manifest.plan.dimension)

    def open(
        self, directory: Path, plan: Plan, _shards: Sequence[Shard], count: int
    ) -> ScanProposer:
        """Map the matrix."""
        return ScanProposer(mapped(directory / REDUCED, count, plan.dimension))

    def first_plan(self, base: Plan, _settings: IndexSettings, _count: int) -> Plan:
        """Return the only plan."""
        return replace(base, method=self.name)

    def try_plans(self, tuner: Tuner) -> None:
        """Measure it."""
        plan = replace(tuner.base, method=self.name)
        tuner.measure(plan, ScanProposer(tuner.workspace.vectors(plan), tuner.held_out))

    def build(self, _work: Workspace, _plan: Plan, _in_trial: Positions | None = None) -> Shards:
        """Write nothing: the trial has written the matrix."""
        return ()
