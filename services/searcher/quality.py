"""How good the answers are: a share of real queries is answered exactly, too, in the background."""

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

_MOST_WAITING: Final = 8
_NICE: Final = 10
_EQUAL: Final = 1e-3
"""Distances are told as float32; near 0 that is coarse."""


class LiveQuality:
    """Recall and distances of what is answered; one thread of low priority does the exact part."""

    def __init__(self, share: float, metrics: SearcherMetrics) -> None:
        """share: of the queries, 0..1, that are answered twice."""
        self._share = share
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, "live quality", initializer=_give_way)
        self._room = threading.Semaphore(_MOST_WAITING)

    def observe(self, index: Index, vector: Vectors, question: Question, answer: Neighbors) -> None:
        """Count the answer; now and then, compare it. From any thread; never waits."""
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
        if question == plain and self._room.acquire(blocking=False):
            self._thread.submit(self._compare, index, vector, answer)

    def close(self) -> None:
        """Compare no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _compare(self, index: Index, vector: Vectors, answer: Neighbors) -> None:
        try:
            [(_, distances)] = index.engine.exact(vector[None], len(answer.neighbors))
            bound = float(distances[-1]) + _EQUAL
            found = sum(neighbor.distance <= bound for neighbor in answer.neighbors)
            self._metrics.live_expected.labels(collection=answer.collection).inc(len(distances))
            self._metrics.live_found.labels(collection=answer.collection).inc(found)
        except Exception:  # noqa: BLE001 (a measurement must not end what it measures)
            _log.exception("a live recall sample failed", action="live_recall")
        finally:
            self._room.release()


def _give_way() -> None:
    """Let queries go first: on Linux a thread has a priority of its own."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
