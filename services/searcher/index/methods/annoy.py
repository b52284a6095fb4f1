"""Implements `annoy` and `reduced-annoy`: random projection trees, mapped from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from annoy import AnnoyIndex

from services.searcher.index.methods import annoy_file
from services.searcher.index.methods.method import MEASURED_AT, Proposer, Tuner, Workspace
from services.searcher.index.scan import Positions, Vectors
from services.searcher.settings import IndexSettings
from services.shared.volume.manifest import (
    Manifest,
    Measurement,
    MethodName,
    Plan,
    Shard,
    Shards,
    require,
)

_FIRST_SEARCH_K: Final = 500
_RAW_BYTES: Final = 512 * 2**20
"""Up to this size Annoy is tried on full vectors: beyond, it takes hours and was never fastest."""


class AnnoyProposer:
    """Searches the trees of every shard."""

    def __init__(self, shards: Sequence[tuple[int, AnnoyIndex]], search_k: int) -> None:
        """Take the first position of each shard, and its trees."""
        self._shards = shards
        self._search_k = search_k

    def propose(self, queries: Vectors, k_blocks: int, depth: int) -> Sequence[Positions]:
        """Return the best of every shard, in turn."""
        nodes = self._search_k * k_blocks
        # Lists, not arrays: Annoy holds the GIL while it converts, and a list converts faster.
        return [self._search(query, depth, nodes) for query in queries.tolist()]

    def _search(self, query: list[float], depth: int, nodes: int) -> Positions:
        parts = [
            np.array(trees.get_nns_by_vector(query, depth, nodes), np.int64) + first
            for first, trees in self._shards
        ]
        if len(parts) == 1:
            return parts[0]
        # In turn, so that any prefix has each shard's best.
        ranks = np.concatenate([np.arange(len(part)) for part in parts])
        return np.concatenate(parts)[np.argsort(ranks, kind="stable")]


@dataclass(frozen=True, slots=True)
class Annoy:
    """Builds a file for each shard."""

    name: MethodName
    files: tuple[str, ...] = ()

    def check(self, manifest: Manifest) -> None:
        """Refuse a plan without trees or effort, and a version without shards."""
        plan = manifest.plan
        require(plan.search_k > 0 and plan.trees > 0, "has no search_k or no trees")
        require(bool(manifest.shards), "has shards that don't hold all items")

    def open(
        self, directory: Path, plan: Plan, shards: Sequence[Shard], _count: int
    ) -> AnnoyProposer:
        """Map the files."""
        trees = [
            (shard.first, annoy_file.load(directory / shard.file, plan.dimension, shard.count))
            for shard in shards
        ]
        return AnnoyProposer(trees, plan.search_k)

    def first_plan(self, base: Plan, settings: IndexSettings, _count: int) -> Plan:
        """Return the plan of fewest nodes."""
        trees, search_k = settings.trees, _FIRST_SEARCH_K
        return replace(base, method=self.name, trees=trees, search_k=search_k, rerank=MEASURED_AT)

    def try_plans(self, tuner: Tuner) -> None:
        """Measure the smallest sufficient search_k, and values around it.

        Ends early if a search is already far slower than the measured plans.
        """
        work = tuner.workspace
        plan = self.first_plan(tuner.base, work.settings, work.count)
        too_large = work.matrix(plan).stat().st_size > _RAW_BYTES
        if too_large and not plan.reduces and not tuner.asks_for(self.name):
            return
        shards = annoy_file.write_shards(work, plan, tuner.indexed)
        work.progress.begin("measuring", None, "plans")
        most = 2 * plan.trees * work.count
        while not tuner.is_enough(measured := self._try(tuner, plan, shards)):
            if plan.search_k >= most or 2 * measured.queries_per_second < tuner.fastest:
                return
            plan = replace(plan, search_k=2 * plan.search_k)
        if plan.search_k > _FIRST_SEARCH_K:
            self._try(tuner, replace(plan, search_k=3 * plan.search_k // 4), shards)
        if plan.reduces:  # with more nodes, fewer candidates may suffice
            self._try(tuner, replace(plan, search_k=2 * plan.search_k), shards)

    def build(self, work: Workspace, plan: Plan, _in_trial: Positions | None = None) -> Shards:
        """Grow the trees of all items."""
        return annoy_file.write_shards(work, plan)

    def _try(self, tuner: Tuner, plan: Plan, shards: Sequence[Shard]) -> Measurement:
        """Measure the plan with the fewest sufficient candidates to re-rank."""
        opened = self.open(tuner.workspace.directory, plan, shards, len(tuner.indexed))
        proposer = _Mapped(opened, tuner.indexed)
        if plan.reduces:
            plan = tuner.with_rerank(plan, proposer, shards=len(shards))
        measured = tuner.measure(plan, proposer, shards=shards)
        tuner.workspace.progress.advance()
        return measured


@dataclass(frozen=True, slots=True)
class _Mapped:
    """Maps positions in files of `indexed` items to positions of the collection."""

    proposer: Proposer
    indexed: Positions

    def propose(self, queries: Vectors, k_blocks: int, depth: int) -> Sequence[Positions]:
        """Return the proposer's candidates, by positions in the collection."""
        found = self.proposer.propose(queries, k_blocks, depth)
        return [np.take(self.indexed, some) for some in found]
