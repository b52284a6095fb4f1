"""`reduced-hnsw`: a graph of the reduced vectors in half precision, mapped from one file.

A search walks from neighbour to neighbour (Malkov, Yashunin: Efficient and robust approximate
nearest neighbor search using hierarchical navigable small world graphs, 2016); `search_k` of the
plan is how many candidates it keeps on its way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
from usearch.index import Index, Matches

from services.searcher.index.methods.method import MEASURED_AT, Tuner, Workspace, smallest
from services.searcher.index.reduction import Reduction
from services.searcher.index.scan import Positions, Vectors
from services.searcher.settings import IndexSettings
from services.shared import cores
from services.shared.errors import BuildFailed, IndexCorrupt
from services.shared.volume import manifest
from services.shared.volume.manifest import Manifest, MethodName, Plan, Shard

_log = structlog.get_logger(__name__)

_FILE: Final = "graph.usearch"
_OPTIONS: Final[dict[str, Any]] = {
    "connectivity": 16, "expansion_add": 128, "expansion_search": 1,
}  # fmt: skip
_NOISE: Final = 1e-3
"""The length of what is added to each vector: a graph of equal vectors falls into parts."""
_MAX_BYTES: Final = 2**30
"""The memory for a graph in a build that does not name the method."""
_NODE_BYTES: Final = 160
_FEW_RERANKED: Final = 20
_MAX_SEARCH_K: Final = 2560
_BLOCK_ROWS: Final = 500
_REPEATABLE: Final = 20_000
"""Up to so many items one thread builds, so that the same vectors make the same graph."""
_PATIENCE: Final = 0.2
"""The share of the time allowed after which a graph that is behind is given up."""


@dataclass(frozen=True, slots=True)
class GraphProposer:
    """Proposes what walks through the graph find; used from several threads at once."""

    graph: Index
    search_k: int

    def propose(self, queries: Vectors, k_blocks: int, depth: int) -> Sequence[Positions]:
        """Return the best by their reduced vectors, best first."""
        # A walk keeps as many candidates as it returns: threads share a graph without settings
        # that change. usearch does not hold the GIL while it searches.
        kept = min(max(depth, self.search_k * k_blocks), len(self.graph))
        found = self.graph.search(queries, kept, threads=1)
        if isinstance(found, Matches):
            return [found.keys[:depth].astype(np.int64)]
        sizes = np.minimum(found.counts, depth).tolist()
        return [row[:size].astype(np.int64) for row, size in zip(found.keys, sizes, strict=True)]


@dataclass(frozen=True, slots=True)
class Hnsw:
    """Has one file: vectors and links, shared by all processes that map it.

    Attributes:
        min_items: where fewer are searched fast enough without a graph to build.
    """

    min_items: int = 50_000
    name: MethodName = "reduced-hnsw"

    def files(self, _plan: Plan) -> tuple[str, ...]:
        """Return the graph."""
        return (_FILE,)

    def check(self, found: Manifest) -> None:
        """Refuse a plan without effort."""
        manifest.require_no_shards(found)
        manifest.require(found.plan.search_k > 0, "has no search_k")

    def open(
        self, directory: Path, plan: Plan, _shards: Sequence[Shard], count: int
    ) -> GraphProposer:
        """Map the graph."""
        return GraphProposer(_opened(directory / _FILE, plan.dimension, count), plan.search_k)

    def first_plan(self, base: Plan, _settings: IndexSettings, _count: int) -> Plan:
        """Return the plan that keeps the fewest candidates."""
        return replace(base, method=self.name, search_k=MEASURED_AT, rerank=MEASURED_AT)

    def try_plans(self, tuner: Tuner) -> None:
        """Measure the smallest search_k that suffices, and one with fewer candidates to re-rank."""
        work, base, rows = tuner.workspace, tuner.base, tuner.indexed
        # A walk compares few vectors: more dimensions cost less than more steps.
        reduction = tuner.reduction(base.dimension * (1 if base.rerank <= _FEW_RERANKED else 2))
        size = work.count * (2 * reduction.dimension + _NODE_BYTES)
        if not tuner.asks_for(self.name) and (work.count < self.min_items or size > _MAX_BYTES):
            return
        limit = np.inf if tuner.asks_for(self.name) else work.settings.graph_seconds
        if not _write(work, _new(reduction.dimension), rows, reduction, limit):
            _log.info("no graph in the time allowed", action="graph_given_up", seconds=limit)
            return
        graph = _opened(work.directory / _FILE, reduction.dimension, len(rows))
        plan = self.first_plan(base, work.settings, work.count)
        plan = replace(plan, dimension=reduction.dimension)

        def reaches(search_k: int) -> bool:
            work.progress.advance(0)
            tried = replace(plan, search_k=search_k, rerank=search_k)
            return tuner.reaches(tried, GraphProposer(graph, search_k))

        fewest = smallest(reaches, plan.search_k, _MAX_SEARCH_K)
        for search_k in (fewest, 3 * fewest // 2):
            tried, proposer = replace(plan, search_k=search_k), GraphProposer(graph, search_k)
            tuner.measure(tuner.with_rerank(tried, proposer, depth=search_k), proposer)

    def build(
        self, workspace: Workspace, plan: Plan, in_trial: Positions | None = None
    ) -> tuple[Shard, ...]:
        """Add the items that were not in the trial, or all."""
        rows, graph = np.arange(workspace.count), _new(plan.dimension)
        if in_trial is not None:
            rows = np.setdiff1d(rows, in_trial)
            graph.load(str(workspace.directory / _FILE))
        shape = (plan.dimension, workspace.dimension)
        reduction = Reduction.load(workspace.directory / manifest.REDUCTION, shape)
        _write(workspace, graph, rows, reduction)
        return ()


def _new(dimension: int) -> Index:
    """Return a graph without vectors.

    Euclidean distances order unit vectors as cosines do. Inner products do not order vectors that
    are rounded: the longest are near to all, and the copies of a picture lose their links.
    """
    return Index(ndim=dimension, metric="l2sq", dtype="f16", **_OPTIONS)


def _opened(path: Path, dimension: int, count: int) -> Index:
    """Map a graph. Raises IndexCorrupt; only a file whose hash was checked is safe to map."""
    try:
        # `restore` reads the head before anything is mapped, which `view` alone does not. To look
        # vectors up by their keys would take memory in each process.
        graph = Index.restore(str(path), view=True, enable_key_lookups=False, **_OPTIONS)
    except (OSError, RuntimeError, ValueError) as error:
        message = f"{path.name} is no graph: {error}"
        raise IndexCorrupt(message) from error
    if graph is None or (graph.ndim, len(graph)) != (dimension, count):
        message = f"{path.name} does not hold {count} vectors of {dimension} dimensions"
        raise IndexCorrupt(message)
    return graph


def _write(
    work: Workspace, graph: Index, rows: Positions, reduction: Reduction, limit: float = np.inf
) -> bool:
    """Add the rows, and write the graph; return False when `limit` seconds are not enough.

    Memory: that of the graph. Raises BuildFailed.
    """
    work.progress.begin("linking the graph", len(rows), "vectors")
    began, path, done = time.monotonic(), work.directory / _FILE, 0
    threads = 1 if work.count <= _REPEATABLE else cores.available()
    rng = np.random.default_rng(0)
    # In any order but that of the folder, where neighbours follow each other.
    for some, vectors in work.reduced(rng.permutation(rows), reduction, _BLOCK_ROWS):
        noise = rng.standard_normal(vectors.shape, dtype=np.float32)
        noise *= _NOISE / np.sqrt(reduction.dimension)
        graph.add(some, vectors + noise, threads=threads)
        done += len(some)
        if time.monotonic() - began > limit * max(_PATIENCE, done / len(rows)):
            return False
    partial = path.with_suffix(".partial")  # the file of the trial may still be mapped
    try:
        graph.save(str(partial))
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        message = f"the graph {path} could not be written ({error}): is the volume full?"
        raise BuildFailed(message) from error
    return True
