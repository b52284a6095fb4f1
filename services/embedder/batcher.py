"""Gathers prepared images while all workers are busy; a free worker gets what is there at once.

For threads: who decodes puts, who runs a model takes.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Literal, NamedTuple

from services.embedder.job import Job

Reason = Literal["full", "free", "waited", "alone"]
"""Why a batch goes: it holds as many as one may; a worker is free; it was waited for more; one
that was redelivered goes alone."""


class Batch(NamedTuple):
    """At least one job, and why it is as it is."""

    jobs: list[Job]
    reason: Reason


class Batcher:
    """Jobs that wait for a worker: interactive ones first, bulk fills the rest of a batch."""

    def __init__(
        self, *, max_batch_size: int, max_batch_wait_seconds: float, workers: int, at_once: int
    ) -> None:
        """workers: who takes. at_once: what a model runs together, see `Model`."""
        self._workers = workers
        self._at_once = at_once
        self._max_batch_size = max_batch_size
        self._max_batch_wait_seconds = max_batch_wait_seconds
        self._interactive: deque[Job] = deque()
        self._bulk: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, job: Job) -> None:
        """Queue a prepared job; what bounds the number is the consumers' prefetch."""
        with self._changed:
            (self._interactive if job.interactive else self._bulk).append(job)
            self._changed.notify()

    def take(self) -> Batch | None:
        """The next batch, as soon as there is one; None once it is closed.

        A redelivered job is a batch of its own: it may be what killed the embedder before us.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting > 0)
            if self._max_batch_wait_seconds > 0:
                self._linger()
            if self._closed:
                return None
            jobs = self._next()
        if jobs[0].redelivered:
            return Batch(jobs, "alone")
        if len(jobs) == self._max_batch_size:
            return Batch(jobs, "full")
        return Batch(jobs, "waited" if self._max_batch_wait_seconds > 0 else "free")

    def close(self) -> None:
        """Let who waits go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self) -> list[Job]:
        batch: list[Job] = []
        most = self._most
        for jobs in (self._interactive, self._bulk):
            while jobs and len(batch) < most:
                if jobs[0].redelivered and batch:
                    return batch
                batch.append(jobs.popleft())
                if batch[0].redelivered:
                    return batch
        return batch

    @property
    def _most(self) -> int:
        """How many a batch may hold now: what gains nothing by company is shared out fairly."""
        if self._max_batch_wait_seconds > 0:
            return self._max_batch_size
        share = math.ceil(self._waiting / self._workers)
        return min(self._max_batch_size, max(self._at_once, share))

    @property
    def _waiting(self) -> int:
        return len(self._interactive) + len(self._bulk)

    def _linger(self) -> None:
        self._changed.wait_for(
            lambda: self._closed or self._waiting >= self._max_batch_size,
            self._max_batch_wait_seconds,
        )
        # Another worker may have taken what was there.
        self._changed.wait_for(lambda: self._closed or self._waiting > 0)
