"""Metrics of the broker as a process sees it: the connection, and the length of the queues."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.shared.errors import BrokerUnavailable, Unroutable
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Queue

_POLL_SECONDS: Final = 15.0
"""The usual interval of Prometheus; each poll is a passive declare of each queue."""

_CANCEL_SECONDS: Final = 1.0


class BrokerMetrics:
    """Shows the broker as this process sees it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ready = Gauge(
            "simile_broker_ready",
            "1 while this process is connected, its queues are declared, and it may publish.",
            registry=registry,
        )
        self.blocked = Gauge(
            "simile_broker_blocked",
            "1 while the broker accepts no messages: it is short of memory or disk.",
            registry=registry,
        )
        self.reconnects = Counter(
            "simile_broker_reconnects_total",
            "Connections opened again after a loss, by their use: publishes or consumes.",
            ["link"],
            registry=registry,
        )
        self.queue_messages = Gauge(
            "simile_broker_queue_messages",
            "Ready messages in the queue, as of the last 15 seconds. All processes report the "
            "same: use the largest value, not the sum.",
            ["queue"],
            registry=registry,
        )
        for link in ("publishes", "consumes"):
            self.reconnects.labels(link)

    def reconnected(self, link: str) -> None:
        """Count a connection that was opened again."""
        self.reconnects.labels(link).inc()

    @contextlib.asynccontextmanager
    async def watching(
        self, broker: Broker, queues: Sequence[Queue] = topology.ALL
    ) -> AsyncIterator[None]:
        """Show the broker and its queues inside the context."""
        self.ready.set_function(lambda: broker.ready)
        self.blocked.set_function(lambda: broker.blocked)
        polling = asyncio.create_task(self._poll(broker, queues), name="queue lengths")
        try:
            yield
        finally:
            polling.cancel()
            # With a timeout: on a cancel aiormq closes the channel, which a broker that is away
            # never confirms. The task then ends with the connection.
            await asyncio.wait({polling}, timeout=_CANCEL_SECONDS)

    async def _poll(self, broker: Broker, queues: Sequence[Queue]) -> None:
        while True:
            for queue in queues:
                await self.show_queue(broker, queue.name)
            await asyncio.sleep(_POLL_SECONDS)

    async def show_queue(self, broker: Broker, queue: str) -> None:
        """Show the length of a queue; a length that is unknown is not shown."""
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                depth = await broker.depth(queue)
        except (BrokerUnavailable, Unroutable, TimeoutError):
            self.queue_messages.remove(queue)
        else:
            self.queue_messages.labels(queue).set(depth)
