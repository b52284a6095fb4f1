"""The port to the message broker: what every service may ask of it, and nothing more.

Two adapters keep it, `memory` and `amqp`; one contract suite holds both to the same behaviour.
A lost connection is never hidden: a consumer that lost its queue raises ConsumerLost, and its
owner consumes again. So the owner always knows what was in flight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from services.shared import contracts
from services.shared.contracts import codec
from services.shared.errors import Unsendable

_MAX_NAME_BYTES: Final = 255
"""AMQP carries names of queues, types and headers as strings of at most so many bytes."""

_MAX_HEADERS_BYTES: Final = 16 * 2**10
"""Headers travel in one frame, which can't be larger than 128 KiB; ours need some 2 KiB."""

_MAX_BODY_BYTES: Final = 128 * 2**20
"""RabbitMQ 3 takes no larger message unless it is configured to; RabbitMQ 4 takes 16 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue and everything about it that can't change once it is declared.

    kind: classic | quorum. max_length and max_length_bytes bound the ready messages; a full
    queue refuses, or drops its oldest (drops_oldest).
    message_ttl_seconds: after that in the queue a message is dropped (or dead-lettered).
    delivery_limit: redeliveries before a quorum queue dead-letters. dead_letter_to: queue name.
    exclusive: of this connection only, gone with it (implies auto-delete, not durable).
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
    """How many messages of a queue nobody has taken, and how many consumers it has."""

    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Message:
    """What is published: `type` names the body's contract (see codec)."""

    type: str
    body: bytes
    persistent: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, message: contracts.AnyMessage, *, persistent: bool = False) -> Message:
        """The encoded contract message."""
        type_name, body = codec.encode(message)
        return cls(type_name, body, persistent=persistent)


class Delivery(Protocol):
    """One received message. Settle it exactly once; settling after a lost connection is a no-op."""

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
        """Whether it was handed out before and not settled."""

    @property
    def redeliveries(self) -> int:
        """How often it came back unsettled; a classic queue tells no more than 0 or 1."""

    @property
    def received(self) -> float:
        """When it came into this process, by `time.perf_counter()`: its wait here began then."""

    def ack(self) -> None:
        """It is done. Acks are gathered and sent as `multiple` where that is safe; never blocks."""

    def reject(self, *, requeue: bool) -> None:
        """Give it back (requeue) or drop it (dead-letter where the queue has one)."""


class Consumer(Protocol):
    """A stream of deliveries from one queue, of one connection."""

    @property
    def queue(self) -> str:
        """The queue's name."""

    async def take(self, limit: int) -> Sequence[Delivery]:
        """At least one delivery, and up to `limit` of those already here; waits only for the first.

        Raises ConsumerLost when the connection, the channel or the queue is gone.
        """

    async def close(self) -> None:
        """Stop receiving: what was received and not settled goes back to its queue; twice is fine.

        Deliveries already taken can't be settled afterwards: `cancel` first where they must be.
        """

    async def cancel(self) -> None:
        """Take no more, and give back what is here untaken; what was taken can still be settled.

        A pending or later `take` raises ConsumerLost.
        """


class Broker(Protocol):
    """A connection to the broker; every method may be called from one event loop only."""

    async def start(self, queues: Sequence[Queue]) -> None:
        """Connect and declare; returns when the first connection is up, and keeps it up after.

        Raises BrokerUnavailable when the broker refuses the credentials or a declaration.
        """

    async def close(self) -> None:
        """Flush acks, close every consumer and connection; twice is fine."""

    @property
    def ready(self) -> bool:
        """Whether a publish can be expected to succeed now: connected, declared, not blocked."""

    @property
    def blocked(self) -> bool:
        """Whether the broker said that it takes no publishes now (memory or disk alarm)."""

    @property
    def refusal(self) -> str | None:
        """The reason why the broker refuses this process alone (credentials, trust), or None."""

    async def publish(self, queue: str, message: Message) -> None:
        """Hand the message to the queue; returns once the broker has confirmed it.

        Raises Overloaded (the queue refused), Unroutable (no such queue), BrokerUnavailable
        (away, blocked, or no confirm within the timeout: then it may or may not have arrived),
        Unsendable (no broker can carry it: it is not sent, and nothing else is disturbed).
        """

    async def consume(self, queue: Queue, *, prefetch: int, auto_ack: bool = False) -> Consumer:
        """Declare the queue if it is missing and consume; waits, with backoff, for a connection.

        prefetch bounds the unsettled deliveries. With auto_ack nothing needs settling.
        """

    async def depth(self, queue: str) -> int:
        """Ready messages in the queue. Raises Unroutable or BrokerUnavailable."""

    async def state(self, queue: str) -> QueueState:
        """The queue as it is now. Raises Unroutable or BrokerUnavailable."""


def require_sendable(queue: str, message: Message) -> None:
    """Check that AMQP can carry a message: a broker closes the connection over one that it can't.

    Raises:
        Unsendable: the queue's name, the type, a header or the body is too long, or no text.
    """
    _require_short("the name of its queue", queue)
    _require_short("its type", message.type)
    size = sum(len(_utf8(one)) for header in message.headers.items() for one in header)
    if size > _MAX_HEADERS_BYTES:
        reason = f"its headers have {size} bytes, more than {_MAX_HEADERS_BYTES}"
        raise _unsendable(reason)
    for name in message.headers:
        _require_short("a header's name", name)
    if len(message.body) > _MAX_BODY_BYTES:
        reason = f"it has {len(message.body)} bytes, more than {_MAX_BODY_BYTES}"
        raise _unsendable(reason)


def _require_short(what: str, text: str) -> None:
    if (size := len(_utf8(text))) > _MAX_NAME_BYTES:
        reason = f"{what} has {size} bytes, more than {_MAX_NAME_BYTES}"
        raise _unsendable(reason)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        reason = f"it holds a text that is not Unicode ({error.reason})"
        raise _unsendable(reason) from None


def _unsendable(reason: str) -> Unsendable:
    return Unsendable(f"a message can't be published: {reason}")
