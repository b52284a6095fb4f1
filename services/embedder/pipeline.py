"""Decode, batch, model: images in, each with a vector or an error out. Knows no queues.

Decoding the next images overlaps the model's work on these.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import structlog

from services.embedder.batcher import Batcher
from services.embedder.job import Job
from services.embedder.metrics import EmbedderMetrics
from services.embedder.model import Model, unit_bytes
from services.embedder.settings import EmbedderSettings
from services.shared.errors import DeadlineExceeded, Internal, SimileError
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
        metrics: EmbedderMetrics,
        watchdog: Watchdog,
        finish: Finish,
    ) -> None:
        """`models` has one entry a worker; an entry may occur several times."""
        self._models = models
        self._metrics = metrics
        self._watchdog = watchdog
        self._finish = finish
        self._decode_threads = settings.decode_threads
        self._batcher = Batcher(
            max_batch_size=settings.max_batch_size,
            max_batch_wait_seconds=settings.max_batch_wait_seconds,
        )
        self._encoded: asyncio.PriorityQueue[tuple[int, int, Job]] = asyncio.PriorityQueue()
        self._order = itertools.count()
        self._decoding = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        self._working = ThreadPoolExecutor(len(models), thread_name_prefix="model")
        self._finishing: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def submit(self, job: Job) -> None:
        """Let a job in; how many may be in hand is bounded by the consumers' prefetch."""
        priority = _INTERACTIVE if job.interactive else _BULK
        self._encoded.put_nowait((priority, next(self._order), job))

    def stages(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """What must run for ever."""
        decoders = {f"decode {number}": self._decode() for number in range(self._decode_threads)}
        workers = {
            f"model {number}": self._work(model) for number, model in enumerate(self._models)
        }
        return {**decoders, **workers, "results": self._watch()}

    async def warm(self) -> None:
        """Run every worker once, so that the first query isn't the slow one."""
        loop = asyncio.get_running_loop()
        size = self._models[0].input_size
        blank = np.zeros((1, size, size, 3), np.uint8)
        await asyncio.gather(
            *(loop.run_in_executor(self._working, model.embed, blank) for model in self._models)
        )

    def close(self) -> None:
        """Let threads and unsent results go; what is stuck doesn't hold up the end."""
        for task in self._finishing:
            task.cancel()
        for pool in (self._decoding, self._working):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _decode(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            _, _, job = await self._encoded.get()
            if self._drop_expired([job], before="decode"):
                continue
            await loop.run_in_executor(self._decoding, self._prepare, job)
            if job.error is not None:
                self._done([job])
            else:
                await self._batcher.put(job)

    def _prepare(self, job: Job) -> None:
        """In a thread: the job's pixels, or why there are none."""
        started = time.perf_counter()
        try:
            job.pixels = self._models[0].prepare(job.image)
        except SimileError as error:
            job.error = error
        except Exception:  # noqa: BLE001 (one image must not end the stage for all)
            _log.exception(
                "decode failed", action=Internal.code, correlation_id=job.slip.correlation_id
            )
            job.error = Internal("the image could not be prepared; the log says why")
        job.image = b""
        job.decoded = time.perf_counter()
        job.stages["decode"] = job.decoded - started

    async def _work(self, model: Model) -> None:
        loop = asyncio.get_running_loop()
        while True:
            jobs = await self._batcher.take()
            expired = self._drop_expired(jobs, before="model")
            batch = [job for job in jobs if job not in expired]
            if batch:
                self._metrics.batch_images.observe(len(batch))
                await loop.run_in_executor(self._working, self._embed, model, batch)
                self._done(batch)

    def _embed(self, model: Model, batch: Sequence[Job]) -> None:
        """In a worker's thread: every job's vector or error."""
        with self._watchdog.work():
            try:
                self._embed_together(model, batch)
            except Exception as error:  # noqa: BLE001 (whatever a model raises has a culprit)
                self._metrics.model_faults.inc()
                _log.warning("the model failed", action="model_fault", images=len(batch),
                             why=repr(error))  # fmt: skip
                for job in batch:
                    self._embed_alone(model, job)

    def _embed_alone(self, model: Model, job: Job) -> None:
        try:
            self._embed_together(model, [job])
        except Exception:  # noqa: BLE001 (this job is the culprit, or the model is broken)
            _log.exception(
                "the model failed", action=Internal.code, correlation_id=job.slip.correlation_id
            )
            job.error = Internal("the model failed on this image; the log says why")

    def _embed_together(self, model: Model, batch: Sequence[Job]) -> None:
        started = time.perf_counter()
        vectors = model.embed(np.stack([job.pixels for job in batch if job.pixels is not None]))
        seconds = time.perf_counter() - started
        for job, vector in zip(batch, vectors, strict=True):
            job.stages["wait"] = max(0.0, started - job.decoded)
            job.stages["model"] = seconds
            try:
                job.vector = unit_bytes(vector)
            except SimileError as error:
                job.error = error

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
