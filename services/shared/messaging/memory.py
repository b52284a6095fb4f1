"""Implements the broker in memory, with RabbitMQ's semantics, for one process and for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from services.shared.errors import BrokerUnavailable, Overloaded, Unroutable
from services.shared.messaging.broker import Message, Queue, QueueState, require_sendable
from services.shared.messaging.memory_queue import MemoryConsumer, MemoryQueue


class MemoryBroker:
    """Holds all queues of one process; `sever`, `lose_consumers`, `block`, `delete` are faults."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._stores: dict[str, MemoryQueue] = {}
        self._started = False
        self._blocked = False

    async def start(self, queues: Sequence[Queue]) -> None:
        """Declare the queues. Raises BrokerUnavailable when one exists with other arguments."""
        for queue in queues:
            self._declare(queue)
        self._started = True

    async def close(self) -> None:
        """Lose every consumer and refuse publishes from now on."""
        self._started = False
        self.sever()

    @property
    def ready(self) -> bool:
        """Started and not blocked."""
        return self._started and not self._blocked

    @property
    def blocked(self) -> bool:
        """True after `block`."""
        return self._blocked

    @property
    def refusal(self) -> None:
        """None: a broker in memory refuses no process."""
        return

    async def publish(self, queue: str, message: Message) -> None:
        """Put the message into the queue, as the port defines it."""
        if not self.ready:
            reason = "the broker accepts no messages now"
            raise BrokerUnavailable(reason)
        require_sendable(queue, message)
        self._store(queue).put(message)

    async def consume(
        self, queue: Queue, *, prefetch: int, auto_ack: bool = False
    ) -> MemoryConsumer:
        """Consume the queue, which is declared if it is missing."""
        if not self._started:
            reason = "the broker is closed"
            raise BrokerUnavailable(reason)
        store = self._declare(queue)
        consumer = MemoryConsumer(store, prefetch, auto_ack=auto_ack)
        store.consumers.append(consumer)
        store.pump()
        return consumer

    async def depth(self, queue: str) -> int:
        """Return the number of ready messages in the queue."""
        return (await self.state(queue)).messages

    async def state(self, queue: str) -> QueueState:
        """Return the ready messages and the consumers of the queue."""
        if not self._started:
            reason = "the broker is closed"
            raise BrokerUnavailable(reason)
        store = self._store(queue)
        return QueueState(store.depth(), len(store.consumers))

    def sever(self) -> None:
        """Cut every connection: consumers are lost, unsettled messages return to their queues."""
        lost = [consumer for store in self._stores.values() for consumer in store.consumers]
        # Consumers leave first: a message that returns must not go to another one that is lost.
        for store in self._stores.values():
            store.consumers.clear()
        for consumer in lost:
            consumer.lose(f"the connection of the consumer of {consumer.queue} is lost")

    def lose_consumers(self, queue: str) -> None:
        """Lose the consumers of a queue; their unsettled messages return to the queue."""
        for consumer in list(self._store(queue).consumers):
            consumer.lose(f"the connection of the consumer of {consumer.queue} is lost")

    def delete(self, queue: str) -> None:
        """Delete a queue under its consumers."""
        store = self._stores.pop(queue)
        for consumer in list(store.consumers):
            consumer.lose(f"queue {queue} was deleted")

    def block(self) -> None:
        """Refuse messages, as under a memory or disk alarm."""
        self._blocked = True

    def unblock(self) -> None:
        """Accept messages again."""
        self._blocked = False

    def _store(self, queue: str) -> MemoryQueue:
        store = self._stores.get(queue)
        if store is not None and store.queue.exclusive and not store.consumers:
            del self._stores[queue]
            store = None
        if store is None:
            reason = f"no queue {queue}: is the service that reads it running?"
            raise Unroutable(reason)
        return store

    def _declare(self, queue: Queue) -> MemoryQueue:
        store = self._stores.setdefault(
            queue.name, MemoryQueue(queue, self.clock, self._dead_letter)
        )
        if store.queue != queue:
            reason = (
                f"queue {queue.name} exists with other arguments: "
                "delete it, or give the new topology a new name"
            )
            raise BrokerUnavailable(reason)
        return store

    def _dead_letter(self, queue: str, message: Message) -> None:
        """Put a dead letter into a queue; dropped where that is missing or full, as in RabbitMQ."""
        store = self._stores.get(queue)
        if store is not None:
            try:
                store.put(message)
            except Overloaded:
                return
