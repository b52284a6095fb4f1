"""Sends vectors to `reply_to` and failures to `final_reply_to`; then settles."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import structlog

from services.embedder.job import Job
from services.embedder.metrics import EmbedderMetrics
from services.shared.contracts import MAX_ITEMS, Embedding, Embeddings, Failure, Replies, Reply
from services.shared.errors import BrokerUnavailable, DeadlineExceeded, Overloaded, Unroutable
from services.shared.messaging.broker import Broker, Message

_log = structlog.get_logger(__name__)

_RETRY_SECONDS: Final = 0.2


class Outlet:
    """The embedder's one rule: send what you made to `reply_to`, and pass the slip on."""

    def __init__(
        self, broker: Broker, metrics: EmbedderMetrics, *, model_id: str, dimension: int
    ) -> None:
        self._broker = broker
        self._metrics = metrics
        self._model_id = model_id
        self._dimension = dimension

    async def finish(self, jobs: Sequence[Job]) -> None:
        """Send and settle every job."""
        made = defaultdict[tuple[str, bool], list[Job]](list)
        failed = defaultdict[str, list[Job]](list)
        for job in jobs:
            if job.error is None:
                made[job.slip.reply_to, job.interactive].append(job)
            elif isinstance(job.error, DeadlineExceeded):
                self._settle([job])  # nobody waits, so nobody is told
            else:
                failed[job.slip.final_reply_to].append(job)
        for (queue, _), together in made.items():
            for some in _lists(together):
                await self._send_vectors(queue, some)
        for queue, together in failed.items():
            for some in _lists(together):
                await self._send_failures(queue, some)

    async def _send_vectors(self, queue: str, jobs: Sequence[Job]) -> None:
        items = tuple(Embedding(job.slip, job.vector or b"", job.stages) for job in jobs)
        message = Message.of(Embeddings(self._model_id, self._dimension, items))
        try:
            await self._publish(queue, message, jobs)
        except Overloaded as error:
            await self._refused(jobs, error)
        except Unroutable as error:
            self._unanswerable(jobs, error)
        except BrokerUnavailable as error:
            self._give_back(jobs, error)
        else:
            self._settle(jobs)

    async def _send_failures(self, queue: str, jobs: Sequence[Job]) -> None:
        replies = tuple(
            Reply(job.slip.correlation_id, Failure(job.error.code, str(job.error)), job.stages)
            for job in jobs
            if job.error is not None
        )
        try:
            await self._publish(queue, Message.of(Replies(replies)), jobs)
        except (Unroutable, Overloaded) as error:
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
            intake = "interactive" if job.interactive else "bulk"
            code = "ok" if job.error is None else job.error.code
            self._metrics.images.labels(intake=intake, code=code).inc()
            for stage, seconds in job.stages.items():
                self._metrics.stage_seconds.labels(stage=stage).observe(seconds)
            job.delivery.ack()

    def _give_back(self, jobs: Sequence[Job], error: Exception) -> None:
        _log.warning(str(error), action="given_back", images=len(jobs))
        for job in jobs:
            job.delivery.reject(requeue=True)


def _lists(jobs: Sequence[Job]) -> list[Sequence[Job]]:
    return [jobs[start : start + MAX_ITEMS] for start in range(0, len(jobs), MAX_ITEMS)]
