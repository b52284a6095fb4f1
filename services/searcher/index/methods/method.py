"""Defines the port of a search method: files, tuning, building, checking, opening."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from zipfile import BadZipFile

import numpy as np

from services.searcher.index.reduction import Reduction
from services.searcher.index.scan import Positions, Vectors, mapped
from services.searcher.progress import Progress
from services.searcher.settings import IndexSettings
from services.shared.errors import BuildFailed, IndexCorrupt
from services.shared.volume.manifest import (
    REDUCED,
    VECTORS,
    Manifest,
    Measurement,
    MethodName,
    Plan,
    Shard,
    Shards,
)

MEASURED_AT: Final = 10
"""The k that a plan is measured for; more neighbours take proportionally more candidates."""

MAX_RERANK: Final = 200
"""The maximum of candidates to re-rank for ten neighbours, unless a method needs more."""

_HALVINGS: Final = 3
_BLOCK_ROWS: Final = 500


class Proposer(Protocol):
    """Proposes candidates from the open files of a method."""

    def propose(self, queries: Vectors, k_blocks: int, depth: int) -> Sequence[Positions]:
        """Return up to `depth` candidates (of each shard) for each query (n, plan.dimension).

        Args:
            queries: unit vectors, reduced where the method searches reduced vectors.
            k_blocks: the wanted neighbours in blocks of ten; effort grows in proportion.
            depth: the number of candidates that are re-ranked.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """The inputs and the directory of a method's files.

    Attributes:
        directory: of the new version; vectors.f32 is in it, and reduced.f32 for the methods that
            search reduced vectors.
        count: items in the collection.
        dimension: of the full vectors.
        in_children: write files by a child process where a full volume can crash the writer.
    """

    directory: Path
    count: int
    dimension: int
    settings: IndexSettings
    progress: Progress
    in_children: bool = True

    def matrix(self, plan: Plan) -> Path:
        """Return the file of the vectors that the plan searches."""
        return self.directory / (REDUCED if plan.reduces else VECTORS)

    def vectors(self, plan: Plan) -> Vectors:
        """Map that file: (count, plan.dimension)."""
        return mapped(self.matrix(plan), self.count, plan.dimension)

    def reduced(self, rows: Positions, reduction: Reduction) -> Iterator[tuple[Positions, Vectors]]:
        """Yield those rows of the full vectors reduced, by blocks, and report the progress."""
        vectors = mapped(self.directory / VECTORS, self.count, self.dimension)
        for start in range(0, len(rows), _BLOCK_ROWS):
            some = rows[start : start + _BLOCK_ROWS]
            yield some, reduction.apply(np.take(vectors, some, axis=0))
            self.progress.advance(len(some))


class Tuner(Protocol):
    """Measures plans on queries held out of the collection."""

    @property
    def workspace(self) -> Workspace:
        """The version's files."""

    @property
    def base(self) -> Plan:
        """The plan of a scan of the vectors that the method searches: dimension and rerank."""

    @property
    def held_out(self) -> Positions:
        """The positions of the queries, ascending: no proposer may name them."""

    @property
    def indexed(self) -> Positions:
        """All other positions, ascending."""

    @property
    def fastest(self) -> float:
        """Queries per second of the fastest plan so far that reaches the recall, or 0."""

    def asks_for(self, method: MethodName) -> bool:
        """Return whether the settings name this method explicitly."""

    def reaches(self, plan: Plan, proposer: Proposer) -> bool:
        """Return whether the plan reaches the requested recall with 95 % confidence."""

    def reduction(self, dimension: int) -> Reduction:
        """Return the reduction to `dimension`, or to as many dimensions as there are."""

    def with_rerank(
        self, plan: Plan, proposer: Proposer, *, shards: int = 1, depth: int = MAX_RERANK
    ) -> Plan:
        """Return the plan with the fewest candidates to re-rank that reach the recall.

        With `depth` of each shard, if no fewer suffice.
        """

    def measure(
        self,
        plan: Plan,
        proposer: Proposer | None,
        *,
        shards: Sequence[Shard] = (),
        recall: float | None = None,
    ) -> Measurement:
        """Measure recall, unless it is given, and speed; add them to the measurements."""

    def is_enough(self, measured: Measurement) -> bool:
        """Return whether a measured plan reaches the recall."""


class Method(Protocol):
    """A way to search."""

    @property
    def name(self) -> MethodName:
        """The name in manifests and settings; methods on reduced vectors begin with "reduced"."""

    @property
    def files(self) -> tuple[str, ...]:
        """Its own files, besides vectors, reduction, items and shards."""

    def check(self, manifest: Manifest, /) -> None:
        """Raise IndexCorrupt for a manifest that this method can't search correctly."""

    def open(
        self, directory: Path, plan: Plan, shards: Sequence[Shard], count: int, /
    ) -> Proposer | None:
        """Map its files, whose hashes were checked; None: every vector is compared.

        Raises IndexCorrupt.
        """

    def first_plan(self, base: Plan, settings: IndexSettings, count: int, /) -> Plan:
        """Return the plan of least effort for `count` items."""

    def try_plans(self, tuner: Tuner, /) -> None:
        """Build for the indexed items, and measure the promising plans. Raises BuildFailed."""

    def build(self, work: Workspace, plan: Plan, in_trial: Positions | None = None, /) -> Shards:
        """Write the files of the plan for all items; return its shards.

        Args:
            work: may have files of the trial, which can be used.
            plan: a measured plan.
            in_trial: the positions of the items in the trial's files.

        Raises:
            BuildFailed: a file could not be written.
        """


def least_effort(
    tuner: Tuner, tried: Callable[[int], tuple[Plan, Proposer]], first: int, limit: int
) -> int:
    """Return the smallest effort that reaches the recall, within an eighth; at most the limit.

    Doubles the effort from `first` until it suffices, then bisects the last step.

    Args:
        tuner: measures the recall.
        tried: returns the plan of an effort, and a proposer that spends it.
        first: the first effort.
        limit: the last.
    """

    def reaches(effort: int) -> bool:
        tuner.workspace.progress.advance(0)
        return tuner.reaches(*tried(effort))

    effort = first
    while effort < limit and not reaches(effort):
        effort = min(2 * effort, limit)
    low = effort // 2
    for _ in range(_HALVINGS if effort > first else 0):
        middle = (low + effort) // 2
        low, effort = (low, middle) if reaches(middle) else (middle, effort)
    return effort


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise IndexCorrupt for what a library raises inside for a file that is not its own."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, BadZipFile) as error:
        message = f"{path.name} can't be opened: {error}"
        raise IndexCorrupt(message) from error


def require_contents(path: Path, found: object, expected: tuple[int, int]) -> None:
    """Raise IndexCorrupt where a file does not hold so many vectors of so many dimensions."""
    if found != expected:
        message = f"{path.name} does not hold {expected[0]} vectors of {expected[1]} dimensions"
        raise IndexCorrupt(message)


def unwritten(path: object, why: object) -> BuildFailed:
    """Return the error of a file that a library could not write."""
    return BuildFailed(f"{path} could not be written ({why}): is the volume full?")
