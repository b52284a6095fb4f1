"""Measures the recall of real answers: a share of the queries is also answered exactly."""

from __future__ import annotations

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from services.searcher.index.index import Index
from services.searcher.index.scan import Vectors
from services.searcher.metrics import SearcherMetrics
from services.shared.contracts import Neighbors, Question

_log = structlog.get_logger(__name__)

_MAX_WAITING: Final = 8
_NICE: Final = 10
_EQUAL: Final = 1e-3
"""Distances are sent as float32, which is coarse near 0."""


class LiveQuality:
    """Measures recall and distances of answers; a thread of low priority searches exactly."""

    def __init__(self, share: float, metrics: SearcherMetrics) -> None:
        """Create a measurement; share: of the queries, 0..1, that are also answered exactly."""
        self._share = share
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, "live quality", initializer=_lower_priority)
        self._free_samples = threading.Semaphore(_MAX_WAITING)

    def observe(self, index: Index, vector: Vectors, question: Question, answer: Neighbors) -> None:
        """Count the answer, and compare a sample. Callable from any thread; never blocks."""
        if not answer.neighbors:
            return
        collection = answer.collection
        for rank, neighbor in (
            ("nearest", answer.neighbors[0]),
            ("farthest", answer.neighbors[-1]),
        ):
            self._metrics.distance.of(collection, rank).observe(neighbor.distance)
        if random.random() >= self._share:  # noqa: S311 (a sample, no secret)
            return
        plain = Question(collection=collection, k=question.k)
        if question == plain and self._free_samples.acquire(blocking=False):
            self._thread.submit(self._compare, index, vector, answer)

    def wait(self) -> None:
        """Wait until the samples taken so far are compared."""
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        """Stop comparing, and drop the samples that wait."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _compare(self, index: Index, vector: Vectors, answer: Neighbors) -> None:
        try:
            [(_, distances)] = index.engine.exact(vector[None], len(answer.neighbors))
            bound = float(distances[-1]) + _EQUAL
            found = sum(neighbor.distance <= bound for neighbor in answer.neighbors)
            self._metrics.live_expected.labels(collection=answer.collection).inc(len(distances))
            self._metrics.live_found.labels(collection=answer.collection).inc(found)
        except Exception:  # noqa: BLE001 (a failed measurement must not fail the search)
            _log.exception("a live recall sample failed", action="live_recall")
        finally:
            self._free_samples.release()


def _lower_priority() -> None:
    """Lower the priority of this thread, which Linux allows, so that queries run first."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
