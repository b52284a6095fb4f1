"""Images that came back: an embedder may have died of them.

Which of those it held it died of, nobody knows. So each goes to a queue of its own kind, where an
embedder takes one at a time: who dies there died of that one, and the broker counts it. The
innocent are answered on the way; what was there at too many deaths is never tried again.
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


class Suspects:
    """Who is suspect, and what of."""

    def __init__(self, broker: Broker, metrics: EmbedderMetrics, *, most_deaths: int) -> None:
        self._most_deaths = most_deaths
        self._broker = broker
        self._metrics = metrics

    async def moved(self, delivery: Delivery, queue: Queue) -> bool:
        """Hand a message that came back over to the suspects' queue; False when it stays here."""
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

    def verdict(self, deaths: int) -> ImageQuarantined | None:
        """What is wrong with an image that so many embedders died with."""
        if deaths < self._most_deaths:
            return None
        message = f"{deaths} embedders died with this image in hand; it is not tried again"
        return ImageQuarantined(message)


def origin_of(delivery: Delivery, queue: Queue) -> Queue:
    """The queue that a message was published to by who asked."""
    if queue is not topology.EMBED_SUSPECTS:
        return queue
    return _ORIGINS.get(delivery.headers.get(_ORIGIN, ""), topology.EMBED)


def deaths_of(delivery: Delivery, queue: Queue) -> int:
    """How many embedders ended, or lost their connection, with this message in hand."""
    if queue is not topology.EMBED_SUSPECTS:
        return int(delivery.redelivered)
    return 1 + delivery.redeliveries
