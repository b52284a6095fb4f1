"""A queue in memory with RabbitMQ's semantics: expiry, bounds, prefetch, returns, dead letters.

Expiry is checked whenever the queue is used, as RabbitMQ does at the head of a queue.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.shared.errors import ConsumerLost, Overloaded
from services.shared.messaging.broker import Message, Queue

REASON_HEADER: Final = "x-first-death-reason"
"""The reason of a dead letter, in RabbitMQ's terms: rejected, expired, delivery_limit, maxlen."""


@dataclass(slots=True)
class _Stored:
    """A message in a queue: its position, expiry, returns to the queue, and time of delivery."""

    message: Message
    position: int
    expires_at: float | None
    returns: int = 0
    delivered: float = 0.0


class _MemoryDelivery:
    """A message delivered to a consumer."""

    __slots__ = ("_consumer", "_stored", "received", "redelivered")

    def __init__(self, consumer: MemoryConsumer, stored: _Stored) -> None:
        self._consumer = consumer
        self._stored = stored
        self.redelivered = stored.returns > 0
        self.received = stored.delivered

    @property
    def type(self) -> str:
        """The contract's name."""
        return self._stored.message.type

    @property
    def body(self) -> bytes:
        """The encoded contract message."""
        return self._stored.message.body

    @property
    def headers(self) -> Mapping[str, str]:
        """String headers."""
        return self._stored.message.headers

    @property
    def redeliveries(self) -> int:
        """The count of a quorum queue; otherwise 0 or 1."""
        quorum = self._consumer.store.queue.kind == "quorum"
        return self._stored.returns if quorum else int(self.redelivered)

    def ack(self) -> None:
        """Forget the message, so that the next can be delivered."""
        if self._consumer.settle(self._stored):
            self._consumer.store.pump()

    def reject(self, *, requeue: bool) -> None:
        """Return it to its old position, or drop it (dead-letter)."""
        if self._consumer.settle(self._stored):
            self._consumer.store.return_message(self._stored, requeue=requeue)
            self._consumer.store.pump()


class MemoryQueue:
    """A queue: ready messages in order, and the consumers that share them."""

    def __init__(
        self, queue: Queue, clock: Callable[[], float], dead_letter: Callable[[str, Message], None]
    ) -> None:
        """Create an empty queue.

        Args:
            queue: its name, kind and bounds.
            clock: returns seconds.
            dead_letter: puts a message into the queue of that name.
        """
        self.queue = queue
        self.consumers: deque[MemoryConsumer] = deque()
        self._clock = clock
        self._dead_letter_to = dead_letter
        self._positions = itertools.count()
        self._ready: deque[_Stored] = deque()
        self._bytes = 0

    def put(self, message: Message) -> None:
        """Append a message; at a bound raise Overloaded, or drop the oldest."""
        self._expire()
        if not self.queue.drops_oldest and self._full(1, len(message.body)):
            reason = f"queue {self.queue.name} is full: try again later, or add workers"
            raise Overloaded(reason)
        ttl = self.queue.message_ttl_seconds
        expires_at = None if ttl is None else self._clock() + ttl
        self._insert(_Stored(message, next(self._positions), expires_at))
        self.pump()
        self._drop_oldest()

    def _full(self, more: int, more_bytes: int) -> bool:
        """Return whether so many more messages and bytes would exceed a bound."""
        length, size = self.queue.max_length, self.queue.max_length_bytes
        return (length is not None and len(self._ready) + more > length) or (
            size is not None and self._bytes + more_bytes > size
        )

    def _drop_oldest(self) -> None:
        while self.queue.drops_oldest and self._ready and self._full(0, 0):
            stored = self._ready.popleft()
            self._bytes -= len(stored.message.body)
            self._dead_letter(stored, "maxlen")

    def return_message(self, stored: _Stored, *, requeue: bool) -> None:
        """Return a message to its position, drop it, or dead-letter it."""
        limit = self.queue.delivery_limit
        if not requeue:
            self._dead_letter(stored, "rejected")
            return
        stored.returns += 1
        if limit is not None and stored.returns > limit:
            self._dead_letter(stored, "delivery_limit")
        else:
            self._insert(stored)
            self._drop_oldest()

    def depth(self) -> int:
        """Count the ready messages."""
        self._expire()
        return len(self._ready)

    def pump(self) -> None:
        """Deliver ready messages to the consumers in turn, as far as their prefetch allows."""
        self._expire()
        while self._ready and (consumer := self._next_consumer()) is not None:
            stored = self._ready.popleft()
            self._bytes -= len(stored.message.body)
            consumer.deliver(stored)

    def _next_consumer(self) -> MemoryConsumer | None:
        for _ in range(len(self.consumers)):
            self.consumers.rotate(-1)
            if self.consumers[-1].can_receive:
                return self.consumers[-1]
        return None

    def _insert(self, stored: _Stored) -> None:
        later = 0
        for waiting in reversed(self._ready):
            if waiting.position < stored.position:
                break
            later += 1
        self._ready.insert(len(self._ready) - later, stored)
        self._bytes += len(stored.message.body)

    def _expire(self) -> None:
        now = self._clock()
        while self._ready:
            expires_at = self._ready[0].expires_at
            if expires_at is None or expires_at > now:
                return
            stored = self._ready.popleft()
            self._bytes -= len(stored.message.body)
            self._dead_letter(stored, "expired")

    def _dead_letter(self, stored: _Stored, reason: str) -> None:
        if self.queue.dead_letter_to is not None:
            headers = {**stored.message.headers, REASON_HEADER: reason}
            dead = replace(stored.message, headers=headers)
            self._dead_letter_to(self.queue.dead_letter_to, dead)


