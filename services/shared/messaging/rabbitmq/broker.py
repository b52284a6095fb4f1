"""The broker port on RabbitMQ: publishing and consuming on connections of their own.

Publishes are mandatory, confirmed, and bounded in time. A blocked connection can't block acks.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)
from pamqp import commands as spec
from pamqp.common import FieldTable

from services.shared.errors import BrokerUnavailable, Overloaded, Unroutable, Unsendable
from services.shared.messaging.broker import Message, Queue, QueueState, require_sendable
from services.shared.messaging.rabbitmq.connection import GONE, Link
from services.shared.messaging.rabbitmq.consumer import AmqpConsumer
from services.shared.messaging.rabbitmq.tls import AmqpTls

_TRANSIENT: Final = 1
_PERSISTENT: Final = 2
_TOO_LARGE: Final = re.compile(r"message size \d+.* max size (\d+)")
_AWAY: Final = "RabbitMQ is away; the service connects again by itself"
_BLOCKED: Final = "RabbitMQ takes no messages now: it is short of memory or disk"


class AmqpBroker:
    """RabbitMQ behind the broker port."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        publish_timeout_seconds: float = 1.0,
        start_timeout_seconds: float | None = 60.0,
        heartbeat_seconds: int = 5,
        tls: AmqpTls | None = None,
        on_reconnect: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`name` is shown in RabbitMQ's list of connections.

        start_timeout_seconds: how long `start` waits; None waits for ever, through refusals, too.
        on_reconnect gets `publishes` or `consumes` when that connection is made again.
        """
        self._publish_timeout_seconds = publish_timeout_seconds
        self._start_timeout_seconds = start_timeout_seconds
        self._queues: tuple[Queue, ...] = ()
        self._consumers: set[AmqpConsumer] = set()
        self._unconfirmed = False
        self._max_body_bytes: int | None = None
        self._publishing, self._consuming = (
            Link(
                url,
                name=f"{name} {role}",
                heartbeat_seconds=heartbeat_seconds,
                prepare=self._declare_all,
                tls=tls or AmqpTls(),
                on_reconnect=partial(on_reconnect, role),
            )
            for role in ("publishes", "consumes")
        )

    async def start(self, queues: Sequence[Queue]) -> None:
        """Connect and declare.

        Raises BrokerUnavailable when refused, or away for too long; without a timeout never.
        """
        self._queues = tuple(queues)
        self._publishing.start()
        self._consuming.start()
        try:
            async with asyncio.timeout(self._start_timeout_seconds):
                await self._publishing.up(patient=self._patient)
                await self._consuming.up(patient=self._patient)
        except TimeoutError:
            reason = f"no RabbitMQ within {self._start_timeout_seconds:.0f} s: is it running?"
            raise BrokerUnavailable(reason) from None

    async def close(self) -> None:
        """Send what acks wait, then close consumers and connections."""
        for consumer in list(self._consumers):
            await consumer.close()
        self._consumers.clear()
        await self._publishing.close()
        await self._consuming.close()

    @property
    def ready(self) -> bool:
        """Both connections are up, and publishing isn't blocked."""
        up = self._publishing.channel is not None and self._consuming.channel is not None
        return up and not self.blocked

    @property
    def blocked(self) -> bool:
        """Whether RabbitMQ has blocked the publishing connection."""
        return self._publishing.blocked

    @property
    def refusal(self) -> str | None:
        """The reason that RabbitMQ, or the trust in its certificate, gave against this process."""
        refusal = self._publishing.refusal or self._consuming.refusal
        return None if refusal is None else str(refusal)

    @property
    def _patient(self) -> bool:
        return self._start_timeout_seconds is None

    async def publish(self, queue: str, message: Message) -> None:
        """Publish mandatory and confirmed, as the port says."""
        channel = self._publishing.channel
        if channel is None:
            raise BrokerUnavailable(_AWAY)
        if self.blocked:
            raise BrokerUnavailable(_BLOCKED)
        require_sendable(queue, message)
        if self._max_body_bytes is not None and len(message.body) > self._max_body_bytes:
            raise _too_large(message, self._max_body_bytes)
        properties = spec.Basic.Properties(
            message_type=message.type,
            delivery_mode=_PERSISTENT if message.persistent else _TRANSIENT,
            headers=dict(message.headers) or None,
        )
        try:
            async with self._publishing.unblocked(self._publish_timeout_seconds):
                await channel.basic_publish(
                    message.body,
                    routing_key=queue,
                    properties=properties,
                    mandatory=True,
                    # The confirm says all that a drained socket would, and one publish need not
                    # wait for another's. But where no confirms come, what is unsent must not
                    # pile up.
                    wait=self._unconfirmed,
                )
        except PublishError:
            reason = f"no queue {queue}: is the service that reads it running?"
            raise Unroutable(reason) from None
        except DeliveryError:
            reason = f"queue {queue} is full: try again later, or add workers"
            raise Overloaded(reason) from None
        except TimeoutError:
            self._unconfirmed = True
            if self.blocked:
                raise BrokerUnavailable(_BLOCKED) from None
            self._publishing.doubt()
            self._consuming.doubt()
            reason = f"RabbitMQ did not confirm within {self._publish_timeout_seconds:g} s"
            raise BrokerUnavailable(reason) from None
        except GONE as error:
            most = _size_refused(error)
            self._max_body_bytes = most or self._max_body_bytes
            if most is not None and len(message.body) > most:
                raise _too_large(message, most) from None
            raise BrokerUnavailable(_AWAY) from error
        self._unconfirmed = False

    async def consume(self, queue: Queue, *, prefetch: int, auto_ack: bool = False) -> AmqpConsumer:
        """Consume on a channel of its own; waits for a connection, through any number of losses."""
        while True:
            connection = await self._consuming.up(patient=self._patient)
            try:
                channel = await connection.channel(publisher_confirms=False)
                await _declare(channel, queue)
                if not auto_ack:
                    await channel.basic_qos(prefetch_count=prefetch)
                consumer = AmqpConsumer(channel, queue.name, auto_ack=auto_ack)
                await consumer.start()
            except ChannelAccessRefused as error:
                reason = f"RabbitMQ refuses queue {queue.name}: {error}; check SIMILE_AMQP_URL"
                raise BrokerUnavailable(reason) from error
            except GONE:
                await asyncio.sleep(0.05)
                continue
            self._consumers = {known for known in self._consumers if not known.ended} | {consumer}
            return consumer

    async def depth(self, queue: str) -> int:
        """Ready messages in the queue."""
        return (await self.state(queue)).messages

    async def state(self, queue: str) -> QueueState:
        """Ready messages and consumers, by a passive declare."""
        connection = self._consuming.connection
        if connection is None:
            raise BrokerUnavailable(_AWAY)
        try:
            # A channel for this alone: asking for a missing queue closes the channel.
            channel = await connection.channel(publisher_confirms=False)
            ok = await channel.queue_declare(queue, passive=True)
            await channel.close()
        except ChannelNotFoundEntity:
            reason = f"no queue {queue}"
            raise Unroutable(reason) from None
        except GONE as error:
            raise BrokerUnavailable(_AWAY) from error
        return QueueState(ok.message_count or 0, ok.consumer_count or 0)

    async def _declare_all(self, channel: AbstractChannel) -> None:
        for queue in self._queues:
            await _declare(channel, queue)


