"""Measures recall against exact search, the effort for a target, and speeds in turn."""

from __future__ import annotations

import itertools
import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from services.searcher.index import scan
from services.searcher.index.scan import Vectors
from tests.benchmarks.engines import BATCH_QUERIES, K, Opened, Search

TARGETS: Final = (0.99, 0.999)

_EQUAL: Final = 1e-6
_ROUNDS: Final = 9
_SLOT_SECONDS: Final = 0.4
_PASS_SECONDS: Final = 60.0
_FINE: Final = 1.06
_LEAST_FOR_P99: Final = 200
_THREADS: Final = 2


class Truth:
    """The exact answers to a set's queries; among equally near items any is correct."""

    def __init__(self, vectors: Vectors, queries: Vectors) -> None:
        self._vectors = vectors
        self.queries = queries
        self._bounds = [dots[-1] - _EQUAL for _, dots in scan.nearest(vectors, queries, K)]

    def recall(self, search: Search) -> tuple[float, float]:
        """Return recall@10 of all queries in batches of 32, and the queries per second."""
        found: list[NDArray[np.int64]] = []
        started = time.perf_counter()
        for start in range(0, len(self.queries), BATCH_QUERIES):
            found += search(self.queries[start : start + BATCH_QUERIES])
        seconds = time.perf_counter() - started
        right = sum(
            self._right(query, bound, positions)
            for query, bound, positions in zip(self.queries, self._bounds, found, strict=True)
        )
        return right / (K * len(self.queries)), len(self.queries) / seconds

    def _right(self, query: Vectors, bound: float, positions: NDArray[np.int64]) -> int:
        distinct = np.unique(positions[positions >= 0])
        return min(K, int(np.count_nonzero(self._vectors[distinct] @ query >= bound)))


@dataclass(slots=True)
class Tried:
    """An effort of an engine: recall, and a first measurement of its speed."""

    effort: int
    recall: float
    queries_per_second: float


@dataclass(slots=True)
class Point:
    """An effort whose speed is measured; why: default, reaches 0.99, or reaches 0.999.

    Without a reason it is only a point of the curve, for which only `together` is measured.
    together: queries per second of a thread in batches of 32, one figure per round. threaded: of 2
    such threads. alone: the seconds of each query sent by itself.
    """

    engine: str
    why: list[str]
    effort: int
    recall: float
    search: Search
    together: list[float] = field(default_factory=list)
    threaded: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)

    def figures(self) -> Mapping[str, Any]:
        """Return the recorded figures; a p99 only with enough queries."""
        figures: dict[str, Any] = {
            "why": self.why,
            "effort": self.effort,
            "recall": self.recall,
            "queries_per_second": statistics.median(self.together),
            "queries_per_second_rounds": self.together,
        }
        if not self.why:
            return figures
        milliseconds = 1000 * np.array(self.alone)
        enough = len(self.alone) >= _LEAST_FOR_P99
        return {
            **figures,
            "queries_per_second_two_threads": statistics.median(self.threaded),
            "queries_per_second_two_threads_rounds": self.threaded,
            "one_query_ms_p50": float(np.percentile(milliseconds, 50)),
            "one_query_ms_p99": float(np.percentile(milliseconds, 99)) if enough else None,
            "one_query_samples": len(self.alone),
        }


def find_efforts(
    engine: str, opened: Opened, truth: Truth
) -> tuple[Sequence[Point], Sequence[Tried]]:
    """Return the efforts to measure, and all that were tried.

    Measured are the default, the smallest that reach each target, and some between for a curve. A
    target is left out that takes a minute for all queries, or that no effort reaches.
    """
    tried: dict[int, Tried] = {}

    def reaches(effort: int, target: float) -> bool:
        if effort not in tried:
            tried[effort] = Tried(effort, *truth.recall(opened.search(effort)))
        return tried[effort].recall >= target

    points: dict[int, Point] = {}

    def add(effort: int, *why: str) -> None:
        recall = tried[effort].recall
        point = Point(engine, [], effort, recall, opened.search(effort))
        points.setdefault(effort, point).why.extend(why)

    reaches(opened.efforts[0], 0)
    add(opened.efforts[0], "default")
    if len(opened.efforts) > 1:
        for target in TARGETS:
            effort = _smallest(opened.efforts, target, reaches, tried)
            if effort is not None:
                add(effort, f"{target:g}")
    for effort in opened.efforts:
        if effort in tried:
            add(effort)
    return list(points.values()), sorted(tried.values(), key=lambda one: one.effort)


def _smallest(
    efforts: Sequence[int],
    target: float,
    reaches: Callable[[int, float], bool],
    tried: Mapping[int, Tried],
) -> int | None:
    """Return the smallest effort that reaches the target, to 6 %."""
    low = efforts[0]
    for high in efforts:
        if reaches(high, target):
            break
        if _pass_seconds(tried[high]) > _PASS_SECONDS:
            return None
        low = high
    else:
        return None
    while high > _FINE * low and (middle := round(math.sqrt(low * high))) not in {low, high}:
        if reaches(middle, target):
            high = middle
        else:
            low = middle
    return high


def _pass_seconds(tried: Tried) -> float:
    """Return the seconds of a thousand queries."""
    return 1000 / tried.queries_per_second


def measure_in_turn(
    points: Sequence[Point], queries: Vectors, *, each: Callable[[], object], rounds: int = _ROUNDS
) -> None:
    """Measure every point briefly, round after round, so that all meet the same conditions.

    The first round only warms up. each: called after each round.
    """
    with threadpool_limits(1):
        for number in range(rounds + 1):
            turn = number % len(points)
            for point in (*points[turn:], *points[:turn]):
                _measure(point, queries, number)
                if number == 0:
                    for figures in (point.together, point.threaded, point.alone):
                        figures.clear()
            each()


def rounds_of(rounds: int = _ROUNDS) -> int:
    """Return how often `each` of measure_in_turn is called."""
    return rounds + 1


def _measure(point: Point, queries: Vectors, number: int) -> None:
    point.together.append(_together(point.search, queries, number))
    if not point.why:
        return
    point.threaded.append(_threaded(point.search, queries, number))
    end = time.perf_counter() + _SLOT_SECONDS
    for place in itertools.count(number * 97):
        query = queries[place % len(queries)][None]
        started = time.perf_counter()
        point.search(query)
        ended = time.perf_counter()
        point.alone.append(ended - started)
        if ended >= end:
            return


def _together(search: Search, queries: Vectors, number: int) -> float:
    """Return queries per second in whole batches of 32."""
    starts = range(0, max(1, len(queries) - BATCH_QUERIES + 1), BATCH_QUERIES)
    started = time.perf_counter()
    for asked in itertools.count(1):
        start = starts[(number * 7 + asked) % len(starts)]
        search(queries[start : start + BATCH_QUERIES])
        seconds = time.perf_counter() - started
        if seconds >= _SLOT_SECONDS:
            break
    return asked * BATCH_QUERIES / seconds


def _threaded(search: Search, queries: Vectors, number: int) -> float:
    """Return the sum of two concurrent threads' queries per second."""
    rates: list[float] = []

    def work(thread: int) -> None:
        rates.append(_together(search, queries, number + thread * 3))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)
