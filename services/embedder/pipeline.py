"""Decode, batch, model: images in, each with a vector or an error out. Knows no queues.

Decoding the next images overlaps the model's work on these.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from services.embedder.batcher import Batcher
from services.embedder.decoding import Decoder
from services.embedder.job import Job
from services.embedder.metrics import EmbedderMetrics
from services.embedder.model import Model
from services.embedder.settings import EmbedderSettings
from services.embedder.worker import Worker
from services.shared.errors import DeadlineExceeded, SimileError
from services.shared.telemetry.stopwatch import Stopwatch, clock
from services.shared.telemetry.tracing import Tracer, sampled
from services.shared.telemetry.watchdog import Watchdog

_log = structlog.get_logger(__name__)

Finish = Callable[[Sequence[Job]], Awaitable[None]]
"""Gets jobs that are done: answered, failed, or expired."""

_INTERACTIVE: Final = 0
_BULK: Final = 1


class Pipeline:
    """The stages between the queues, each a supervised task."""

    def __init__(
        self,
        settings: EmbedderSettings,
        models: Sequence[Model],
        decoder: Decoder,
        metrics: EmbedderMetrics,
        watchdog: Watchdog,
        tracer: Tracer,
        finish: Finish,
    ) -> None:
        """`models` has one entry a worker."""
        self._decoder = decoder
        self._workers = [Worker(model, metrics, watchdog) for model in models]
        self._metrics = metrics
        self._tracer = tracer
        self._finish = finish
        self._batcher = Batcher(
            max_batch_size=settings.max_batch_size or models[0].batch_limit,
            max_batch_wait_seconds=settings.max_batch_wait_seconds,
        )
        self._encoded: asyncio.PriorityQueue[tuple[int, int, Job]] = asyncio.PriorityQueue()
        self._order = itertools.count()
        self._working = ThreadPoolExecutor(len(models), thread_name_prefix="model")
        self._finishing: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def submit(self, job: Job) -> None:
        """Let a job in; how many may be in hand is bounded by the consumers' prefetch."""
        priority = _INTERACTIVE if job.interactive else _BULK
        self._encoded.put_nowait((priority, next(self._order), job))

    def refuse(self, job: Job, error: SimileError) -> None:
        """Answer and set aside what must not be tried any more."""
        job.error, job.culprit = error, True
        self._done([job])

    def give_up_unstarted(self) -> list[Job]:
        """Take back what no stage has begun with: another embedder will be quicker."""
        unstarted = []
        while not self._encoded.empty():
            unstarted.append(self._encoded.get_nowait()[2])
        return unstarted

    def stages(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """What must run for ever."""
        decoders = {f"decode {number}": self._decode() for number in range(self._decoder.threads)}
        workers = {
            f"model {number}": self._work(worker) for number, worker in enumerate(self._workers)
        }
        return {**decoders, **workers, "results": self._watch()}

    async def warm(self) -> None:
        """Run every worker once, so that the first query isn't the slow one."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(loop.run_in_executor(self._working, worker.warm) for worker in self._workers)
        )

    def close(self) -> None:
        """Let threads and unsent results go; what is stuck doesn't hold up the end."""
        for task in self._finishing:
            task.cancel()
        self._decoder.close()
        self._working.shutdown(wait=False, cancel_futures=True)

    async def _decode(self) -> None:
        while True:
            _, _, job = await self._encoded.get()
            if self._drop_expired([job], before="decode"):
                continue
            await self._decoder.decode(job)
            if job.error is not None:
                self._done([job])
            else:
                await self._batcher.put(job)

    async def _work(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        while True:
            jobs, reason = await self._batcher.take()
            expired = self._drop_expired(jobs, before="model")
            batch = [job for job in jobs if job not in expired]
            if batch:
                self._metrics.batch_images.observe(len(batch))
                self._metrics.batches[reason].inc()
                watch = Stopwatch(clock())
                await loop.run_in_executor(self._working, worker.embed, batch)
                self._trace(batch, watch)
                self._done(batch)

    def _trace(self, batch: Sequence[Job], watch: Stopwatch) -> None:
        """One span for the batch, linked to every query in it."""
        links = [job.slip.traceparent for job in batch if sampled(job.slip.traceparent)]
        if not links:
            return
        watch.lap("model")
        span = self._tracer.record("batch", watch, "", {"simile.images": len(batch)}, links)
        for job in batch:
            job.batch_span = span

    def _drop_expired(self, jobs: Sequence[Job], *, before: str) -> Sequence[Job]:
        expired = [job for job in jobs if job.expired]
        for job in expired:
            self._metrics.expired.labels(before=before).inc()
            job.error = DeadlineExceeded("nobody waits for this image any more")
        if expired:
            self._done(expired)
        return expired

    def _done(self, jobs: Sequence[Job]) -> None:
        """Finish in a task of its own: the worker goes on with the next batch."""
        for job in jobs:
            job.pixels = None
        task = asyncio.ensure_future(self._finish(jobs))
        self._finishing.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Future[None]) -> None:
        self._finishing.discard(task)
        if not task.cancelled() and (fault := task.exception()) and not self._fault.done():
            self._fault.set_exception(fault)

    async def _watch(self) -> None:
        """Raise what finishing failed of, if it ever does: such a fault is a defect."""
        await self._fault
