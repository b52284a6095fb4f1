"""Receives the messages of one queue: consumes again after each loss, decodes, checks the type.

A body that can't be decoded is counted, kept in quarantine where there is one, and acknowledged:
requeued it would come back without end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import structlog

from services.shared.contracts import AnyMessage, Embeddings, Replies, codec
from services.shared.errors import ConsumerLost, UndecodableMessage
from services.shared.messaging.broker import Broker, Consumer, Delivery, Queue
from services.shared.messaging.quarantine import Quarantine
from services.shared.telemetry.log_limit import LogLimit

M = TypeVar("M", bound=AnyMessage)
"""The contract messages of a queue."""

_log = structlog.get_logger(__name__)

_UNREADY: Final = "not consuming: the broker is unavailable"


class BadMessages:
    """Counts messages that can't be decoded, and keeps them in quarantine."""

    def __init__(self, count: Callable[[], object], quarantine: Quarantine | None = None) -> None:
        """Start with nothing counted.

        Args:
            count: is called for each bad message.
            quarantine: where they are kept; without one, some are logged.
        """
        self._count = count
        self._quarantine = quarantine
        self._logged = LogLimit()

    async def put(self, delivery: Delivery, queue: Queue, error: UndecodableMessage) -> None:
        """Count a message, and keep or log it; the caller acknowledges it."""
        self._count()
        if self._quarantine is not None:
            await self._quarantine.put(delivery, queue, error)
        elif (left_out := self._logged.left_out()) is not None:
            _log.error(str(error), action=error.code, queue=queue.name, left_out=left_out)


class Subscription(Generic[M]):
    """A consumer of one queue that outlives the loss of its connection, channel or queue."""

    def __init__(
        self,
        broker: Broker,
        queue: Callable[[], Queue],
        types: tuple[type[M], ...],
        bad: BadMessages,
        *,
        prefetch: int = 0,
        on_change: Callable[[Queue | None], object] = lambda _: None,
    ) -> None:
        """Subscribe to nothing before the first `take`.

        Args:
            broker: the broker to consume from.
            queue: returns the queue to consume; called again after each loss. Messages of an
                exclusive queue need no acknowledgement, since they are lost with it.
            types: the contract messages that the queue may hold; others are bad messages.
            bad: receives the bad messages.
            prefetch: at most so many unsettled deliveries; 0 is no bound.
            on_change: is called with the queue once it is consumed, and with None once it is lost.
        """
        self._broker = broker
        self._next_queue = queue
        self._types = types
        self._bad = bad
        self._prefetch = prefetch
        self._on_change = on_change
        self._consumer: Consumer | None = None
        self._queue: Queue | None = None
        self._cancelled = False

    def unready(self) -> str | None:
        """Return why no message can be received now, or None."""
        return _UNREADY if self._consumer is None else None

    def stalled(self) -> str | None:
        """Return why nothing is received although the broker is ready, or None.

        A state that lasts is one that only a restart ends.
        """
        return self.unready() if self._broker.ready and not self._cancelled else None

    async def take(self, limit: int) -> Sequence[tuple[Delivery, M]]:
        """Wait for messages; consume the queue first, and again after each loss.

        Returns:
            At least one and at most `limit` deliveries with their messages, or none at all after
            `cancel`.
        """
        while not self._cancelled:
            queue, consumer = await self._consuming()
            try:
                deliveries = await consumer.take(limit)
            except ConsumerLost as error:
                await self._lose(consumer, error)
                continue
            if received := await self._decoded(queue, deliveries):
                return received
        return ()

    async def cancel(self) -> None:
        """Receive no more, for good; deliveries that `take` returned can still be settled."""
        self._cancelled = True
        if self._consumer is not None:
            await self._consumer.cancel()

    async def close(self) -> None:
        """Receive no more, for good; deliveries that are not settled go back to the queue."""
        self._cancelled = True
        if self._consumer is not None:
            await self._consumer.close()

    async def _consuming(self) -> tuple[Queue, Consumer]:
        if self._queue is None or self._consumer is None:
            self._queue = self._next_queue()
            self._consumer = await self._broker.consume(
                self._queue, prefetch=self._prefetch, auto_ack=self._queue.exclusive
            )
            if self._cancelled:
                await self._consumer.cancel()
            else:
                self._on_change(self._queue)
        return self._queue, self._consumer

    async def _lose(self, consumer: Consumer, error: ConsumerLost) -> None:
        if self._cancelled:
            return
        _log.warning(str(error), action=error.code)
        self._queue = self._consumer = None
        self._on_change(None)
        await consumer.close()

    async def _decoded(
        self, queue: Queue, deliveries: Sequence[Delivery]
    ) -> list[tuple[Delivery, M]]:
        received = []
        for delivery in deliveries:
            try:
                message = self._decode(queue, delivery)
            except UndecodableMessage as error:
                await self._bad.put(delivery, queue, error)
                delivery.ack()
                continue
            if isinstance(message, Embeddings | Replies) and message.refused:
                # The valid items of the message are handled all the same.
                await self._bad.put(delivery, queue, UndecodableMessage(message.refused[0]))
            received.append((delivery, message))
        return received

    def _decode(self, queue: Queue, delivery: Delivery) -> M:
        message = codec.decode(delivery.type, delivery.body)
        if not isinstance(message, self._types):
            reason = f"{delivery.type} is not for {queue.name}"
            raise UndecodableMessage(reason)
        return message
