"""Consumes on a RabbitMQ channel of its own; acks are collected and sent as `multiple`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence

import aiormq
from aio_pika.abc import AbstractQueue
from aiormq.abc import DeliveredMessage
from pamqp import commands as spec

from services.shared.errors import ConsumerLost
from services.shared.lifecycle import cancel
from services.shared.messaging.rabbitmq.transport import CONNECTION_ERRORS


class AmqpDelivery:
    """A message of a RabbitMQ queue."""

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
        """Return the contract's name."""
        return str(self._message.header.properties.message_type or "")

    @property
    def body(self) -> bytes:
        """Return the encoded contract message."""
        return self._message.body

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers that are strings."""
        headers = self._message.header.properties.headers or {}
        return {name: value for name, value in headers.items() if isinstance(value, str)}

    @property
    def redeliveries(self) -> int:
        """Return the count of a quorum queue; for a classic queue 0 or 1."""
        headers = self._message.header.properties.headers or {}
        count = headers.get("x-delivery-count")
        return max(int(self.redelivered), count if isinstance(count, int) else 0)

    def ack(self) -> None:
        """Mark the message as done; acks are sent together."""
        if not self._settled:
            self._settled = True
            self._consumer.settle(self.tag, requeue=None)

    def reject(self, *, requeue: bool) -> None:
        """Return the message to its queue, or drop it."""
        if not self._settled:
            self._settled = True
            self._consumer.settle(self.tag, requeue=requeue)


class AmqpConsumer:
    """Receives the deliveries of one RabbitMQ queue.

    aio-pika opens and closes the channel. Deliveries and acks use the channel underneath, which
    saves the CPU time of aio-pika's message objects.
    """

    def __init__(
        self, queue: AbstractQueue, channel: aiormq.abc.AbstractChannel, *, auto_ack: bool
    ) -> None:
        """Keep the channel underneath that of `queue`; `start` begins to receive."""
        self.queue = queue.name
        self._declared = queue
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
        """Return whether no more deliveries will come."""
        return self._ended is not None

    async def start(self) -> None:
        """Begin to receive.

        Raises:
            AMQPError: the channel closed.
        """
        self._declared.channel.close_callbacks.add(lambda *_: self._on_channel_closed())
        self._channel.on_consumer_cancel_callbacks.add(self._on_cancel)
        ok = await self._channel.basic_consume(self.queue, self._on_message, no_ack=self._auto_ack)
        self._tag = ok.consumer_tag
        if not self._auto_ack:
            self._sender = asyncio.create_task(self._send_forever(), name=f"acks {self.queue}")

    async def take(self, limit: int) -> Sequence[AmqpDelivery]:
        """Wait for a delivery; return at least one, at most `limit`.

        Raises:
            ConsumerLost: the consumer was cancelled, or its channel or queue is gone.
        """
        while self._ended is None and not self._untaken:
            self._arrived.clear()
            await self._arrived.wait()
        if self._ended is not None:
            raise ConsumerLost(self._ended)
        return [self._untaken.popleft() for _ in range(min(limit, len(self._untaken)))]

    async def cancel(self) -> None:
        """Stop receiving and return the untaken deliveries; taken ones can still be settled."""
        if self._ended is None:
            with contextlib.suppress(*CONNECTION_ERRORS):
                await self._declared.cancel(self._tag or "")
        self._end("it was cancelled")
        while self._untaken:
            self._untaken.popleft().reject(requeue=True)

    async def close(self) -> None:
        """Send pending acks, then close the channel: the rest returns to the queue."""
        self._end("it was closed")
        try:
            await self._send()
            await self._declared.channel.close()
        except CONNECTION_ERRORS:
            return
        finally:
            # Not earlier: the task may be sending.
            if self._sender is not None:
                await cancel(self._sender)

    def settle(self, tag: int, *, requeue: bool | None) -> None:
        """Ack a delivery soon, or reject it where `requeue` is not None."""
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

    def _on_channel_closed(self) -> None:
        self._end("its channel closed")
        if self._sender is not None:
            self._sender.cancel()

    def _on_cancel(self, frame: spec.Basic.Cancel) -> None:
        if frame.consumer_tag == self._tag:
            self._end("its queue was deleted")

    def _end(self, reason: str) -> None:
        self._ended = self._ended or f"the consumer of {self.queue} is lost: {reason}"
        self._arrived.set()

    async def _send_forever(self) -> None:
        try:
            while True:
                await self._unsent.wait()
                self._unsent.clear()
                await self._send()
        except CONNECTION_ERRORS as error:
            self._end(str(error))

    async def _send(self) -> None:
        async with self._sending:
            # All that is settled is collected before the first await: a delivery that is rejected
            # during the sending must not count as settled for the `multiple` below.
            rejects, self._rejects = self._rejects, []
            acks, self._acks = self._acks, set()
            while self._settled_below + 1 in self._settled_above:
                self._settled_below += 1
                self._settled_above.discard(self._settled_below)
            # `multiple` acks all deliveries up to a tag: safe only where all of them are settled.
            together = [tag for tag in acks if tag <= self._settled_below]
            for tag, requeue in rejects:
                await self._channel.basic_nack(tag, requeue=requeue, wait=False)
            if together:
                await self._channel.basic_ack(max(together), multiple=True, wait=False)
            for tag in acks.difference(together):
                await self._channel.basic_ack(tag, wait=False)
