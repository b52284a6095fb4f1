"""Chooses how an index version is searched: tries the plans, keeps the fastest of enough recall.

Recall@10 is measured on vectors held out of the collection, against exact search; speed on one
thread. What was measured goes into the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from services.searcher import annoy_file, inverted_lists, reduction, scan
from services.searcher.engine import (
    MEASURED_AT,
    AnnoyProposer,
    Engine,
    ListsProposer,
    ScanProposer,
    mapped,
    open_shards,
)
from services.searcher.inverted_lists import InvertedLists
from services.searcher.progress import Progress
from services.searcher.reduction import Reduction
from services.searcher.scan import Positions, Vectors
from services.searcher.settings import IndexSettings
from services.searcher.trial import Trial
from services.shared.items import ITEMS
from services.shared.manifest import (
    LISTED,
    LISTS,
    REDUCED,
    REDUCTION,
    VECTORS,
    Measurement,
    Method,
    Plan,
    Shard,
    required_files,
)

_log = structlog.get_logger(__name__)

_SAMPLE_ROWS: Final = 20_000
_SAMPLE_BYTES: Final = 256 * 2**20
_ROWS_AT_ONCE: Final = 8192
_DIMENSIONS: Final = (64, 128, 256)
_RERANKS: Final = (10, 20, 30, 50, 100, 200)
_RERANK_TO_PREFER: Final = 50
_FIRST_SEARCH_K: Final = 500
_FIRST_PROBES: Final = 4
_LISTS_A_ROOT: Final = 3
"""Lists, over the square root of the number of vectors."""
_LEAST_LISTED: Final = 2000
"""Fewer vectors are scanned as fast as lists of them."""
_RAW_BYTES: Final = 512 * 2**20
"""Annoy on the full vectors is tried up to this size: beyond, it never won and takes hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The plan chosen, its recall, every plan measured, and the files that it searches.

    energy: the share of energy that the reduction keeps, 1 without one.
    """

    plan: Plan
    recall: float
    energy: float
    measured: tuple[Measurement, ...]
    shards: tuple[Shard, ...]


def tune(
    directory: Path, count: int, dimension: int, settings: IndexSettings, progress: Progress
) -> Tuned:
    """Write what the best plan needs beside `directory`/vectors.f32 (count, dimension).

    Blocking: use a thread. Memory is bounded by blocks and samples, not by count. Files of plans
    not chosen are removed. Raises BuildFailed when a file can't be written.
    """
    if count == 1:
        return _only_one(dimension)
    tuner = _Tuner(directory, count, dimension, settings, progress)
    tuner.measure()
    chosen = _choose(tuner.measured, settings)
    shards = tuner.keep(chosen.plan)
    return Tuned(
        plan=chosen.plan,
        recall=chosen.recall,
        energy=tuner.energy if chosen.plan.reduces else 1.0,
        measured=tuple(tuner.measured),
        shards=shards,
    )


def _only_one(dimension: int) -> Tuned:
    """There is nothing to measure: whoever asks finds it."""
    plan = Plan(method="exact", dimension=dimension)
    return Tuned(plan=plan, recall=1.0, energy=1.0, measured=(), shards=())


def _choose(measured: Sequence[Measurement], settings: IndexSettings) -> Measurement:
    """The fastest whose recall is the target, surely; or else the one of the highest recall."""
    enough = [one for one in measured if one.recall_low >= settings.recall]
    if enough:
        return max(enough, key=lambda one: one.queries_per_second)
    best = max(measured, key=lambda one: (one.recall_low, one.queries_per_second))
    _log.warning(
        f"no plan reaches recall {settings.recall}: the best, {best.recall:.4f}, is taken; "
        "raise SIMILE_INDEX_TREES, or let SIMILE_INDEX_METHOD be auto",
        action="recall_target_missed",
    )
    return best


class _Tuner:
    """The files of a version while its plans are tried."""

    def __init__(
        self,
        directory: Path,
        count: int,
        dimension: int,
        settings: IndexSettings,
        progress: Progress,
    ) -> None:
        self._directory = directory
        self._dimension = dimension
        self._settings = settings
        self._progress = progress
        self._vectors = mapped(directory / VECTORS, count, dimension)
        self._tried: dict[Method, tuple[Shard, ...]] = {}
        self._trial = Trial(self._vectors)
        self._centroids: Vectors | None = None
        self.measured: list[Measurement] = []
        self.energy = 1.0

    def measure(self) -> None:
        """Try every plan worth it, the cheap ones first."""
        if self._wanted("exact"):
            self._measure_exact()
        if self._wanted("reduced", "reduced-annoy", "reduced-ivf"):
            self._measure_reduced()
        if self._wanted("annoy") and self._affordable():
            plan = Plan(method="annoy", dimension=self._dimension, trees=self._settings.trees)
            self._measure_annoy(plan, None)
        if not self.measured:  # only reduced ones were wanted, and these vectors can't be
            self._measure_exact()

    def keep(self, plan: Plan) -> tuple[Shard, ...]:
        """Leave the files that the plan needs and no others; its shards, now of all items."""
        for shard in (shard for shards in self._tried.values() for shard in shards):
            (self._directory / shard.file).unlink()
        shards = self._grow(plan) if plan.trees else ()
        if plan.lists:
            self._write_lists(plan, np.arange(len(self._vectors)))
        for name in {REDUCTION, REDUCED, LISTED, LISTS} - {*required_files(plan, shards)}:
            (self._directory / name).unlink(missing_ok=True)
        return shards

    def _wanted(self, *methods: Method) -> bool:
        return self._settings.method in {"auto", *methods}

    def _affordable(self) -> bool:
        return self._settings.method == "annoy" or self._vectors.nbytes <= _RAW_BYTES

    def _enough(self, one: Measurement) -> bool:
        return one.recall_low >= self._settings.recall

    def _measure_exact(self) -> None:
        plan = Plan(method="exact", dimension=self._dimension)
        engine = Engine(self._vectors, plan, None, None)
        self.measured.append(self._trial.measure(engine, self._bytes(plan), recall=1.0))

    def _measure_reduced(self) -> None:
        """Every method on reduced vectors, of the fewest dimensions that keep the neighbours."""
        fitted = self._fit()
        if fitted is None:
            return
        strongest, energies = fitted
        plan = self._reduce(strongest)
        reduced = strongest.truncated(plan.dimension)
        reduced.save(self._directory / REDUCTION)
        self.energy = min(1.0, float(energies[plan.dimension - 1]))
        if self._wanted("reduced"):
            matrix = mapped(self._directory / REDUCED, len(self._vectors), plan.dimension)
            engine = Engine(
                self._vectors, plan, reduced, ScanProposer(matrix, without=self._trial.rows)
            )
            self.measured.append(self._trial.measure(engine, self._bytes(plan)))
        if self._wanted("reduced-ivf") and len(self._trial.others) >= _LEAST_LISTED:
            self._measure_ivf(plan, reduced)
        if self._wanted("reduced-annoy"):
            trees = self._settings.trees
            self._measure_annoy(replace(plan, method="reduced-annoy", trees=trees), reduced)

    def _fit(self) -> tuple[Reduction, Vectors] | None:
        """A reduction fitted to vectors that ask nothing in the trial; None if there is no use."""
        most = min(self._settings.reduced_dimension, self._dimension)
        others = self._trial.others
        rows = min(len(others), _SAMPLE_ROWS, _SAMPLE_BYTES // (4 * self._dimension))
        if self._dimension <= _DIMENSIONS[0] or most < 1 or rows < 2 * most:
            return None
        self._progress.begin("reducing", len(self._vectors), "vectors")
        chosen = np.sort(np.random.default_rng(0).choice(others, rows, replace=False))
        return reduction.fit(np.take(self._vectors, chosen, axis=0), most)

    def _reduce(self, strongest: Reduction) -> Plan:
        """Write reduced.f32 of as few dimensions as keep enough neighbours among few candidates.

        The plan to scan it. The strongest dimensions of a reduction are a reduction themselves.
        """
        path, most = self._directory / REDUCED, len(strongest.components)
        for dimension in (*(one for one in _DIMENSIONS if one < most), most):
            reduced = strongest.truncated(dimension)
            self._write_reduced(path, reduced)
            matrix = mapped(path, len(self._vectors), dimension)
            best = scan.nearest(
                matrix,
                reduced.apply(self._trial.queries),
                _RERANKS[-1],
                without=self._trial.rows,
            )
            rerank = self._trial.rerank_needed(
                [positions for positions, _ in best], _RERANKS, self._settings.recall
            )
            if rerank is not None and rerank <= _RERANK_TO_PREFER:
                break
        return Plan(method="reduced", dimension=dimension, rerank=rerank or _RERANKS[-1])

    def _write_reduced(self, path: Path, reduced: Reduction) -> None:
        with path.open("wb") as out:
            for start in range(0, len(self._vectors), _ROWS_AT_ONCE):
                rows = reduced.apply(self._vectors[start : start + _ROWS_AT_ONCE])
                out.write(rows.astype("<f4", copy=False).tobytes())
                self._progress.advance(len(rows))

    def _measure_ivf(self, scanning: Plan, reduced: Reduction) -> None:
        """Inverted lists, of which as few are searched as suffice."""
        lists = round(_LISTS_A_ROOT * math.sqrt(len(self._vectors)))
        # What is missed in lists that are not searched, some more candidates make up for.
        rerank = next((one for one in _RERANKS if one > scanning.rerank), _RERANKS[-1])
        plan = replace(
            scanning, method="reduced-ivf", lists=lists, probes=_FIRST_PROBES, rerank=rerank
        )
        rows = self._trial.others
        self._write_lists(plan, rows)
        opened = InvertedLists.open(
            self._directory, len(rows), plan.dimension, lists, len(self._vectors)
        )

        def engine(probes: int) -> Engine:
            tried = replace(plan, probes=probes)
            return Engine(self._vectors, tried, reduced, ListsProposer(opened, probes))

        def enough(probes: int) -> bool:
            self._progress.advance(0)
            return self._trial.recall(engine(probes))[1] >= self._settings.recall

        most = lists // 2
        probes = _FIRST_PROBES
        while not enough(probes) and probes < most:
            probes = min(2 * probes, most)
        fewer = 3 * probes // 4
        if probes > _FIRST_PROBES and enough(fewer):
            probes = fewer
        self.measured.append(self._trial.measure(engine(probes), self._bytes(plan)))

    def _write_lists(self, plan: Plan, rows: Positions) -> None:
        """Write the lists of those rows."""
        matrix = mapped(self._directory / REDUCED, len(self._vectors), plan.dimension)
        if self._centroids is None:
            self._centroids = inverted_lists.train(matrix, rows, plan.lists, self._progress)
        inverted_lists.write(self._directory, matrix, rows, self._centroids, self._progress)

    def _measure_annoy(self, plan: Plan, reduced: Reduction | None) -> None:
        """Annoy at the smallest search_k that suffices, and around it.

        Ends early where a search is far slower already than what was measured before.
        """
        self._tried[plan.method] = self._grow(plan, self._trial.others)
        self._progress.begin("measuring", None, "plans")
        most = 2 * plan.trees * len(self._vectors)
        search_k = _FIRST_SEARCH_K
        while not self._enough(self._try(plan, search_k, reduced)):
            fastest = max((one.queries_per_second for one in self.measured if self._enough(one)),
                          default=0.0)  # fmt: skip
            if search_k >= most or 2 * self.measured[-1].queries_per_second < fastest:
                return
            search_k *= 2
        if search_k > _FIRST_SEARCH_K:
            self._try(plan, 3 * search_k // 4, reduced)
        if reduced is not None:  # of more nodes, fewer candidates may do
            self._try(plan, 2 * search_k, reduced)

    def _grow(self, plan: Plan, rows: Positions | None = None) -> tuple[Shard, ...]:
        """The Annoy files of all rows, or of those given."""
        matrix = self._directory / (VECTORS if plan.method == "annoy" else REDUCED)
        return annoy_file.write_shards(
            matrix, plan, len(self._vectors), self._settings.shard_items, self._progress, rows
        )

    def _try(self, plan: Plan, search_k: int, reduced: Reduction | None) -> Measurement:
        """Measure the plan at that search_k, with as few candidates to re-rank as suffice."""
        shards = self._tried[plan.method]
        plan = replace(plan, search_k=search_k, rerank=MEASURED_AT)
        proposer = _Others(open_shards(self._directory, plan, shards), self._trial.others)
        if reduced is not None:
            engine = Engine(self._vectors, plan, reduced, proposer)
            needed = self._trial.rerank_needed(
                engine.candidates(self._trial.queries, MEASURED_AT, _RERANKS[-1]),
                _RERANKS, self._settings.recall, shards=len(shards),
            )  # fmt: skip
            plan = replace(plan, rerank=needed or _RERANKS[-1])
        engine = Engine(self._vectors, plan, reduced, proposer)
        self.measured.append(self._trial.measure(engine, self._bytes(plan)))
        self._progress.advance()
        return self.measured[-1]

    def _bytes(self, plan: Plan) -> int:
        names = set(required_files(plan, self._tried.get(plan.method, ()))) - {ITEMS}
        return sum((self._directory / name).stat().st_size for name in names)


@dataclass(frozen=True, slots=True)
class _Others:
    """Names positions of the collection where the files tried hold only `others` of them."""

    proposer: AnnoyProposer
    others: Positions

    def propose(self, queries: Vectors, tens: int, depth: int) -> Sequence[Positions]:
        """What the proposer names, by their positions in the collection."""
        return [
            np.take(self.others, found) for found in self.proposer.propose(queries, tens, depth)
        ]
