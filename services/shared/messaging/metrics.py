"""What a process sees of its broker: the connection, and how long the queues are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.shared.errors import BrokerUnavailable, Unroutable
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Queue

_LOOK_SECONDS: Final = 15.0
"""As often as Prometheus looks, by custom; each look is a passive declare of each queue."""

_LEAVE_SECONDS: Final = 1.0


class BrokerMetrics:
    """The broker as this process sees it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ready = Gauge(
            "simile_broker_ready",
            "1 while this process is connected, its queues are declared, and it may publish.",
            registry=registry,
        )
        self.blocked = Gauge(
            "simile_broker_blocked",
            "1 while the broker takes no messages: it is short of memory or disk.",
            registry=registry,
        )
        self.reconnects = Counter(
            "simile_broker_reconnects_total",
            "Connections made anew, by what they are for: publishes or consumes.",
            ["link"],
            registry=registry,
        )
        self.queue_messages = Gauge(
            "simile_broker_queue_messages",
            "Messages in the queue that nobody has taken, as of the last 15 seconds. All processes "
            "see the same: take the largest, not the sum.",
            ["queue"],
            registry=registry,
        )
        for link in ("publishes", "consumes"):
            self.reconnects.labels(link)

    def reconnected(self, link: str) -> None:
        """A connection was made anew."""
        self.reconnects.labels(link).inc()

    @contextlib.asynccontextmanager
    async def watching(
        self, broker: Broker, queues: Sequence[Queue] = topology.ALL
    ) -> AsyncIterator[None]:
        """Show the broker and its queues while inside."""
        self.ready.set_function(lambda: broker.ready)
        self.blocked.set_function(lambda: broker.blocked)
        looking = asyncio.create_task(self._look_for_ever(broker, queues), name="queue lengths")
        try:
            yield
        finally:
            looking.cancel()
            # Not until it has ended: aiormq answers a cancel by closing the channel, and a broker
            # that is away never agrees to that. What is left ends with the connection.
            await asyncio.wait({looking}, timeout=_LEAVE_SECONDS)

    async def _look_for_ever(self, broker: Broker, queues: Sequence[Queue]) -> None:
        while True:
            for queue in queues:
                await self._look(broker, queue.name)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self, broker: Broker, queue: str) -> None:
        """Show a queue; what can't be seen is not shown, rather than as it was."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                depth = await broker.depth(queue)
        except (BrokerUnavailable, Unroutable, TimeoutError):
            self.queue_messages.remove(queue)
        else:
            self.queue_messages.labels(queue).set(depth)
