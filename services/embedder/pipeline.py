"""Decode, batch, model: images in, each with a vector or an error out. Knows no queues.

From one stage to the next no image waits for the event loop, which has connections to serve.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from services.embedder.batcher import Batch, Batcher
from services.embedder.crew import Crew
from services.embedder.decoding import Decoder
from services.embedder.holding import Holding
from services.embedder.job import NOBODY_WAITS, Job
from services.embedder.metrics import EmbedderMetrics
from services.embedder.models.model import Model
from services.embedder.settings import EmbedderSettings
from services.embedder.worker import Worker
from services.shared import cores
from services.shared.errors import DeadlineExceeded, SimileError
from services.shared.telemetry.stopwatch import Stopwatch, clock
from services.shared.telemetry.tracing import Tracer, sampled
from services.shared.telemetry.watchdog import Watchdog

Finish = Callable[[Sequence[Job]], Awaitable[None]]
"""Gets jobs that are done: answered, failed, or expired."""


class Pipeline:
    """The stages between the queues."""

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
        self._metrics = metrics
        self._tracer = tracer
        self._finish = finish
        batcher = Batcher(
            max_batch_size=settings.max_batch_size or models[0].batch_limit,
            max_batch_wait_seconds=settings.max_batch_wait_seconds,
            workers=len(models),
            at_once=models[0].at_once,
        )
        self._decode_threads = _decode_threads(settings, models[0])
        self._crew = Crew(
            decoder,
            batcher,
            [Worker(model, metrics, watchdog) for model in models],
            decode_threads=self._decode_threads,
            embed=self._embed,
            on_failed=lambda job: self._hand_over(partial(self._done, [job])),
            on_death=lambda error: self._hand_over(partial(_fail, self._thread_fault, error)),
        )
        self._loop = asyncio.get_running_loop()
        self._holding = Holding(self._done)
        self._finishing: set[asyncio.Task[None]] = set()
        self._thread_fault: asyncio.Future[None] = self._loop.create_future()
        self._result_fault: asyncio.Future[None] = self._loop.create_future()

    @property
    def decoding(self) -> int:
        """How many images may be decoded at a time."""
        return self._crew.decoding

    def submit(self, job: Job) -> None:
        """Let a job in; how many may be in hand is bounded by the consumers' prefetch."""
        self._decoder.put(job)

    def refuse(self, job: Job, error: SimileError) -> None:
        """Answer and set aside what must not be tried any more."""
        job.error, job.culprit = error, True
        self._done([job])

    def give_up_unstarted(self) -> list[Job]:
        """Take back what no stage has begun with: another embedder will be quicker."""
        return self._decoder.take_back()

    def stages(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """What must run for ever."""
        return {
            "decode": self._crew.watch(),
            "threads": _watch(self._thread_fault),
            "results": _watch(self._result_fault),
        }

    async def start(self) -> None:
        """Begin, every worker with a run of its own, so that the first query isn't the slow one."""
        await self._crew.start()

    def close(self) -> None:
        """Let threads and unsent results go; what is stuck doesn't hold up the end."""
        for task in self._finishing:
            task.cancel()
        self._holding.close()
        self._crew.close()

    def _embed(self, worker: Worker, batch: Batch) -> None:
        jobs = self._unexpired(batch.jobs)
        if worker.held:
            worker.held = False
            self._hand_over(partial(self._holding.release, worker))
        if jobs:
            self._metrics.batch_images.observe(len(jobs))
            self._metrics.batches[batch.reason].inc()
            watch = Stopwatch(clock())
            worker.embed(jobs)
            self._trace(jobs, watch)
            worker.held = self._decode_threads == 0 and self._decoder.any_waiting()
            done = partial(self._holding.hold, worker) if worker.held else self._done
            self._hand_over(partial(done, jobs))

    def _trace(self, batch: Sequence[Job], watch: Stopwatch) -> None:
        """One span for the batch, linked to every query in it."""
        links = [job.slip.traceparent for job in batch if sampled(job.slip.traceparent)]
        if not links:
            return
        watch.lap("model")
        span = self._tracer.record("batch", watch, "", {"simile.images": len(batch)}, links)
        for job in batch:
            job.batch_span = span

    def _unexpired(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Those that somebody waits for; the others are done."""
        expired = [job for job in jobs if job.expired]
        if not expired:
            return jobs
        self._metrics.expired.labels(before="model").inc(len(expired))
        for job in expired:
            job.error = DeadlineExceeded(NOBODY_WAITS)
        self._hand_over(partial(self._done, expired))
        return [job for job in jobs if job.error is None]

    def _hand_over(self, done: Callable[[], None]) -> None:
        """From a thread to the event loop; to none once that is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(done)

    def _done(self, jobs: Sequence[Job]) -> None:
        """Finish, in a task: results of one batch don't wait for those of another."""
        for job in jobs:
            job.pixels = None
        task = asyncio.ensure_future(self._finish(jobs))
        self._finishing.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Future[None]) -> None:
        self._finishing.discard(task)
        if not task.cancelled() and (fault := task.exception()):
            _fail(self._result_fault, fault)


def _decode_threads(settings: EmbedderSettings, model: Model) -> int:
    """Beside the workers; 0 where they decode for themselves."""
    if settings.decode_threads is not None:
        return settings.decode_threads
    return 0 if model.runtime.device == "cpu" else cores.available()


def _fail(stage: asyncio.Future[None], fault: BaseException) -> None:
    if not stage.done():
        stage.set_exception(fault)


async def _watch(stage: asyncio.Future[None]) -> None:
    """Raise what the stage fails of, if it ever does."""
    await stage
