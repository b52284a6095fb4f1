"""Chooses the search plan of an index version: the fastest that reaches the recall.

Recall@10 is measured on vectors held out of the collection, against exact search; speed on one
thread. All measurements are stored in the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from services.searcher.build.closeness import close_above
from services.searcher.build.trial import Trial
from services.searcher.index import reduction, scan
from services.searcher.index.engine import Engine
from services.searcher.index.methods.method import (
    MAX_RERANK,
    MEASURED_AT,
    Method,
    Proposer,
    Workspace,
)
from services.searcher.index.methods.registry import METHODS, required_files
from services.searcher.index.reduction import Reduction
from services.searcher.index.scan import Positions, Vectors, mapped
from services.searcher.progress import Progress
from services.searcher.settings import IndexSettings
from services.shared.volume.items import ITEMS
from services.shared.volume.manifest import (
    REDUCED,
    REDUCTION,
    VECTORS,
    Measurement,
    MethodName,
    Plan,
    Shard,
    Shards,
    reduces,
)

_log = structlog.get_logger(__name__)

_SAMPLE_ROWS: Final = 20_000
_SAMPLE_BYTES: Final = 256 * 2**20
_BLOCK_ROWS: Final = 8192
_DIMENSIONS: Final = (64, 128, 256)
_RERANKS: Final = (10, 20, 30, 50, 100, MAX_RERANK)
_RERANK_TO_PREFER: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The chosen plan, its recall, every measured plan, and the files of the chosen plan.

    energy: the share of energy that the reduction keeps, 1 without one. close_above: the similarity
    below which nothing is close, None if it is unknown.
    """

    plan: Plan
    recall: float
    energy: float
    measured: tuple[Measurement, ...]
    shards: Shards
    close_above: float | None = None


def tune(
    directory: Path,
    count: int,
    dimension: int,
    settings: IndexSettings,
    progress: Progress,
    *,
    methods: Mapping[MethodName, Method] = METHODS,
    in_children: bool = True,
) -> Tuned:
    """Choose a plan, and write its files beside `directory`/vectors.f32 (count, dimension).

    Blocking: use a thread. Memory is bounded by blocks and samples, not by count. Files of plans
    not chosen are removed. Raises BuildFailed when a file can't be written.
    """
    if count == 1:
        return _only_one(dimension)
    workspace = Workspace(
        directory=directory,
        count=count,
        dimension=dimension,
        settings=settings,
        progress=progress,
        in_children=in_children,
    )
    tuner = _Tuner(workspace, methods)
    tuner.try_methods()
    chosen = choose(tuner.measured, settings)
    shards = tuner.keep(chosen.plan)
    return Tuned(
        plan=chosen.plan,
        recall=chosen.recall,
        energy=tuner.energy(chosen.plan),
        measured=tuple(tuner.measured),
        shards=shards,
        close_above=close_above(tuner.trial),
    )


def _only_one(dimension: int) -> Tuned:
    """Return the plan of a collection with a single item: nothing can be measured."""
    plan = Plan(method="exact", dimension=dimension)
    return Tuned(plan=plan, recall=1.0, energy=1.0, measured=(), shards=())


