"""The ways from the embedder's queues into its pipeline."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from services.embedder.isolation import Suspects, deaths_of, origin_of
from services.embedder.job import Job
from services.embedder.metrics import EmbedderMetrics
from services.embedder.pipeline import Pipeline
from services.shared.contracts import EmbedRequest, codec
from services.shared.errors import ConsumerLost, UndecodableMessage
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Consumer, Delivery, Queue
from services.shared.messaging.quarantine import Quarantine
from services.shared.telemetry.watchdog import ProgressWatch

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 32


class Desk:
    """How many images are in hand."""

    def __init__(self, flow: ProgressWatch) -> None:
        self.flow = flow
        self.idle = asyncio.Event()
        self.idle.set()

    def taken(self) -> None:
        """One more."""
        self.flow.taken()
        self.idle.clear()

    def settled(self, count: int) -> None:
        """So many fewer."""
        self.flow.settled(count)
        if self.flow.in_flight == 0:
            self.idle.set()


class Intake:
    """One queue's way into the pipeline, on a channel of its own."""

    def __init__(
        self,
        broker: Broker,
        queue: Queue,
        prefetch: int,
        pipeline: Pipeline,
        metrics: EmbedderMetrics,
        desk: Desk,
        *,
        suspects: Suspects,
        quarantine: Quarantine,
    ) -> None:
        self.queue = queue
        self._broker = broker
        self._prefetch = prefetch
        self._pipeline = pipeline
        self._metrics = metrics
        self._desk = desk
        self._suspects = suspects
        self._quarantine = quarantine
        self._consumer: Consumer | None = None
        self._cancelled = False

    def unready(self) -> str | None:
        """Why no image can be taken now."""
        return None if self._consumer is not None else "not consuming: the broker is away"

    def deaf(self) -> str | None:
        """Why it takes nothing although the broker is there: what only a restart may mend."""
        return self.unready() if self._broker.ready and not self._cancelled else None

    async def run(self) -> None:
        """Take deliveries until `cancel`, again after each loss of the queue."""
        while not self._cancelled:
            self._consumer = await self._broker.consume(self.queue, prefetch=self._prefetch)
            try:
                while True:
                    for delivery in await self._consumer.take(_AT_ONCE):
                        await self._accept(delivery)
            except ConsumerLost as error:
                if not self._cancelled:
                    _log.warning(str(error), action=error.code)
                    self._consumer = None

    async def cancel(self) -> None:
        """Take no more; what was taken can still be settled."""
        self._cancelled = True
        if self._consumer is not None:
            await self._consumer.cancel()

    async def close(self) -> None:
        """End the consumer; what isn't settled goes back to the queue."""
        if self._consumer is not None:
            await self._consumer.close()

    async def _accept(self, delivery: Delivery) -> None:
        try:
            message = codec.decode(delivery.type, delivery.body)
            if not isinstance(message, EmbedRequest):
                reason = f"{delivery.type} is not for {self.queue.name}"
                raise UndecodableMessage(reason)  # noqa: TRY301 (one way for both)
        except UndecodableMessage as error:
            await self._bury(delivery, error)
            return
        if delivery.redelivered:
            self._metrics.redelivered.inc()
            if await self._suspects.moved(delivery, self.queue):
                return
        self._desk.taken()
        interactive = origin_of(delivery, self.queue) is topology.EMBED
        deaths = deaths_of(delivery, self.queue)
        job = Job(message.slip, message.image, delivery, interactive, deaths)
        if verdict := self._suspects.verdict(deaths):
            self._pipeline.refuse(job, verdict)
        else:
            self._pipeline.submit(job)

    async def _bury(self, delivery: Delivery, error: UndecodableMessage) -> None:
        """What can never be handled is set aside; requeued it would come back for ever."""
        self._metrics.undecodable.inc()
        self._metrics.quarantined.labels(error.code).inc()
        await self._quarantine.put(delivery, self.queue, error)
        delivery.ack()
