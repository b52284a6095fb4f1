"""Gathers prepared images while all workers are busy; a free worker gets what is there at once.

For the crew, whose lock is held by who calls.
"""

from __future__ import annotations

import math
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

    def put(self, job: Job) -> None:
        """Queue a prepared job; what bounds the number is the consumers' prefetch."""
        (self._interactive if job.interactive else self._bulk).append(job)

    def due_seconds(self, now: float, coming: int = 0, *, urgent: bool = False) -> float | None:
        """How long from now a free worker has to wait for a batch; None: until more has come.

        coming: how many images it could prepare first. urgent: whether the first of those is
        interactive. Interactive images wait for others of their kind, never for bulk.
        """
        ready = len(self._interactive) if urgent else self._waiting
        if not ready:
            return None
        first = (self._interactive or self._bulk)[0]
        if first.redelivered or ready >= self._max_batch_size:
            return 0.0
        if self._max_batch_wait_seconds > 0:
            return max(0.0, first.watch.last + self._max_batch_wait_seconds - now)
        if not coming or ready >= self._most(coming) or (self._interactive and not urgent):
            return 0.0
        return None

    def take(self, coming: int = 0) -> Batch:
        """The batch that is due.

        A redelivered job is a batch of its own: it may be what killed the embedder before us.
        """
        jobs = self._next(self._most(coming))
        if jobs[0].redelivered:
            return Batch(jobs, "alone")
        if len(jobs) == self._max_batch_size:
            return Batch(jobs, "full")
        return Batch(jobs, "waited" if self._max_batch_wait_seconds > 0 else "free")

    def _next(self, most: int) -> list[Job]:
        batch: list[Job] = []
        for jobs in (self._interactive, self._bulk):
            while jobs and len(batch) < most:
                if jobs[0].redelivered and batch:
                    return batch
                batch.append(jobs.popleft())
                if batch[0].redelivered:
                    return batch
        return batch

    def _most(self, coming: int) -> int:
        """How many a batch may hold now: what gains nothing by company is shared out fairly."""
        if self._max_batch_wait_seconds > 0:
            return self._max_batch_size
        share = math.ceil((self._waiting + coming) / self._workers)
        return min(self._max_batch_size, max(self._at_once, share))

    @property
    def _waiting(self) -> int:
        return len(self._interactive) + len(self._bulk)
