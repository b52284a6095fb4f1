"""The broker port on RabbitMQ, by aio-pika: one connection publishes, another consumes.

Publishes are mandatory, confirmed, and bounded in time. A blocked connection can't block acks.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from aio_pika import DeliveryMode
from aio_pika.abc import AbstractChannel, AbstractQueue
from aio_pika.exceptions import (
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)
from aiormq.exceptions import ChannelAccessRefused
from pamqp import commands as spec
from pamqp.common import FieldTable

from services.shared.errors import BrokerUnavailable, Overloaded, Unroutable, Unsendable
from services.shared.messaging.broker import Message, Queue, QueueState, require_sendable
from services.shared.messaging.rabbitmq.connection import Connection
from services.shared.messaging.rabbitmq.consumer import AmqpConsumer
from services.shared.messaging.rabbitmq.tls import AmqpTls
from services.shared.messaging.rabbitmq.transport import CONNECTION_ERRORS

_MIN_BACKOFF_SECONDS: Final = 0.05
_MAX_BACKOFF_SECONDS: Final = 2.0
"""RabbitMQ logs each refused channel, and aio-pika keeps 4 KB of it while its connection lasts."""

_TOO_LARGE: Final = re.compile(r"message size \d+.* max size (\d+)")
_AWAY: Final = "RabbitMQ is unavailable; the service reconnects by itself"
_BLOCKED: Final = "RabbitMQ takes no messages now: it is short of memory or disk"


class AmqpBroker:
    """Publishes and consumes on RabbitMQ, as the broker port says."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        publish_timeout_seconds: float = 1.0,
        start_timeout_seconds: float | None = 60.0,
        tls: AmqpTls | None = None,
        on_reconnect: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Keep the settings; `start` connects.

        Args:
            url: an AMQP URL; its `heartbeat` parameter is in seconds, 5 without it.
            name: shown in RabbitMQ's list of connections.
            publish_timeout_seconds: how long a confirm may take.
            start_timeout_seconds: how long `start` waits; None waits for ever, also while
                RabbitMQ refuses.
            tls: the certificates, for amqps.
            on_reconnect: called with `publishes` or `consumes` when that connection was lost and
                is open again.
        """
        self._publish_timeout_seconds = publish_timeout_seconds
        self._start_timeout_seconds = start_timeout_seconds
        self._queues: tuple[Queue, ...] = ()
        self._consumers: set[AmqpConsumer] = set()
        self._unconfirmed = False
        self._max_body_bytes: int | None = None
        self._publishing, self._consuming = (
            Connection(
                url,
                name=f"{name} {role}",
                prepare=self._declare_all,
                tls=tls or AmqpTls(),
                on_reconnect=partial(on_reconnect, role),
            )
            for role in ("publishes", "consumes")
        )

    async def start(self, queues: Sequence[Queue]) -> None:
        """Connect and declare the queues.

        Raises:
            BrokerUnavailable: RabbitMQ refuses this process, or can't be reached within the
                timeout; never without a timeout.
        """
        self._queues = tuple(queues)
        self._publishing.start()
        self._consuming.start()
        try:
            async with asyncio.timeout(self._start_timeout_seconds):
                await self._publishing.wait_connected(patient=self._patient)
                await self._consuming.wait_connected(patient=self._patient)
        except TimeoutError:
            reason = f"no RabbitMQ within {self._start_timeout_seconds:.0f} s: is it running?"
            raise BrokerUnavailable(reason) from None

    async def close(self) -> None:
        """Send pending acks, then close consumers and connections."""
        for consumer in list(self._consumers):
            await consumer.close()
        self._consumers.clear()
        await asyncio.gather(self._publishing.close(), self._consuming.close())

    @property
    def ready(self) -> bool:
        """Return whether both connections are open, and publishing isn't blocked."""
        connected = self._publishing.opened is not None and self._consuming.opened is not None
        return connected and not self.blocked

    @property
    def blocked(self) -> bool:
        """Return whether RabbitMQ has blocked the publishing connection."""
        return self._publishing.blocked

    @property
    def refusal(self) -> str | None:
        """Return why RabbitMQ refuses this process, or why its certificate is not trusted."""
        refusal = self._publishing.refusal or self._consuming.refusal
        return None if refusal is None else str(refusal)

    @property
    def _patient(self) -> bool:
        return self._start_timeout_seconds is None

    async def publish(self, queue: str, message: Message) -> None:
        """Publish mandatory and confirmed, as the port says."""
        opened = self._publishing.opened
        if opened is None:
            raise BrokerUnavailable(_AWAY)
        if self.blocked:
            raise BrokerUnavailable(_BLOCKED)
        require_sendable(queue, message)
        if self._max_body_bytes is not None and len(message.body) > self._max_body_bytes:
            raise _too_large(message, self._max_body_bytes)
        try:
            async with self._publishing.unless_blocked(self._publish_timeout_seconds):
                await opened.publisher.basic_publish(
                    message.body,
                    routing_key=queue,
                    properties=_properties(message),
                    mandatory=True,
                    # A confirm implies that the socket took the message, so publishes need not
                    # wait for each other. But while no confirms come, unsent messages must not
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
            raise self._no_confirm() from None
        except CONNECTION_ERRORS as error:
            limit = _size_limit(error)
            self._max_body_bytes = limit or self._max_body_bytes
            if limit is not None and len(message.body) > limit:
                raise _too_large(message, limit) from None
            raise BrokerUnavailable(_AWAY) from error
        self._unconfirmed = False

    def _no_confirm(self) -> BrokerUnavailable:
        self._unconfirmed = True
        if self.blocked:
            return BrokerUnavailable(_BLOCKED)
        self._publishing.probe()
        self._consuming.probe()
        reason = f"RabbitMQ did not confirm within {self._publish_timeout_seconds:g} s"
        return BrokerUnavailable(reason)

    async def consume(self, queue: Queue, *, prefetch: int, auto_ack: bool = False) -> AmqpConsumer:
        """Consume on a channel of its own; wait for a connection, through any number of losses.

        Raises:
            BrokerUnavailable: RabbitMQ refuses this process or the queue.
        """
        backoff = _MIN_BACKOFF_SECONDS
        while True:
            connection = await self._consuming.wait_connected(patient=self._patient)
            try:
                channel = await connection.channel(publisher_confirms=False)
                declared = await _declare(channel, queue)
                if not auto_ack:
                    await channel.set_qos(prefetch_count=prefetch)
                underlay = await channel.get_underlay_channel()
                consumer = AmqpConsumer(declared, underlay, auto_ack=auto_ack)
                await consumer.start()
            except ChannelAccessRefused as error:
                reason = f"RabbitMQ refuses queue {queue.name}: {error}; check SIMILE_AMQP_URL"
                raise BrokerUnavailable(reason) from error
            except CONNECTION_ERRORS:
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, _MAX_BACKOFF_SECONDS)
                continue
            self._consumers = {known for known in self._consumers if not known.ended} | {consumer}
            return consumer

    async def depth(self, queue: str) -> int:
        """Return the number of ready messages in the queue."""
        return (await self.state(queue)).messages

    async def state(self, queue: str) -> QueueState:
        """Return the ready messages and consumers of a queue, by a passive declare.

        Raises:
            Unroutable: the queue does not exist.
            BrokerUnavailable: RabbitMQ is unavailable.
        """
        opened = self._consuming.opened
        if opened is None:
            raise BrokerUnavailable(_AWAY)
        try:
            # A channel for this alone: RabbitMQ closes it when the queue is missing.
            async with opened.connection.brief_channel() as channel:
                ok = await channel.queue_declare(queue, passive=True)
        except ChannelNotFoundEntity:
            reason = f"no queue {queue}"
            raise Unroutable(reason) from None
        except CONNECTION_ERRORS as error:
            raise BrokerUnavailable(_AWAY) from error
        return QueueState(ok.message_count or 0, ok.consumer_count or 0)

    async def _declare_all(self, channel: AbstractChannel) -> None:
        for queue in self._queues:
            await _declare(channel, queue)


def _properties(message: Message) -> spec.Basic.Properties:
    mode = DeliveryMode.PERSISTENT if message.persistent else DeliveryMode.NOT_PERSISTENT
    return spec.Basic.Properties(
        message_type=message.type,
        delivery_mode=mode.value,
        headers=dict(message.headers) or None,
    )


def _size_limit(error: BaseException) -> int | None:
    """Return RabbitMQ's `max_message_size` where it closed the channel over that, or None."""
    found = _TOO_LARGE.search(str(error))
    return None if found is None else int(found[1])


def _too_large(message: Message, limit: int) -> Unsendable:
    return Unsendable(
        f"RabbitMQ takes messages of at most {limit} bytes, and this one has {len(message.body)}: "
        "raise its max_message_size, or lower SIMILE_IMAGE_MAX_BYTES"
    )


async def _declare(channel: AbstractChannel, queue: Queue) -> AbstractQueue:
    try:
        return await channel.declare_queue(
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
