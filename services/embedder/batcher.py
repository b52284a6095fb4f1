"""Forms batches of decoded images; `WorkQueue` calls it under its lock."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

from services.embedder.job import Job

Reason = Literal["full", "free", "waited", "alone"]
"""Why a batch starts: it is full; a worker is free; its maximum wait is over; its image is
redelivered and runs alone."""


class Batch(NamedTuple):
    """At least one decoded image for a model, and why the batch starts now."""

    jobs: list[Job]
    reason: Reason


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The bounds of a batch.

    Attributes:
        max_images: images in one batch, at most.
        max_wait_seconds: how long a decoded image waits for a fuller batch; 0: not at all.
        workers: the workers that share the images.
        chunk_images: images that a model computes together; a smaller batch takes as long.
    """

    max_images: int
    max_wait_seconds: float
    workers: int
    chunk_images: int


class Batcher:
    """Forms batches of decoded images: interactive images first, then bulk up to the limit.

    Images gather while all workers are busy; a free worker gets at once what is there.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._interactive: deque[Job] = deque()
        self._bulk: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._interactive) + len(self._bulk)

    def put(self, job: Job) -> None:
        """Add a decoded image; the consumers' prefetch bounds how many there are."""
        (self._interactive if job.interactive else self._bulk).append(job)

    def due_seconds(self, now: float, coming: int = 0, *, urgent: bool = False) -> float | None:
        """Return how long from `now` a free worker must wait for a batch.

        Interactive images wait for other interactive images, never for bulk ones.

        Args:
            now: the time, by `clock`.
            coming: images that the worker could decode first.
            urgent: the first of the coming images is interactive.

        Returns:
            Seconds, 0 for a batch that is due; None when more images must be decoded first.
        """
        ready = len(self._interactive) if urgent else len(self)
        if not ready:
            return None
        first = (self._interactive or self._bulk)[0]
        if first.redelivered or ready >= self._policy.max_images:
            return 0.0
        if self._policy.max_wait_seconds > 0:
            return max(0.0, first.watch.last + self._policy.max_wait_seconds - now)
        if not coming or ready >= self._limit(coming) or (self._interactive and not urgent):
            return 0.0
        return None

    def take(self, coming: int = 0) -> Batch:
        """Remove and return the batch that is due.

        A redelivered image is a batch of its own: it may have killed the embedder before.
        """
        jobs = self._take(self._limit(coming))
        if jobs[0].redelivered:
            return Batch(jobs, "alone")
        if len(jobs) == self._policy.max_images:
            return Batch(jobs, "full")
        return Batch(jobs, "waited" if self._policy.max_wait_seconds > 0 else "free")

    def _take(self, limit: int) -> list[Job]:
        batch: list[Job] = []
        for jobs in (self._interactive, self._bulk):
            while jobs and len(batch) < limit:
                if jobs[0].redelivered and batch:
                    return batch
                batch.append(jobs.popleft())
                if batch[0].redelivered:
                    return batch
        return batch

    def _limit(self, coming: int) -> int:
        """Return a batch's size limit: each worker gets its share, but at least one chunk."""
        if self._policy.max_wait_seconds > 0:
            return self._policy.max_images
        share = math.ceil((len(self) + coming) / self._policy.workers)
        return min(self._policy.max_images, max(self._policy.chunk_images, share))
