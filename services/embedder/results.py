"""Sends vectors to `reply_to`, failures to `final_reply_to`, sets culprits aside; then settles."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from services.embedder.job import Job
from services.embedder.metrics import EmbedderMetrics
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
from services.shared.telemetry.tracing import Tracer, sampled, trace_id
from services.shared.telemetry.watchdog import Watchdog

_log = structlog.get_logger(__name__)

_RETRY_SECONDS: Final = 0.2


class Outlet:
    """The embedder's one rule: send what you made to `reply_to`, and pass the slip on."""

    def __init__(
        self,
        broker: Broker,
        metrics: EmbedderMetrics,
        watchdog: Watchdog,
        tracer: Tracer,
        quarantine: Quarantine,
        model: Model,
        on_settled: Callable[[int], None],
    ) -> None:
        """watchdog: watches each publish. on_settled gets how many jobs are out of hand."""
        self._broker = broker
        self._metrics = metrics
        self._watchdog = watchdog
        self._tracer = tracer
        self._quarantine = quarantine
        self._model_id = model.model_id
        self._dimension = model.dimension
        self._on_settled = on_settled

    async def finish(self, jobs: Sequence[Job]) -> None:
        """Send and settle every job."""
        for job in jobs:
            if job.culprit and job.error is not None:
                await self._set_aside(job, job.error)
        made = defaultdict[tuple[str, bool], list[Job]](list)
        failed = defaultdict[str, list[Job]](list)
        for job in jobs:
            if job.error is None:
                made[job.slip.reply_to, job.interactive].append(job)
            elif isinstance(job.error, DeadlineExceeded):
                self._drop(job)
            else:
                failed[job.slip.final_reply_to].append(job)
        for (queue, _), together in made.items():
            for some in _lists(together):
                await self._send_vectors(queue, some)
        for queue, together in failed.items():
            for some in _lists(together):
                await self._send_failures(queue, some)
        self._on_settled(len(jobs))

    async def _set_aside(self, job: Job, error: SimileError) -> None:
        self._metrics.quarantined.labels(error.code).inc()
        queue = topology.EMBED if job.interactive else topology.EMBED_BULK
        await self._quarantine.put(job.delivery, queue, error, deaths=job.deaths)

    async def _send_vectors(self, queue: str, jobs: Sequence[Job]) -> None:
        items = tuple(
            Embedding(job.slip, job.vector or b"", job.watch.stages, job.batch_images)
            for job in jobs
        )
        message = Message.of(Embeddings(self._model_id, self._dimension, items))
        try:
            await self._publish(queue, message, jobs)
        except Overloaded as error:
            await self._refused(jobs, error)
        except (Unroutable, Unsendable) as error:
            self._unanswerable(jobs, error)
        except BrokerUnavailable as error:
            self._give_back(jobs, error)
        else:
            self._settle(jobs)

    async def _send_failures(self, queue: str, jobs: Sequence[Job]) -> None:
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
            await self._publish(queue, Message.of(Replies(replies)), jobs)
        except (Unroutable, Unsendable, Overloaded) as error:
            self._unanswerable(jobs, error)
        except BrokerUnavailable as error:
            self._give_back(jobs, error)
        else:
            self._settle(jobs)

    async def _publish(self, queue: str, message: Message, jobs: Sequence[Job]) -> None:
        """Publish; while the broker is away (for a build: full, too) again, if somebody waits.

        Giving the images back at once would embed them anew as long as a broker's alarm lasts, and
        a bulk image that came back a few times is dead-lettered.
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
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _refused(self, jobs: Sequence[Job], error: Overloaded) -> None:
        """The next queue is full: who waits is told at once."""
        by_queue = defaultdict[str, list[Job]](list)
        for job in jobs:
            job.error = error
            by_queue[job.slip.final_reply_to].append(job)
        for queue, together in by_queue.items():
            await self._send_failures(queue, together)

    def _unanswerable(self, jobs: Sequence[Job], error: Exception) -> None:
        # Who asked is gone, and its callers with it.
        self._metrics.unanswerable.inc(len(jobs))
        _log.info(str(error), action="unanswerable", images=len(jobs))
        self._settle(jobs)

    def _settle(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.watch.lap("publish")
            if not job.slip.canary:
                self._metrics.observe(job.watch, job.intake, _trace(job))
            self._end(job)

    def _drop(self, job: Job) -> None:
        """Nobody waits, so nobody is told; and what was not done took no time worth knowing."""
        self._end(job)

    def _end(self, job: Job) -> None:
        code = "ok" if job.error is None else job.error.code
        self._metrics.count(code, job.intake)
        if sampled(job.slip.traceparent):
            self._record(job, code)
        job.delivery.ack()

    def _record(self, job: Job, code: str) -> None:
        facts: dict[str, str | int | float] = {
            "simile.code": code,
            "simile.correlation_id": job.slip.correlation_id,
            "simile.batch_images": job.batch_images,
        }
        links = [job.batch_span] if job.batch_span else []
        self._tracer.record("embed", job.watch, job.slip.traceparent, facts, links)

    def _give_back(self, jobs: Sequence[Job], error: Exception) -> None:
        self._metrics.given_back.inc(len(jobs))
        _log.warning(str(error), action="given_back", images=len(jobs))
        for job in jobs:
            job.delivery.reject(requeue=True)


def _lists(jobs: Sequence[Job]) -> list[Sequence[Job]]:
    return [jobs[start : start + MAX_ITEMS] for start in range(0, len(jobs), MAX_ITEMS)]


def _trace(job: Job) -> str:
    """The id of the trace that its times are an example of; empty when there is none."""
    parent = job.slip.traceparent
    return trace_id(parent) if sampled(parent) else ""
