"""Defines the port to the message broker: all operations that the services use.

Two adapters implement it, `memory` and `rabbitmq`; one contract suite tests both for the same
behaviour. A lost connection is never hidden: a consumer that lost its queue raises ConsumerLost,
and its owner consumes again. Therefore the owner always knows which deliveries were in flight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from services.shared import contracts
from services.shared.contracts import codec
from services.shared.errors import Unsendable

_MAX_NAME_BYTES: Final = 255
"""AMQP carries names of queues, types and headers as strings of at most this size."""

_MAX_HEADERS_BYTES: Final = 16 * 2**10
"""Headers travel in one frame, which can't be larger than 128 KiB; a record needs some 2 KiB."""

_MAX_BODY_BYTES: Final = 128 * 2**20
"""RabbitMQ 3 accepts no larger message by default; RabbitMQ 4 accepts 16 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue and its arguments, which can't change once it is declared.

    Attributes:
        name: the queue's name.
        kind: classic | quorum.
        exclusive: the queue belongs to this connection and is deleted with it.
        max_length: at most so many ready messages; None is no bound.
        max_length_bytes: at most so many bytes of ready messages; None is no bound.
        message_ttl_seconds: a message that is ready for longer is dropped, or dead-lettered.
        delivery_limit: a quorum queue dead-letters a message after so many redeliveries.
        dead_letter_to: the name of the queue for dead letters.
        drops_oldest: a full queue drops its oldest message instead of refusing the new one.
    """

    name: str
    kind: str = "classic"
    exclusive: bool = False
    max_length: int | None = None
    max_length_bytes: int | None = None
    message_ttl_seconds: float | None = None
    delivery_limit: int | None = None
    dead_letter_to: str | None = None
    drops_oldest: bool = False


@dataclass(frozen=True, slots=True)
class QueueState:
    """The number of a queue's ready messages, and of its consumers."""

    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message to publish; `type` names the contract of the body (see `codec`)."""

    type: str
    body: bytes
    persistent: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, message: contracts.AnyMessage, *, persistent: bool = False) -> Message:
        """Encode a contract message."""
        type_name, body = codec.encode(message)
        return cls(type_name, body, persistent=persistent)


class Delivery(Protocol):
    """A received message. Settle it exactly once; settling after a lost connection is a no-op."""

    @property
    def type(self) -> str:
        """The contract's name."""

    @property
    def body(self) -> bytes:
        """The encoded contract message."""

    @property
    def headers(self) -> Mapping[str, str]:
        """String headers; a dead letter's reason is here."""

    @property
    def redelivered(self) -> bool:
        """True if the message was delivered before and not settled."""

    @property
    def redeliveries(self) -> int:
        """How often it returned to the queue unsettled; a classic queue counts only 0 or 1."""

    @property
    def received(self) -> float:
        """When this process received it, by `time.perf_counter()`."""

    def ack(self) -> None:
        """Acknowledge it; never blocks. Acks are gathered and sent as `multiple` where possible."""

    def reject(self, *, requeue: bool) -> None:
        """Return it to the queue (requeue), or drop it (dead-letter where the queue does that)."""


class Consumer(Protocol):
    """A stream of deliveries from one queue, of one connection."""

    @property
    def queue(self) -> str:
        """The queue's name."""

    async def take(self, limit: int) -> Sequence[Delivery]:
        """Wait for a delivery, and return it with those already received, at most `limit`.

        Raises:
            ConsumerLost: the connection, the channel or the queue is gone.
        """

    async def close(self) -> None:
        """Stop receiving; unsettled deliveries return to the queue. May be called twice.

        Deliveries can't be settled afterwards: call `cancel` first where they must be.
        """

    async def cancel(self) -> None:
        """Stop receiving; deliveries that `take` has returned can still be settled.

        The others return to the queue. A pending or later `take` raises ConsumerLost.
        """


class Broker(Protocol):
    """A connection to the broker; every method may be called from one event loop only."""

    async def start(self, queues: Sequence[Queue]) -> None:
        """Connect and declare the queues; afterwards the connection is kept up.

        Raises:
            BrokerUnavailable: the broker refuses the credentials or a declaration.
        """

    async def close(self) -> None:
        """Flush acks, close every consumer and connection. May be called twice."""

    @property
    def ready(self) -> bool:
        """True if a publish should succeed now: connected, declared, not blocked."""

    @property
    def blocked(self) -> bool:
        """True if the broker accepts no messages now (memory or disk alarm)."""

    @property
    def refusal(self) -> str | None:
        """The reason why the broker refuses this process alone (credentials, trust), or None."""

    async def publish(self, queue: str, message: Message) -> None:
        """Publish the message to the queue; returns once the broker has confirmed it.

        Raises:
            Overloaded: the queue is full.
            Unroutable: there is no such queue.
            BrokerUnavailable: the broker is unavailable, blocked, or did not confirm in time: then
                the message may or may not be in the queue.
            Unsendable: AMQP can't carry the message, which is therefore not sent.
        """

    async def consume(self, queue: Queue, *, prefetch: int, auto_ack: bool = False) -> Consumer:
        """Declare the queue if it is missing and consume it; waits for a connection.

        Args:
            queue: the queue.
            prefetch: at most so many unsettled deliveries; 0 is no bound.
            auto_ack: deliveries count as acknowledged once they are sent.
        """

    async def depth(self, queue: str) -> int:
        """Return the number of ready messages. Raises Unroutable or BrokerUnavailable."""

    async def state(self, queue: str) -> QueueState:
        """Return the present state of the queue. Raises Unroutable or BrokerUnavailable."""


def require_sendable(queue: str, message: Message) -> None:
    """Check that AMQP can carry a message; over any other a broker closes the connection.

    Raises:
        Unsendable: the queue's name, the type, a header or the body is too long or not Unicode.
    """
    _require_short("the name of its queue", queue)
    _require_short("its type", message.type)
    size = sum(len(_utf8(text)) for header in message.headers.items() for text in header)
    if size > _MAX_HEADERS_BYTES:
        reason = f"its headers have {size} bytes, more than {_MAX_HEADERS_BYTES}"
        raise _unsendable(reason)
    for name in message.headers:
        _require_short("a header's name", name)
    if len(message.body) > _MAX_BODY_BYTES:
        reason = f"it has {len(message.body)} bytes, more than {_MAX_BODY_BYTES}"
        raise _unsendable(reason)


def _require_short(name: str, text: str) -> None:
    if (size := len(_utf8(text))) > _MAX_NAME_BYTES:
        reason = f"{name} has {size} bytes, more than {_MAX_NAME_BYTES}"
        raise _unsendable(reason)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        reason = f"it holds a text that is not Unicode ({error.reason})"
        raise _unsendable(reason) from None


def _unsendable(reason: str) -> Unsendable:
    return Unsendable(f"a message can't be published: {reason}")
