"""Gathers prepared images while all workers are busy; a free worker gets what is there at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

from services.embedder.job import Job

Reason = Literal["full", "free", "waited", "alone"]
"""Why a batch goes: it holds as many as one may; a worker is free; it was waited for more; one
that was redelivered goes alone."""


class Batcher:
    """Jobs that wait for a worker: interactive ones first, bulk fills the rest of a batch."""

    def __init__(self, *, max_batch_size: int, max_batch_wait_seconds: float) -> None:
        self._max_batch_size = max_batch_size
        self._max_batch_wait_seconds = max_batch_wait_seconds
        self._interactive: deque[Job] = deque()
        self._bulk: deque[Job] = deque()
        self._changed = asyncio.Condition()

    async def put(self, job: Job) -> None:
        """Queue a prepared job; what bounds the number is the consumers' prefetch."""
        async with self._changed:
            (self._interactive if job.interactive else self._bulk).append(job)
            self._changed.notify_all()

    async def take(self) -> tuple[list[Job], Reason]:
        """The next batch, at least one job, as soon as there is one; and why it is as it is.

        A redelivered job is a batch of its own: it may be what killed the embedder before us.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting > 0)
            if self._max_batch_wait_seconds > 0:
                await self._linger()
            batch = self._next()
        if batch[0].redelivered:
            return batch, "alone"
        if len(batch) == self._max_batch_size:
            return batch, "full"
        return batch, "waited" if self._max_batch_wait_seconds > 0 else "free"

    def _next(self) -> list[Job]:
        batch: list[Job] = []
        for jobs in (self._interactive, self._bulk):
            while jobs and len(batch) < self._max_batch_size:
                if jobs[0].redelivered and batch:
                    return batch
                batch.append(jobs.popleft())
                if batch[0].redelivered:
                    return batch
        return batch

    @property
    def _waiting(self) -> int:
        return len(self._interactive) + len(self._bulk)

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(self._max_batch_wait_seconds):
                await self._changed.wait_for(lambda: self._waiting >= self._max_batch_size)
        except TimeoutError:
            # Another worker may have taken what was there.
            await self._changed.wait_for(lambda: self._waiting > 0)
