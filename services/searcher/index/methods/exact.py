"""Implements `exact`: compares every vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from services.searcher.index.methods.method import Tuner, Workspace
from services.searcher.index.scan import Positions
from services.searcher.settings import IndexSettings
from services.shared.volume.manifest import (
    Manifest,
    MethodName,
    Plan,
    Shard,
    Shards,
    require_no_shards,
)


class Exact:
    """Has no files of its own; its recall is 1."""

    name: MethodName = "exact"
    files: tuple[str, ...] = ()

    def check(self, manifest: Manifest) -> None:
        """Refuse shards."""
        require_no_shards(manifest)

    def open(self, _directory: Path, _plan: Plan, _shards: Sequence[Shard], _count: int) -> None:
        """Return None: there are no candidates."""

    def first_plan(self, base: Plan, _settings: IndexSettings, _count: int) -> Plan:
        """Return the only plan."""
        return replace(base, method=self.name)

    def try_plans(self, tuner: Tuner) -> None:
        """Measure its speed."""
        tuner.measure(replace(tuner.base, method=self.name), None, recall=1.0)

    def build(self, _work: Workspace, _plan: Plan, _in_trial: Positions | None = None) -> Shards:
        """Write nothing."""
        return ()
