"""Takes embed requests from the broker and puts their images into the work queue."""

from __future__ import annotations

from typing import Final

from services.embedder.isolation import CrashIsolation, crash_count_of, origin_of
from services.embedder.job import InFlight, Job
from services.embedder.metrics import EmbedderMetrics
from services.embedder.results import ResultPublisher
from services.embedder.work_queue import WorkQueue
from services.shared.contracts import EmbedRequest
from services.shared.messaging import topology
from services.shared.messaging.broker import Delivery, Queue
from services.shared.messaging.subscription import Subscription

_MAX_TAKEN: Final = 32


class Consumer:
    """Receives the images of the embedder's queues."""

    def __init__(
        self,
        work_queue: WorkQueue,
        results: ResultPublisher,
        in_flight: InFlight,
        isolation: CrashIsolation,
        metrics: EmbedderMetrics,
    ) -> None:
        self._work_queue = work_queue
        self._results = results
        self._in_flight = in_flight
        self._isolation = isolation
        self._metrics = metrics

    async def consume(self, queue: Queue, subscription: Subscription[EmbedRequest]) -> None:
        """Receive the images of one queue until the subscription is cancelled."""
        while received := await subscription.take(_MAX_TAKEN):
            for delivery, request in received:
                await self._receive(queue, delivery, request)

    async def _receive(self, queue: Queue, delivery: Delivery, request: EmbedRequest) -> None:
        if delivery.redelivered:
            self._metrics.redelivered.inc()
            if await self._isolation.move(delivery, queue):
                return
        self._in_flight.add()
        interactive = origin_of(delivery, queue) is topology.EMBED
        crash_count = crash_count_of(delivery, queue)
        job = Job(request.slip, request.image, delivery, interactive, crash_count)
        if rejection := self._isolation.error_of(crash_count):
            job.error, job.poison = rejection, True
            self._results.publish([job])
        else:
            self._work_queue.put(job)