class MemoryConsumer:
    """A stream of deliveries from one queue in memory."""

    def __init__(self, store: MemoryQueue, prefetch: int, *, auto_ack: bool) -> None:
        self.store = store
        self._prefetch = prefetch
        self._auto_ack = auto_ack
        self._untaken: deque[_Stored] = deque()
        self._unsettled: dict[int, _Stored] = {}
        self._ended: str | None = None
        self._arrived = asyncio.Event()

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self.store.queue.name

    @property
    def can_receive(self) -> bool:
        """Return whether prefetch allows another message; 0 is no bound, as in RabbitMQ."""
        return self._auto_ack or not self._prefetch or len(self._unsettled) < self._prefetch

    def deliver(self, stored: _Stored) -> None:
        """Receive a message from the queue."""
        stored.delivered = time.perf_counter()
        self._untaken.append(stored)
        if not self._auto_ack:
            self._unsettled[stored.position] = stored
        self._arrived.set()

    def settle(self, stored: _Stored) -> bool:
        """Settle the delivery; return whether it was unsettled."""
        return self._unsettled.pop(stored.position, None) is not None

    async def take(self, limit: int) -> Sequence[_MemoryDelivery]:
        """Wait for a delivery, and return at most `limit`. Raises ConsumerLost."""
        while self._ended is None and not self._untaken:
            self._arrived.clear()
            await self._arrived.wait()
        if self._ended is not None:
            raise ConsumerLost(self._ended)
        count = min(limit, len(self._untaken))
        return [_MemoryDelivery(self, self._untaken.popleft()) for _ in range(count)]

    async def cancel(self) -> None:
        """Stop receiving; deliveries that `take` has returned can still be settled."""
        self._leave(f"the consumer of {self.queue} was cancelled", self._untaken)

    async def close(self) -> None:
        """Return all unsettled deliveries to the queue."""
        self.lose(f"the consumer of {self.queue} was closed")

    def lose(self, reason: str) -> None:
        """End the consumer as a lost connection does."""
        self._leave(reason, deque(self._unsettled.values()))

    def _leave(self, reason: str, returned: deque[_Stored]) -> None:
        self._ended = self._ended or reason
        self._arrived.set()
        if self in self.store.consumers:
            self.store.consumers.remove(self)
        for stored in list(returned):
            if self.settle(stored):
                self.store.return_message(stored, requeue=True)
        self._untaken.clear()
        self.store.pump()