def choose(measured: Sequence[Measurement], settings: IndexSettings) -> Measurement:
    """Return the fastest plan certain to reach the target, or the plan of the highest recall."""
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
    """Tries plans on the files of a version."""

    def __init__(self, workspace: Workspace, methods: Mapping[MethodName, Method]) -> None:
        self.workspace = workspace
        self.measured: list[Measurement] = []
        self._methods = methods
        self._settings = workspace.settings
        self._directory = workspace.directory
        self._before = {path.name for path in workspace.directory.iterdir()}
        self._vectors = mapped(workspace.directory / VECTORS, workspace.count, workspace.dimension)
        self.trial = Trial(self._vectors)
        self._strongest: Reduction | None = None
        self._energies: Vectors = np.ones(0, np.float32)
        self.base = self._full = Plan(method="exact", dimension=workspace.dimension)

    @property
    def held_out(self) -> Positions:
        """Return the positions of the queries, ascending."""
        return self.trial.held_out

    @property
    def indexed(self) -> Positions:
        """Return all other positions, ascending."""
        return self.trial.indexed

    @property
    def fastest(self) -> float:
        """Return queries per second of the fastest plan that reaches the recall so far, or 0."""
        enough = [one.queries_per_second for one in self.measured if self.is_enough(one)]
        return max(enough, default=0.0)

    def asks_for(self, method: MethodName) -> bool:
        """Return whether the settings name this method."""
        return self._settings.method == method

    def is_enough(self, measured: Measurement) -> bool:
        """Return whether a measured plan reaches the recall."""
        return measured.recall_low >= self._settings.recall

    def try_methods(self) -> None:
        """Try every selected method, cheap methods first."""
        methods, named = reversed([*self._methods.values()]), self._settings.method
        wanted = [method for method in methods if named in {"auto", method.name}]
        reduced = self._reduce() if any(reduces(method.name) for method in wanted) else None
        for method in wanted:
            base = reduced if reduces(method.name) else self._full
            if base is not None:
                self.base = base
                method.try_plans(self)
        if not self.measured:  # only reducing methods were selected, and they don't apply
            self.base = self._full
            self._methods["exact"].try_plans(self)

    def reaches(self, plan: Plan, proposer: Proposer) -> bool:
        """Return whether the plan reaches the requested recall with 95 % confidence."""
        return self.trial.recall(self._engine(plan, proposer))[1] >= self._settings.recall

    def reduction(self, dimension: int) -> Reduction:
        """Return the reduction to `dimension`, or to as many dimensions as there are.

        Raises RuntimeError when these vectors are not reduced.
        """
        if self._strongest is None:
            message = "these vectors are not reduced"
            raise RuntimeError(message)
        return self._strongest.truncated(dimension)

    def energy(self, plan: Plan) -> float:
        """Return the share of energy that the plan's reduction keeps, 1 without one."""
        return min(1.0, float(self._energies[plan.dimension - 1])) if plan.reduces else 1.0

    def with_rerank(
        self, plan: Plan, proposer: Proposer, *, shards: int = 1, depth: int = MAX_RERANK
    ) -> Plan:
        """Return the plan with the fewest candidates that reach the recall, or with `depth`."""
        engine = self._engine(plan, proposer)
        candidates = engine.candidates(self.trial.queries, MEASURED_AT, depth)
        depths = [*(one for one in _RERANKS if one < depth), depth]
        needed = self.trial.rerank_needed(candidates, depths, self._settings.recall, shards=shards)
        return replace(plan, rerank=needed or depth)

    def measure(
        self,
        plan: Plan,
        proposer: Proposer | None,
        *,
        shards: Sequence[Shard] = (),
        recall: float | None = None,
    ) -> Measurement:
        """Measure recall, unless it is given, and speed; add them to the measurements."""
        names = set(required_files(plan, shards)) - {ITEMS}
        size = sum((self._directory / name).stat().st_size for name in names)
        self.measured.append(self.trial.measure(self._engine(plan, proposer), size, recall=recall))
        return self.measured[-1]

    def keep(self, plan: Plan) -> Shards:
        """Write the plan's files for all items, and remove others; return its shards."""
        self._remove_all_but({*required_files(plan, ()), REDUCED})
        if plan.reduces:
            self.reduction(plan.dimension).save(self._directory / REDUCTION)
        shards = self._methods[plan.method].build(self.workspace, plan, self.indexed)
        self._remove_all_but(set(required_files(plan, shards)))
        return shards

    def _remove_all_but(self, names: set[str]) -> None:
        for path in self._directory.iterdir():
            if path.name not in names | self._before:
                path.unlink()

    def _engine(self, plan: Plan, proposer: Proposer | None) -> Engine:
        reduction = self.reduction(plan.dimension) if plan.reduces else None
        return Engine(self._vectors, plan, reduction, proposer)

    def _reduce(self) -> Plan | None:
        """Write reduction and reduced vectors; return the plan to scan them, None if not useful."""
        fitted = self._fit()
        if fitted is None:
            return None
        self._strongest, self._energies = fitted
        plan = self._write_smallest(self._strongest)
        self.reduction(plan.dimension).save(self._directory / REDUCTION)
        return plan

    def _fit(self) -> tuple[Reduction, Vectors] | None:
        """Fit a reduction to vectors outside the queries; return None if it is not useful."""
        most = min(self._settings.reduced_dimension, self._full.dimension)
        others = self.trial.indexed
        rows = min(len(others), _SAMPLE_ROWS, _SAMPLE_BYTES // (4 * self._full.dimension))
        if self._full.dimension <= _DIMENSIONS[0] or most < 1 or rows < 2 * most:
            return None
        self.workspace.progress.begin("reducing", len(self._vectors), "vectors")
        chosen = np.sort(np.random.default_rng(0).choice(others, rows, replace=False))
        return reduction.fit(np.take(self._vectors, chosen, axis=0), most)

    def _write_smallest(self, strongest: Reduction) -> Plan:
        """Write reduced.f32 with the fewest dimensions that keep enough neighbours.

        Returns the plan to scan it. The strongest dimensions of a reduction are a reduction, too.
        """
        path, most = self._directory / REDUCED, len(strongest.components)
        for dimension in (*(one for one in _DIMENSIONS if one < most), most):
            reduced = strongest.truncated(dimension)
            self._write_reduced(path, reduced)
            matrix = mapped(path, len(self._vectors), dimension)
            best = scan.nearest(
                matrix,
                reduced.apply(self.trial.queries),
                _RERANKS[-1],
                without=self.trial.held_out,
            )
            rerank = self.trial.rerank_needed(
                [positions for positions, _ in best], _RERANKS, self._settings.recall
            )
            if rerank is not None and rerank <= _RERANK_TO_PREFER:
                break
        return Plan(method="reduced", dimension=dimension, rerank=rerank or _RERANKS[-1])

    def _write_reduced(self, path: Path, reduced: Reduction) -> None:
        with path.open("wb") as out:
            for start in range(0, len(self._vectors), _BLOCK_ROWS):
                rows = reduced.apply(self._vectors[start : start + _BLOCK_ROWS])
                out.write(rows.astype("<f4", copy=False).tobytes())
                self.workspace.progress.advance(len(rows))
