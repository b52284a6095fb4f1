"""Implements `reduced-ivf`: scans the nearest inverted lists of the reduced vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from services.searcher.index.methods import inverted_lists
from services.searcher.index.methods.inverted_lists import InvertedLists
from services.searcher.index.methods.method import Tuner, Workspace, least_effort
from services.searcher.index.scan import Positions, Vectors
from services.searcher.settings import IndexSettings
from services.shared.volume.manifest import (
    LISTED,
    LISTS,
    Manifest,
    MethodName,
    Plan,
    Shard,
    Shards,
    require,
    require_no_shards,
    require_rows,
)

_FIRST_PROBES: Final = 4
_LISTS_A_ROOT: Final = 3
"""The number of lists over the square root of the number of vectors."""
_MIN_ITEMS: Final = 2000
"""Below this size a full scan is as fast."""
_MORE_RERANKED: Final = 2
"""More candidates compensate for the neighbours in lists that are not searched."""


@dataclass(frozen=True, slots=True)
class ListsProposer:
    """Proposes the best vectors of the nearest lists."""

    lists: InvertedLists
    probes: int

    def propose(self, queries: Vectors, k_blocks: int, depth: int) -> Sequence[Positions]:
        """Return the best by their reduced vectors, best first."""
        return self.lists.nearest(queries, self.probes * k_blocks, depth)


class InvertedListsMethod:
    """Builds two files: the vectors by list, and the start of each list."""

    name: MethodName = "reduced-ivf"
    files: tuple[str, ...] = (LISTED, LISTS)

    def check(self, manifest: Manifest) -> None:
        """Refuse more probes than lists, and a matrix of another shape."""
        plan = manifest.plan
        require_no_shards(manifest)
        require(0 < plan.probes <= plan.lists, "searches more lists than there are, or none")
        require_rows(manifest, LISTED, plan.dimension)

    def open(
        self, directory: Path, plan: Plan, _shards: Sequence[Shard], count: int
    ) -> ListsProposer:
        """Map the lists of all items."""
        opened = InvertedLists.open(directory, count, plan.dimension, plan.lists, count)
        return ListsProposer(opened, plan.probes)

    def first_plan(self, base: Plan, _settings: IndexSettings, count: int) -> Plan:
        """Return the plan of fewest probes."""
        lists = min(count, round(_LISTS_A_ROOT * math.sqrt(count)))
        probes, rerank = min(_FIRST_PROBES, lists), _MORE_RERANKED * base.rerank
        return replace(base, method=self.name, lists=lists, probes=probes, rerank=rerank)

    def try_plans(self, tuner: Tuner) -> None:
        """Measure the fewest probes that suffice."""
        work, rows = tuner.workspace, tuner.indexed
        if len(rows) < _MIN_ITEMS:
            return
        plan = self.first_plan(tuner.base, work.settings, work.count)
        self._write(work, plan, rows)
        lists = InvertedLists.open(
            work.directory, len(rows), plan.dimension, plan.lists, work.count
        )

        def tried(probes: int) -> tuple[Plan, ListsProposer]:
            return replace(plan, probes=probes), ListsProposer(lists, probes)

        tuner.measure(*tried(least_effort(tuner, tried, plan.probes, plan.lists // 2)))

    def build(self, work: Workspace, plan: Plan, in_trial: Positions | None = None) -> Shards:
        """Write the lists of all items, around the trial's centroids if there are any."""
        self._write(work, plan, np.arange(work.count), tried=in_trial is not None)
        return ()

    def _write(self, work: Workspace, plan: Plan, rows: Positions, *, tried: bool = False) -> None:
        """Write the lists of those rows."""
        matrix = work.vectors(plan)
        if tried:
            centroids = inverted_lists.stored_centroids(work.directory)
        else:
            centroids = inverted_lists.train(matrix, rows, plan.lists, work.progress)
        inverted_lists.write(work.directory, matrix, rows, centroids, work.progress)
