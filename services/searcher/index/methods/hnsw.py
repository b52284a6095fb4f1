"""`reduced-hnsw`: a graph of the reduced vectors in bfloat16, mapped from one file.

A search walks from neighbour to neighbour (Malkov, Yashunin: Efficient and robust approximate
nearest neighbor search using hierarchical navigable small world graphs, 2016), and keeps `search_k`
candidates on its way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import structlog
from usearch.index import Index, Matches

from services.searcher.index.methods import method
from services.searcher.index.methods.method import Tuner, Workspace
from services.searcher.index.reduction import Reduction
from services.searcher.index.scan import Positions, Vectors
from services.searcher.settings import IndexSettings
from services.shared import cores
from services.shared.volume import manifest
from services.shared.volume.manifest import Manifest, MethodName, Plan, Shard, Shards

_log = structlog.get_logger(__name__)

_FILE: Final = "graph.usearch"
_OPTIONS: Final[dict[str, Any]] = {"connectivity": 16, "expansion_add": 128, "expansion_search": 1}
_NOISE: Final = 1e-3
"""The length of what is added to each vector: a graph of equal vectors falls into parts."""
_MAX_BYTES: Final = 2**30
"""The memory for a graph in a build that does not name the method."""
_NODE_BYTES: Final = 160
_FEW_RERANKED: Final = 20
_FIRST_SEARCH_K: Final = 10
_MAX_SEARCH_K: Final = 2560
_REPEATABLE: Final = 20_000
"""Up to so many items one thread builds, so that the same vectors make the same graph."""
_PATIENCE: Final = 0.2
"""The share of the time allowed after which a graph that is behind is given up."""


@dataclass(frozen=True, slots=True)
class GraphWalk:
    """Proposes what walks through the graph find; used from several threads at once."""

    graph: Index
    search_k: int

    def propose(self, queries: Vectors, k_blocks: int, depth: int) -> Sequence[Positions]:
        """Return the best by their reduced vectors, best first."""
        # A walk keeps as many candidates as it returns: threads share a graph without settings
        # that change. usearch does not hold the GIL while it searches.
        kept = min(max(depth, self.search_k * k_blocks), len(self.graph))
        found = self.graph.search(queries, kept, threads=1)
        rows = [found] if isinstance(found, Matches) else found
        return [row.keys[:depth].astype(np.int64) for row in rows]


@dataclass(frozen=True, slots=True)
class Hnsw:
    """Has one file, vectors and links, which processes share; tried from `min_items` items on."""

    min_items: int = 50_000
    name: MethodName = "reduced-hnsw"
    files: tuple[str, ...] = (_FILE,)

    def check(self, found: Manifest) -> None:
        """Refuse a plan without effort."""
        manifest.require_no_shards(found)
        manifest.require(found.plan.search_k > 0, "has no search_k")

    def open(self, directory: Path, plan: Plan, _shards: Sequence[Shard], count: int) -> GraphWalk:
        """Map the graph."""
        return GraphWalk(_opened(directory / _FILE, plan.dimension, count), plan.search_k)

    def first_plan(self, base: Plan, _settings: IndexSettings, _count: int) -> Plan:
        """Return the plan that keeps the fewest candidates."""
        return replace(base, method=self.name, search_k=_FIRST_SEARCH_K, rerank=_FIRST_SEARCH_K)

    def try_plans(self, tuner: Tuner) -> None:
        """Measure the smallest search_k that suffices, and one with fewer candidates to re-rank."""
        work, base, asked = tuner.workspace, tuner.base, tuner.asks_for(self.name)
        # A walk compares few vectors: more dimensions cost less than more steps.
        reduction = tuner.reduction(base.dimension * (1 if base.rerank <= _FEW_RERANKED else 2))
        size = work.count * (2 * reduction.dimension + _NODE_BYTES)
        if not asked and (work.count < self.min_items or size > _MAX_BYTES):
            return
        limit = np.inf if asked else work.settings.graph_seconds
        if not _extend(work, tuner.indexed, reduction, limit):
            _log.info("no graph in the time allowed", action="graph_given_up", seconds=limit)
            return
        graph = _opened(work.directory / _FILE, reduction.dimension, len(tuner.indexed))

        def tried(kept: int) -> tuple[Plan, GraphWalk]:
            plan = replace(base, method=self.name, dimension=graph.ndim, search_k=kept, rerank=kept)
            return plan, GraphWalk(graph, kept)

        fewest = method.least_effort(tuner, tried, _FIRST_SEARCH_K, _MAX_SEARCH_K)
        for kept in (fewest, 3 * fewest // 2):
            plan, walk = tried(kept)
            tuner.measure(tuner.with_rerank(plan, walk, depth=kept), walk)

    def build(self, work: Workspace, plan: Plan, in_trial: Positions | None = None) -> Shards:
        """Add the items that were not in the trial, or all."""
        shape = (plan.dimension, work.dimension)
        reduction = Reduction.load(work.directory / manifest.REDUCTION, shape)
        missing = np.setdiff1d(np.arange(work.count), () if in_trial is None else in_trial)
        _extend(work, missing, reduction)
        return ()


def _opened(path: Path, dimension: int, count: int) -> Index:
    """Map a graph. Raises IndexCorrupt; only a file whose hash was checked is safe to map."""
    with method.reading(path):
        # `restore` reads the head before anything is mapped, which `view` alone does not. To look
        # vectors up by their keys would take memory in each process.
        graph = Index.restore(str(path), view=True, enable_key_lookups=False, **_OPTIONS)
    method.require_contents(path, graph and (len(graph), graph.ndim), (count, dimension))
    return cast("Index", graph)


def _extend(work: Workspace, rows: Positions, reduction: Reduction, limit: float = np.inf) -> bool:
    """Add the rows to the stored graph, or to a new one; False where `limit` seconds are too few.

    Memory: that of the graph. Raises BuildFailed.
    """
    # Euclidean distances order unit vectors as cosines do. Inner products do not order vectors that
    # are rounded: the longest are near to all, and the copies of a picture lose their links. A walk
    # takes a third less time in bf16 than in f16; in i8 the noise would be rounded away.
    graph = Index(ndim=reduction.dimension, metric="l2sq", dtype="bf16", **_OPTIONS)
    path, began, rng = work.directory / _FILE, time.monotonic(), np.random.default_rng(0)
    if path.is_file():
        graph.load(str(path))
    work.progress.begin("linking the graph", len(rows), "vectors")
    threads = 1 if work.count <= _REPEATABLE else cores.available()
    # In any order but that of the folder, where neighbours follow each other.
    for some, vectors in work.reduced(rng.permutation(rows), reduction):
        noise = rng.normal(0, _NOISE / np.sqrt(graph.ndim), vectors.shape).astype(np.float32)
        graph.add(some, vectors + noise, threads=threads)
        if time.monotonic() - began > limit * max(_PATIENCE, len(graph) / len(rows)):
            return False
    try:
        graph.save(str(path))
    except (OSError, RuntimeError) as error:
        raise method.unwritten(path, error) from error
    return True
