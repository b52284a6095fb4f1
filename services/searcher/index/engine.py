"""Searches a version's files by its plan: candidates of the plan's method, then exact order.

Distances are always exact, from the full vectors; only the choice of candidates is approximate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.searcher.index import scan
from services.searcher.index.methods.method import MEASURED_AT, Proposer
from services.searcher.index.methods.registry import METHODS
from services.searcher.index.reduction import Reduction
from services.searcher.index.scan import Positions, Vectors
from services.shared.telemetry.stopwatch import clock
from services.shared.volume.manifest import REDUCTION, VECTORS, Plan, Shard

Distances = NDArray[np.float32]
"""Angular distances: sqrt(2 - 2 cos), 0..2."""

Found = tuple[Positions, Distances]
"""The answer to one query, nearest first."""

_SMALL_BYTES: Final = 64 * 2**20
QUICK_BYTES: Final = 16 * 2**20
"""Bytes that are scanned in about a millisecond."""


@dataclass(slots=True)
class SearchTimings:
    """The time of a search that only the engine knows: exact ordering of candidates, in seconds."""

    rerank_seconds: float = 0.0


class Engine:
    """The mapped files of a version; thread-safe, never unloaded."""

    def __init__(
        self, vectors: Vectors, plan: Plan, reduction: Reduction | None, proposer: Proposer | None
    ) -> None:
        """Create an engine; without a proposer every vector is compared."""
        self.vectors = vectors
        self.plan = plan
        self._reduction = reduction
        self._proposer = proposer

    @classmethod
    def open(
        cls, directory: Path, plan: Plan, shards: Sequence[Shard], count: int, dimension: int
    ) -> Engine:
        """Map the files of a version. Raises IndexCorrupt.

        Check their hashes before: a damaged Annoy file crashes the process, or gives wrong results.
        """
        vectors = scan.mapped(directory / VECTORS, count, dimension)
        reduction: Reduction | None = None
        if plan.reduces:
            reduction = Reduction.load(directory / REDUCTION, (plan.dimension, dimension))
        proposer = METHODS[plan.method].open(directory, plan, shards, count)
        return cls(vectors, plan, reduction, proposer)

    def quick(self, ks: Iterable[int]) -> bool:
        """Return whether queries for these neighbours each take about a millisecond.

        Changing threads under load costs as much. Only for small collections, whose files stay in
        memory: no search waits for a disk.
        """
        scanned = len(self.vectors) * self.plan.dimension * self.vectors.itemsize
        return (
            self.vectors.nbytes <= _SMALL_BYTES and sum(map(_k_blocks, ks)) * scanned <= QUICK_BYTES
        )

    def search(self, queries: Vectors, k: int, spent: SearchTimings | None = None) -> list[Found]:
        """Return the k nearest of each query (n, dimension) by the plan; `spent` adds up the time.

        Fewer than k only if the collection has fewer, or Annoy finds no more.
        """
        if self._proposer is None:
            return self.exact(queries, k)
        candidates = self.candidates(queries, k, self._depth(k))
        began = clock()
        found = [
            self.among(query, some, k) for query, some in zip(queries, candidates, strict=True)
        ]
        if spent is not None:
            spent.rerank_seconds += clock() - began
        return found

    def exact(self, queries: Vectors, k: int) -> list[Found]:
        """Return the k nearest of each query (n, dimension) by a full scan."""
        return [
            (positions, _distances(dots))
            for positions, dots in scan.nearest(self.vectors, queries, k)
        ]

    def among(self, query: Vectors, positions: Positions, k: int) -> Found:
        """Return the k nearest of a query (dimension,) among those positions."""
        best, dots = scan.nearest_among(self.vectors, positions, query, k)
        return best, _distances(dots)

    def ranked(self, query: Vectors, positions: Positions | None) -> Found:
        """Return these positions, or all, by distance from a query (dimension,)."""
        ordered, dots = scan.ranked(self.vectors, query, positions)
        return ordered, _distances(dots)

    def candidates(self, queries: Vectors, k: int, depth: int) -> Sequence[Positions]:
        """Return the plan's candidates for k neighbours, at most `depth` per query and shard."""
        if self._proposer is None:
            return [positions for positions, _ in self.exact(queries, depth)]
        reduced = queries if self._reduction is None else self._reduction.apply(queries)
        return self._proposer.propose(reduced, _k_blocks(k), depth)

    def _depth(self, k: int) -> int:
        return min(max(k, -(-k * self.plan.rerank // MEASURED_AT)), len(self.vectors))


def _k_blocks(k: int) -> int:
    """Return k in blocks of the neighbours that a plan is measured for."""
    return -(-k // MEASURED_AT)


def _distances(dots: Vectors) -> Distances:
    distances: Distances = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * dots))
    return distances