def _size_refused(error: BaseException) -> int | None:
    """The bound on a message's bytes that RabbitMQ closed the channel over, if it did."""
    found = _TOO_LARGE.search(str(error))
    return None if found is None else int(found[1])


def _too_large(message: Message, most: int) -> Unsendable:
    return Unsendable(
        f"RabbitMQ takes messages of at most {most} bytes, and this one has {len(message.body)}: "
        "raise its max_message_size, or lower SIMILE_IMAGE_MAX_BYTES"
    )


async def _declare(channel: AbstractChannel, queue: Queue) -> None:
    try:
        await channel.queue_declare(
            queue.name,
            durable=not queue.exclusive,
            exclusive=queue.exclusive,
            auto_delete=queue.exclusive,
            arguments=_arguments(queue),
        )
    except ChannelPreconditionFailed as error:
        reason = (
            f"queue {queue.name} exists with other arguments: "
            "delete it, or give the new topology a new name"
        )
        raise BrokerUnavailable(reason) from error


def _arguments(queue: Queue) -> FieldTable:
    arguments: FieldTable = {"x-queue-type": queue.kind}
    if queue.max_length is not None or queue.max_length_bytes is not None:
        arguments["x-overflow"] = "drop-head" if queue.drops_oldest else "reject-publish"
    if queue.max_length is not None:
        arguments["x-max-length"] = queue.max_length
    if queue.max_length_bytes is not None:
        arguments["x-max-length-bytes"] = queue.max_length_bytes
    if queue.message_ttl_seconds is not None:
        arguments["x-message-ttl"] = round(1000 * queue.message_ttl_seconds)
    if queue.delivery_limit is not None:
        arguments["x-delivery-limit"] = queue.delivery_limit
    if queue.dead_letter_to is not None:
        arguments["x-dead-letter-exchange"] = ""
        arguments["x-dead-letter-routing-key"] = queue.dead_letter_to
    return arguments
