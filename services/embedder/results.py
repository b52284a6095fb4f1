"""Publishes vectors to `reply_to` and failures to `final_reply_to`, then settles the messages.

A message is acknowledged only after the broker has confirmed its result.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog

from services.embedder.job import InFlight, Job
from services.embedder.metrics import Instruments
from services.embedder.models.model import Model
from services.shared.contracts import MAX_ITEMS, Embedding, Embeddings, Failure, Replies, Reply
from services.shared.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    Overloaded,
    SimileError,
    Unroutable,
    Unsendable,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Message
from services.shared.messaging.quarantine import Quarantine
from services.shared.telemetry.tracing import sampled, trace_id

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """The publisher's waits.

    Attributes:
        retry_seconds: between two attempts to publish while the broker is unavailable.
        max_defer_seconds: how long results are deferred, at most. A batch of photographs is
            decoded in less; results don't wait for a larger image.
    """

    retry_seconds: float = 0.2
    max_defer_seconds: float = 0.02


DEFAULT_TIMING: Final = Timing()


class _Deferred(NamedTuple):
    jobs: Sequence[Job]
    timer: asyncio.TimerHandle


class ResultPublisher:
    """Publishes what is done with each job: its vector, its failure, its quarantine record.

    `publish`, `defer` and `flush` may be called from any thread, and work in the event loop.
    """

    def __init__(
        self,
        broker: Broker,
        quarantine: Quarantine,
        in_flight: InFlight,
        instruments: Instruments,
        model: Model,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        """Create a publisher for the vectors of `model`."""
        self._broker = broker
        self._quarantine = quarantine
        self._in_flight = in_flight
        self._metrics = instruments.metrics
        self._watchdog = instruments.results
        self._tracer = instruments.tracer
        self._model_id = model.model_id
        self._dimension = model.dimension
        self._timing = timing
        self._loop = asyncio.get_running_loop()
        self._fault: asyncio.Future[None] = self._loop.create_future()
        self._publishing: set[asyncio.Task[None]] = set()
        self._deferred: dict[Hashable, _Deferred] = {}
        # Each entry is changed by its worker's thread alone.
        self._deferring: set[Hashable] = set()

    async def run(self) -> None:
        """Wait until publishing fails by a defect, and raise that."""
        await self._fault

    def close(self) -> None:
        """Publish nothing more: unsettled messages go back to their queue."""
        for task in self._publishing:
            task.cancel()
        for deferred in self._deferred.values():
            deferred.timer.cancel()
        self._deferred.clear()

    def publish(self, jobs: Sequence[Job]) -> None:
        """Publish and settle jobs that are done."""
        self._in_loop(self._publish_soon, jobs)

    def defer(self, worker: Hashable, jobs: Sequence[Job]) -> None:
        """Publish a worker's jobs at its next `flush`, or soon if none comes.

        To publish eight results takes the event loop, and with it the interpreter's lock, for some
        milliseconds. A thread that decodes needs that lock twice a millisecond; a thread that runs
        a model does not need it.
        """
        self._deferring.add(worker)
        self._in_loop(self._hold, worker, jobs)

    def flush(self, worker: Hashable) -> None:
        """Publish the worker's deferred jobs, if there are any."""
        if worker in self._deferring:
            self._deferring.discard(worker)
            self._in_loop(self._release, worker)

    def _in_loop(self, call: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(call, *args)

    def _hold(self, worker: Hashable, jobs: Sequence[Job]) -> None:
        self._release(worker)
        timer = self._loop.call_later(self._timing.max_defer_seconds, self._release, worker)
        self._deferred[worker] = _Deferred(jobs, timer)

    def _release(self, worker: Hashable) -> None:
        deferred = self._deferred.pop(worker, None)
        if deferred is None:
            return
        deferred.timer.cancel()
        for job in deferred.jobs:
            job.watch.lap("batch_wait")
        self._publish_soon(deferred.jobs)

    def _publish_soon(self, jobs: Sequence[Job]) -> None:
        """Publish in a task: results of one batch don't wait for those of another."""
        for job in jobs:
            job.pixels = None
        task = asyncio.ensure_future(self._publish(jobs))
        self._publishing.add(task)
        task.add_done_callback(self._published)

    def _published(self, task: asyncio.Task[None]) -> None:
        self._publishing.discard(task)
        if not task.cancelled() and (fault := task.exception()) and not self._fault.done():
            self._fault.set_exception(fault)

    async def _publish(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.poison and job.error is not None:
                await self._put_into_quarantine(job, job.error)
        embedded = defaultdict[tuple[str, bool], list[Job]](list)
        failed = defaultdict[str, list[Job]](list)
        for job in jobs:
            if job.error is None:
                embedded[job.slip.reply_to, job.interactive].append(job)
            elif isinstance(job.error, DeadlineExceeded):
                self._end(job)  # without an answer, and without its time in the metrics
            else:
                failed[job.slip.final_reply_to].append(job)
        for (queue, _), group in embedded.items():
            for chunk in _chunks(group):
                await self._publish_vectors(queue, chunk)
        for queue, group in failed.items():
            for chunk in _chunks(group):
                await self._publish_failures(queue, chunk)
        self._in_flight.remove(len(jobs))

    async def _put_into_quarantine(self, job: Job, error: SimileError) -> None:
        self._metrics.quarantined.labels(error.code).inc()
        queue = topology.EMBED if job.interactive else topology.EMBED_BULK
        await self._quarantine.put(job.delivery, queue, error, deaths=job.crash_count)

    async def _publish_vectors(self, queue: str, jobs: Sequence[Job]) -> None:
        items = tuple(
            Embedding(job.slip, job.vector or b"", job.watch.stages, job.batch_images)
            for job in jobs
        )
        message = Message.of(Embeddings(self._model_id, self._dimension, items))
        try:
            await self._send(queue, message, jobs)
        except Overloaded as error:
            await self._refuse(jobs, error)
        except (Unroutable, Unsendable) as error:
            self._settle_unanswered(jobs, error)
        except BrokerUnavailable as error:
            self._give_back(jobs, error)
        else:
            self._settle(jobs)

    async def _publish_failures(self, queue: str, jobs: Sequence[Job]) -> None:
        replies = tuple(
            Reply(
                job.slip.correlation_id,
                Failure(job.error.code, str(job.error)),
                job.watch.stages,
                batch_images=job.batch_images,
            )
            for job in jobs
            if job.error is not None
        )
        try:
            await self._send(queue, Message.of(Replies(replies)), jobs)
        except (Unroutable, Unsendable, Overloaded) as error:
            self._settle_unanswered(jobs, error)
        except BrokerUnavailable as error:
            self._give_back(jobs, error)
        else:
            self._settle(jobs)

    async def _send(self, queue: str, message: Message, jobs: Sequence[Job]) -> None:
        """Publish a message; while the broker is unavailable, retry until all callers have left.

        Bulk results also wait for a full queue. If the images were given back at once, they would
        be embedded again and again during a broker's alarm, and bulk images would be dead-lettered.
        """
        for attempt in itertools.count():
            try:
                with self._watchdog.work():
                    await self._broker.publish(queue, message)
            except Unroutable:
                raise
            except (BrokerUnavailable, Overloaded) as error:
                if isinstance(error, Overloaded) and any(job.interactive for job in jobs):
                    raise
                if all(job.expired for job in jobs):
                    raise
                if attempt == 0:
                    _log.warning(str(error), action=error.code, queue=queue, images=len(jobs))
                await asyncio.sleep(self._timing.retry_seconds)
            else:
                return

    async def _refuse(self, jobs: Sequence[Job], error: Overloaded) -> None:
        """Answer that the next queue is full."""
        by_queue = defaultdict[str, list[Job]](list)
        for job in jobs:
            job.error = error
            by_queue[job.slip.final_reply_to].append(job)
        for queue, group in by_queue.items():
            await self._publish_failures(queue, group)

    def _settle_unanswered(self, jobs: Sequence[Job], error: Exception) -> None:
        # The service that sent the images is gone, and its callers with it.
        self._metrics.unanswerable.inc(len(jobs))
        _log.info(str(error), action="unanswerable", images=len(jobs))
        self._settle(jobs)

    def _settle(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.watch.lap("publish")
            if not job.slip.canary:
                self._metrics.observe(job.watch, job.intake, _trace(job))
            self._end(job)

    def _end(self, job: Job) -> None:
        """Count the job, record its span, and acknowledge its message."""
        code = "ok" if job.error is None else job.error.code
        self._metrics.count(code, job.intake)
        if sampled(job.slip.traceparent):
            self._record_span(job, code)
        job.delivery.ack()

    def _record_span(self, job: Job, code: str) -> None:
        attributes: dict[str, str | int | float] = {
            "simile.code": code,
            "simile.correlation_id": job.slip.correlation_id,
            "simile.batch_images": job.batch_images,
        }
        links = [job.batch_span] if job.batch_span else []
        self._tracer.record("embed", job.watch, job.slip.traceparent, attributes, links)

    def _give_back(self, jobs: Sequence[Job], error: Exception) -> None:
        self._metrics.given_back.inc(len(jobs))
        _log.warning(str(error), action="given_back", images=len(jobs))
        for job in jobs:
            job.delivery.reject(requeue=True)


def _chunks(jobs: Sequence[Job]) -> list[Sequence[Job]]:
    return [jobs[start : start + MAX_ITEMS] for start in range(0, len(jobs), MAX_ITEMS)]


def _trace(job: Job) -> str:
    """Return the id of the job's trace, for exemplars; empty when it is not sampled."""
    parent = job.slip.traceparent
    return trace_id(parent) if sampled(parent) else ""
