"""A consumer on a RabbitMQ channel of its own; acks are gathered and sent as `multiple`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp import commands as spec

from services.shared.errors import ConsumerLost
from services.shared.lifecycle import cancel
from services.shared.messaging.rabbitmq.connection import GONE


class AmqpDelivery:
    """One message of a RabbitMQ queue."""

    __slots__ = ("_consumer", "_message", "_settled", "received", "redelivered", "tag")

    def __init__(self, consumer: AmqpConsumer, message: DeliveredMessage) -> None:
        self._consumer = consumer
        self._message = message
        self._settled = False
        self.tag: int = message.delivery_tag or 0
        self.redelivered = bool(message.redelivered)
        self.received = time.perf_counter()

    @property
    def type(self) -> str:
        """The contract's name."""
        return str(self._message.header.properties.message_type or "")

    @property
    def body(self) -> bytes:
        """The encoded contract message."""
        return self._message.body

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that are strings."""
        headers = self._message.header.properties.headers or {}
        return {name: value for name, value in headers.items() if isinstance(value, str)}

    @property
    def redeliveries(self) -> int:
        """As a quorum queue counts them; else 0 or 1."""
        headers = self._message.header.properties.headers or {}
        count = headers.get("x-delivery-count")
        return max(int(self.redelivered), count if isinstance(count, int) else 0)

    def ack(self) -> None:
        """Mark it done; the ack goes out with its neighbours'."""
        if not self._settled:
            self._settled = True
            self._consumer.settle(self.tag, requeue=None)

    def reject(self, *, requeue: bool) -> None:
        """Give it back or drop it."""
        if not self._settled:
            self._settled = True
            self._consumer.settle(self.tag, requeue=requeue)


class AmqpConsumer:
    """A stream of deliveries from one RabbitMQ queue."""

    def __init__(self, channel: AbstractChannel, queue: str, *, auto_ack: bool) -> None:
        self.queue = queue
        self._channel = channel
        self._auto_ack = auto_ack
        self._tag: str | None = None
        self._untaken: deque[AmqpDelivery] = deque()
        self._arrived = asyncio.Event()
        self._ended: str | None = None
        self._acks: set[int] = set()
        self._rejects: list[tuple[int, bool]] = []
        self._settled_above: set[int] = set()
        self._settled_below = 0
        self._unsent = asyncio.Event()
        self._sending = asyncio.Lock()
        self._sender: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended is not None

    async def start(self) -> None:
        """Begin to receive."""
        self._channel.closing.add_done_callback(lambda _: self._end("its channel closed"))
        self._channel.on_consumer_cancel_callbacks.add(self._on_cancel)
        ok = await self._channel.basic_consume(self.queue, self._on_message, no_ack=self._auto_ack)
        self._tag = ok.consumer_tag
        if not self._auto_ack:
            self._sender = asyncio.create_task(self._send_for_ever(), name=f"acks {self.queue}")

    async def take(self, limit: int) -> Sequence[AmqpDelivery]:
        """At least one delivery, at most `limit`. Raises ConsumerLost."""
        while self._ended is None and not self._untaken:
            self._arrived.clear()
            await self._arrived.wait()
        if self._ended is not None:
            raise ConsumerLost(self._ended)
        return [self._untaken.popleft() for _ in range(min(limit, len(self._untaken)))]

    async def cancel(self) -> None:
        """Take no more, give back the untaken; what was taken can still be settled."""
        if self._ended is None:
            with contextlib.suppress(*GONE):
                await self._channel.basic_cancel(self._tag or "")
        self._end("it was cancelled")
        while self._untaken:
            self._untaken.popleft().reject(requeue=True)

    async def close(self) -> None:
        """Send the acks that wait, then close the channel: the rest goes back to the queue."""
        self._end("it was closed")
        try:
            await self._send()
            await self._channel.close()
        except GONE:
            return
        finally:
            # Not earlier: it may be in the middle of sending.
            if self._sender is not None:
                await cancel(self._sender)

    def settle(self, tag: int, *, requeue: bool | None) -> None:
        """Remember to ack (requeue None) or reject the tag."""
        if self._auto_ack or self._channel.is_closed:
            return
        if requeue is None:
            self._acks.add(tag)
        else:
            self._rejects.append((tag, requeue))
        self._settled_above.add(tag)
        self._unsent.set()

    async def _on_message(self, message: DeliveredMessage) -> None:
        delivery = AmqpDelivery(self, message)
        if self._ended is None:
            self._untaken.append(delivery)
            self._arrived.set()
        else:
            delivery.reject(requeue=True)

    def _on_cancel(self, frame: spec.Basic.Cancel) -> None:
        if frame.consumer_tag == self._tag:
            self._end("its queue was deleted")

    def _end(self, reason: str) -> None:
        self._ended = self._ended or f"the consumer of {self.queue} is lost: {reason}"
        self._arrived.set()

    async def _send_for_ever(self) -> None:
        try:
            while True:
                await self._unsent.wait()
                self._unsent.clear()
                await self._send()
        except GONE as error:
            self._end(str(error))

    async def _send(self) -> None:
        async with self._sending:
            # One look at all that is settled, before the first wait: what is rejected while
            # this is being sent must not count as settled for the `multiple` below.
            rejects, self._rejects = self._rejects, []
            acks, self._acks = self._acks, set()
            while self._settled_below + 1 in self._settled_above:
                self._settled_below += 1
                self._settled_above.discard(self._settled_below)
            # `multiple` acks everything up to a tag: safe only where all below it is settled.
            together = [tag for tag in acks if tag <= self._settled_below]
            for tag, requeue in rejects:
                await self._channel.basic_nack(tag, requeue=requeue, wait=False)
            if together:
                await self._channel.basic_ack(max(together), multiple=True, wait=False)
            for tag in acks.difference(together):
                await self._channel.basic_ack(tag, wait=False)
