"""Isolates images that may have crashed an embedder.

The broker does not say which of its images an embedder crashed with. Each image that comes back
moves to a queue where embedders take one image at a time: a crash there has one cause, and the
broker counts it. Harmless images get their answers on the way; an image with too many crashes goes
into quarantine.
"""

from __future__ import annotations

from typing import Final

import structlog

from services.embedder.metrics import EmbedderMetrics
from services.shared.errors import BrokerUnavailable, ImageQuarantined, Overloaded, Unsendable
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Delivery, Message, Queue

_log = structlog.get_logger(__name__)

_ORIGIN: Final = "queue"
_ORIGINS: Final = {queue.name: queue for queue in (topology.EMBED, topology.EMBED_BULK)}


class CrashIsolation:
    """Moves redelivered images to the suspects' queue, and rejects those that crash embedders."""

    def __init__(self, broker: Broker, metrics: EmbedderMetrics, *, max_crashes: int) -> None:
        """Create the isolation of one embedder.

        Args:
            broker: holds the suspects' queue.
            metrics: the embedder's metrics.
            max_crashes: an image that so many embedders crashed with is not tried again.
        """
        self._max_crashes = max_crashes
        self._broker = broker
        self._metrics = metrics

    async def move(self, delivery: Delivery, queue: Queue) -> bool:
        """Move a redelivered message to the suspects' queue; return False when it stays here."""
        if queue is topology.EMBED_SUSPECTS or not delivery.redelivered:
            return False
        message = Message(
            delivery.type,
            delivery.body,
            persistent=queue is topology.EMBED_BULK,
            headers={_ORIGIN: queue.name},
        )
        try:
            await self._broker.publish(topology.EMBED_SUSPECTS.name, message)
        except (BrokerUnavailable, Overloaded, Unsendable) as error:
            _log.warning(str(error), action="suspect_kept", queue=queue.name)
            return False
        self._metrics.suspects.inc()
        delivery.ack()
        return True

    def error_of(self, crash_count: int) -> ImageQuarantined | None:
        """Return the error of an image with too many crashes; None when it may be tried."""
        if crash_count < self._max_crashes:
            return None
        message = f"{crash_count} embedders crashed while they held this image; it is not retried"
        return ImageQuarantined(message)


def origin_of(delivery: Delivery, queue: Queue) -> Queue:
    """Return the queue that the message was published to at first."""
    if queue is not topology.EMBED_SUSPECTS:
        return queue
    return _ORIGINS.get(delivery.headers.get(_ORIGIN, ""), topology.EMBED)


def crash_count_of(delivery: Delivery, queue: Queue) -> int:
    """Return how many embedders ended, or lost their connection, while they held the message."""
    if queue is not topology.EMBED_SUSPECTS:
        return int(delivery.redelivered)
    return 1 + delivery.redeliveries
