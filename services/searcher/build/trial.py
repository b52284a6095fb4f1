"""Measures recall and speed of engines with queries whose exact answers are known."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from services.searcher.index import scan
from services.searcher.index.engine import Engine, Found
from services.searcher.index.methods.method import MEASURED_AT
from services.searcher.index.scan import BATCH_QUERIES, Positions, Vectors
from services.shared.volume.manifest import Measurement

_QUERIES: Final = 1000
_HELD_OUT_SHARE: Final = 5
_TIMED_SECONDS: Final = 0.5
_TIMED_RUNS: Final = 50
_EQUAL: Final = 1e-6
_CONFIDENCE: Final = 1.96
"""Standard errors on each side of a 95 % confidence interval."""


class Trial:
    """Holds out up to 1,000 vectors of the collection as queries against the others.

    A vector finds its neighbours far more often in trees that were grown with it than a new vector
    does, so a measured engine must not contain the held-out vectors.

    held_out: positions of the queries, ascending. indexed: all other positions. queries: shape
    (len(held_out), dimension). nearest_similarities: of each query to its nearest other vector.
    """

    def __init__(self, vectors: Vectors) -> None:
        """vectors: (count, dimension), count at least 2."""
        count = len(vectors)
        asking = min(_QUERIES, max(1, count // _HELD_OUT_SHARE))
        drawn = np.random.default_rng(0).choice(count, asking, replace=False)
        self.held_out: Positions = np.sort(drawn)
        self.indexed: Positions = np.setdiff1d(np.arange(count), self.held_out)
        self.queries: Vectors = np.take(vectors, self.held_out, axis=0)
        self._vectors = vectors
        self._k = min(MEASURED_AT, len(self.indexed))
        exact = scan.nearest(vectors, self.queries, self._k, without=self.held_out)
        self._bounds = [dots.min() for _, dots in exact]
        self.nearest_similarities = np.array([dots.max() for _, dots in exact])

    def measure(self, engine: Engine, size: int, *, recall: float | None = None) -> Measurement:
        """Measure the engine's recall, unless it is given, and speed.

        engine: without the queries. size: bytes of the files that it searches.
        """
        with threadpool_limits(1, user_api="blas"):
            low = recall
            if recall is None:
                recall, low = self.recall(engine)
            together = self._seconds(engine, BATCH_QUERIES)
            alone = self._seconds(engine, 1)
        return Measurement(
            plan=engine.plan,
            recall=recall,
            recall_low=low if low is not None else recall,
            queries_per_second=min(BATCH_QUERIES, len(self.queries)) / together,
            milliseconds=1000 * alone,
            bytes=size,
        )

    def recall(self, engine: Engine) -> tuple[float, float]:
        """Return the engine's recall@10, and the lower end of its 95 % confidence interval."""
        return _summary(self._recalls(engine))

    def rerank_needed(
        self,
        candidates: Sequence[Positions],
        depths: Sequence[int],
        target: float,
        *,
        shards: int = 1,
    ) -> int | None:
        """Return the smallest depth whose candidates contain enough correct answers, or None.

        candidates: for each query, best first; of several shards in turn, so that a depth takes
        its share of each.
        """
        right = [
            self._right(query, bound, some)
            for query, bound, some in zip(self.queries, self._bounds, candidates, strict=True)
        ]
        for depth in depths:
            shares = np.array([self._share(hits[: depth * shards]) for hits in right])
            if _summary(shares)[1] >= target:
                return depth
        return None

    def _right(self, query: Vectors, bound: float, found: Positions) -> NDArray[np.bool_]:
        # By similarity, not by position: any of several equally near items is correct.
        right: NDArray[np.bool_] = np.take(self._vectors, found, axis=0) @ query >= bound - _EQUAL
        return right

    def _share(self, right: NDArray[np.bool_]) -> float:
        return min(self._k, int(np.count_nonzero(right))) / self._k

    def _recalls(self, engine: Engine) -> NDArray[np.float64]:
        found: list[Found] = []
        for start in range(0, len(self.queries), BATCH_QUERIES):
            found += engine.search(self.queries[start : start + BATCH_QUERIES], self._k)
        return np.array(
            [
                self._share(self._right(query, bound, positions))
                for query, bound, (positions, _) in zip(
                    self.queries, self._bounds, found, strict=True
                )
            ]
        )

    def _seconds(self, engine: Engine, batch_size: int) -> float:
        """Return the median seconds of a batch of queries."""
        starts = range(0, max(1, len(self.queries) - batch_size), batch_size)
        return _median(
            lambda number: engine.search(
                self.queries[starts[number % len(starts)] :][:batch_size], MEASURED_AT
            )
        )


def _median(search: Callable[[int], object]) -> float:
    seconds: list[float] = []
    while len(seconds) < _TIMED_RUNS and (sum(seconds) < _TIMED_SECONDS or len(seconds) < 3):  # noqa: PLR2004 (a median)
        started = time.perf_counter()
        search(len(seconds))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _summary(recalls: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean, and the lower end of its confidence interval."""
    error = float(recalls.std()) / np.sqrt(len(recalls))
    mean = float(recalls.mean())
    return mean, mean - _CONFIDENCE * float(error)
