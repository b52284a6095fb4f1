"""The threads of an embedder, from the work queue to the result publisher.

Beside a GPU some threads decode and others run the model, so that both overlap. On CPUs each
worker's thread does both: more threads than cores would take turns on the same cores and caches.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final

import numpy as np
import structlog

from services.embedder.batcher import Batch
from services.embedder.decoding import Decoder
from services.embedder.job import EXPIRED, Job
from services.embedder.metrics import EmbedderMetrics, Instruments
from services.embedder.models.model import Model, unit_bytes
from services.embedder.results import ResultPublisher
from services.embedder.work_queue import DecodeTask, WorkQueue
from services.shared.errors import (
    DeadlineExceeded,
    DecodersStuck,
    DecodingTooSlow,
    Internal,
    ModelBroken,
    SimileError,
)
from services.shared.telemetry.stopwatch import Stopwatch, clock
from services.shared.telemetry.tracing import sampled
from services.shared.telemetry.watchdog import Watchdog

_log = structlog.get_logger(__name__)

_MAX_FAULTS: Final = 16
"""Failures in a row of a device or a library that works; never seen to be caused by images."""

_CHECKS_PER_TIMEOUT: Final = 10


class Worker:
    """Runs one model on batches, and isolates the images that the model fails on."""

    def __init__(self, model: Model, metrics: EmbedderMetrics, watchdog: Watchdog) -> None:
        """Create a worker for `model`; `watchdog` sees how long each batch runs."""
        self._model = model
        self._metrics = metrics
        self._watchdog = watchdog
        self._faults = 0

    def warm_up(self) -> None:
        """Run the model once: the first run is slow."""
        size = self._model.input_size
        self._model.embed(np.zeros((1, size, size, 3), np.uint8))

    def embed(self, jobs: Sequence[Job]) -> None:
        """Give every job its vector or its error.

        A batch that the model fails on is halved until each poison image is alone.

        Raises:
            ModelBroken: the model failed on many batches in a row.
        """
        with self._watchdog.work():
            self._embed(jobs)

    def _embed(self, jobs: Sequence[Job]) -> None:
        if self._succeeds(jobs):
            return
        if len(jobs) == 1:
            jobs[0].error = Internal("the model failed on this image; the log says why")
            jobs[0].poison = True
            return
        middle = len(jobs) // 2
        self._embed(jobs[:middle])
        self._embed(jobs[middle:])

    def _succeeds(self, jobs: Sequence[Job]) -> bool:
        try:
            self._embed_together(jobs)
        except Exception as error:  # noqa: BLE001 (a runtime may raise anything)
            for job in jobs:
                job.watch.lap("model")
            self._count_fault(jobs, error)
            return False
        self._faults = 0
        return True

    def _embed_together(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.watch.lap("batch_wait")
        started = clock()
        vectors = self._model.embed(
            np.stack([job.pixels for job in jobs if job.pixels is not None])
        )
        ended = clock()
        self._metrics.worker_busy.inc(ended - started)
        for job, vector in zip(jobs, vectors, strict=True):
            job.watch.lap("model", ended)
            job.batch_images = len(jobs)
            try:
                job.vector = unit_bytes(vector)
            except SimileError as error:
                job.error = error

    def _count_fault(self, jobs: Sequence[Job], error: Exception) -> None:
        self._faults += 1
        self._metrics.model_faults.inc()
        ids = [job.slip.correlation_id for job in jobs]
        _log.error("the model failed", action="model_fault", correlation_ids=ids, exc_info=error)
        if self._faults == _MAX_FAULTS:
            message = f"the model failed {self._faults} times in a row, at last with {error!r}"
            raise ModelBroken(message) from error


class WorkerThreads:
    """A thread for each worker, threads that only decode, and spares for stuck ones.

    A thread can't be ended. A thread that is stuck in an image is left alone and a new thread, a
    spare, replaces it, until more threads are stuck than decoded at the start. A stuck thread that
    finishes after all ends, and is no longer counted.
    """

    def __init__(
        self,
        queue: WorkQueue,
        decoder: Decoder,
        results: ResultPublisher,
        instruments: Instruments,
        *,
        decode_threads: int,
        decode_timeout_seconds: float,
    ) -> None:
        """Create no thread yet.

        Args:
            queue: gives the threads their work.
            decoder: decodes images.
            results: publishes what is done.
            instruments: the embedder's metrics and tracer.
            decode_threads: threads that only decode; 0 where workers decode for themselves.
            decode_timeout_seconds: for one image; a thread that takes longer is stuck.
        """
        self._queue = queue
        self._decoder = decoder
        self._results = results
        self._metrics = instruments.metrics
        self._tracer = instruments.tracer
        self._decode_threads = decode_threads
        self._timeout_seconds = decode_timeout_seconds
        self._decode_limit = decode_threads
        self._loop = asyncio.get_running_loop()
        self._fault: asyncio.Future[None] = self._loop.create_future()

    async def start(self, workers: Sequence[Worker]) -> None:
        """Start all threads; return when each worker has warmed up. Raises what a model raises."""
        self._decode_limit = self._decode_threads or len(workers)
        warm = [Future[None]() for _ in workers]
        for worker, done in zip(workers, warm, strict=True):
            self._start(worker, done)
        await asyncio.gather(*map(asyncio.wrap_future, warm))
        for _ in range(self._decode_threads):
            self._start(None)

    async def run(self) -> None:
        """Replace stuck threads until cancelled.

        Raises:
            DecodersStuck: no spare thread is left.
            BaseException: what ended a thread.
        """
        while not self._fault.done():
            await asyncio.wait({self._fault}, timeout=self._timeout_seconds / _CHECKS_PER_TIMEOUT)
            while (task := self._queue.take_overdue(self._timeout_seconds)) is not None:
                self._replace_stuck(task)
        await self._fault

    def _start(self, worker: Worker | None, warm: Future[None] | None = None) -> None:
        name = "decode" if worker is None else "model"
        threading.Thread(target=self._run, args=(worker, warm), name=name, daemon=True).start()

    def _run(self, worker: Worker | None, warm: Future[None] | None) -> None:
        """Run one thread, from its warm-up until the queue is closed."""
        if worker is not None and warm is not None and not _warm_up(worker, warm):
            return
        try:
            while (work := self._queue.next(worker)) is not None:
                if isinstance(work, DecodeTask):
                    if not self._decode(work):
                        return
                elif worker is not None:
                    self._embed(worker, work)
        except BaseException as error:  # noqa: BLE001 (a thread that ends must end the process)
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(_fail, self._fault, error)

    def _decode(self, task: DecodeTask) -> bool:
        """Decode one image; return False when a spare thread has replaced this one.

        An image that failed is answered here. An image that waits for the gate is no longer this
        thread's.
        """
        started = clock()
        decoded = self._decoder.decode(task)
        in_time = decoded is None or self._queue.put_decoded(task, decoded)
        if in_time and task.worker is not None:
            self._metrics.worker_busy.inc(clock() - started)
        if in_time and isinstance(decoded, SimileError):
            self._results.publish([task.job])
        return in_time

    def _embed(self, worker: Worker, batch: Batch) -> None:
        """Run one batch through the worker's model."""
        jobs = self._drop_expired(batch.jobs)
        # The model releases the interpreter's lock: now the former results disturb no decoding.
        self._results.flush(worker)
        if not jobs:
            return
        self._metrics.batch_images.observe(len(jobs))
        self._metrics.batches[batch.reason].inc()
        watch = Stopwatch(clock())
        worker.embed(jobs)
        self._record_span(jobs, watch)
        if self._decode_threads == 0 and self._queue.decodable:
            self._results.defer(worker, jobs)
        else:
            self._results.publish(jobs)

    def _drop_expired(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Return the jobs whose callers still wait; end the others."""
        expired = [job for job in jobs if job.expired]
        if not expired:
            return jobs
        self._metrics.expired.labels(before="model").inc(len(expired))
        for job in expired:
            job.error = DeadlineExceeded(EXPIRED)
        self._results.publish(expired)
        return [job for job in jobs if job.error is None]

    def _record_span(self, jobs: Sequence[Job], watch: Stopwatch) -> None:
        """Record one span for the batch, linked to every sampled query in it."""
        links = [job.slip.traceparent for job in jobs if sampled(job.slip.traceparent)]
        if not links:
            return
        watch.lap("model")
        span = self._tracer.record("batch", watch, "", {"simile.images": len(jobs)}, links)
        for job in jobs:
            job.batch_span = span

    def _replace_stuck(self, task: DecodeTask) -> None:
        """Start a spare thread and answer the overdue image. Raises DecodersStuck."""
        stuck = self._queue.stuck
        _log.error("an image takes too long to decode", action=DecodingTooSlow.code,
                   correlation_id=task.job.slip.correlation_id, stuck=stuck)  # fmt: skip
        if stuck > self._decode_limit:
            # The image is not answered: its message goes to another embedder, which has spares.
            message = f"{stuck} threads are stuck in images: no thread is left to decode"
            raise DecodersStuck(message)
        self._start(task.worker)
        message = f"the image was not decoded within {self._timeout_seconds:g} s"
        task.job.set_decoded(DecodingTooSlow(message))
        self._results.publish([task.job])


def _warm_up(worker: Worker, done: Future[None]) -> bool:
    """Warm the worker up; return whether it can run."""
    done.set_running_or_notify_cancel()  # from here on, the waiting side can't cancel it
    try:
        worker.warm_up()
    except BaseException as error:  # noqa: BLE001 (raised where `start` waits)
        done.set_exception(error)
        return False
    done.set_result(None)
    return True


def _fail(stage: asyncio.Future[None], fault: BaseException) -> None:
    if not stage.done():
        stage.set_exception(fault)
