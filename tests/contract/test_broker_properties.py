"""Checks on both brokers that no sequence of actions loses, doubles or reorders messages."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.shared.messaging.broker import Broker, Consumer, Delivery, Message, Queue
from services.shared.messaging.memory import MemoryBroker
from tests.support.port import Port

Action = Literal["publish", "take", "ack", "requeue", "drop", "reopen", "cancel"]
Act = tuple[Action, int]
PATIENCE_SECONDS = 20.0

acts = st.tuples(
    st.sampled_from(
        ["publish", "publish", "take", "take", "ack", "requeue", "drop", "reopen", "cancel"]
    ),
    st.integers(0, 5),
)
plays = st.lists(acts, min_size=1, max_size=40)
prefetches = st.sampled_from([0, 1, 3, 16])


class Play:
    """A queue, its consumer, and the invariants of the messages in it."""

    def __init__(self, broker: Broker, queue: Queue, prefetch: int) -> None:
        self._broker, self._queue, self._prefetch = broker, queue, prefetch
        self._consumer: Consumer | None = None
        self._numbers = itertools.count()
        self._published = 0
        self._held: list[Delivery] = []
        self._done: Counter[int] = Counter()
        self._fresh: list[int] = []

    async def act(self, action: Action, number: int) -> None:
        """Perform the action, if there is a message to perform it on."""
        match action:
            case "publish":
                for _ in range(number):
                    body = b"%d" % next(self._numbers)
                    await self._broker.publish(self._queue.name, Message("a.Type", body))
                    self._published += 1
            case "take" if self._takeable:
                await self._take(number + 1)
            case "ack" | "requeue" | "drop" if self._held:
                self._settle(action, self._held.pop(number % len(self._held)))
            case "reopen":
                await self._close()
            case "cancel" if self._consumer is not None:
                await self._consumer.cancel()
                await self._close()

    async def finish(self) -> None:
        """Take and ack the remaining messages: each was settled once, in order."""
        await self._close()
        while self._takeable:
            await self._take(16)
            while self._held:
                self._settle("ack", self._held.pop(0))
        await self._close()
        assert await self._broker.depth(self._queue.name) == 0
        assert self._done == Counter(range(self._published))
        assert self._fresh == sorted(self._fresh)

    @property
    def _takeable(self) -> bool:
        """Return whether a take must end: the queue has a message that prefetch allows."""
        in_queue = self._published - self._done.total() - len(self._held)
        return in_queue > 0 and not 0 < self._prefetch <= len(self._held)

    async def _take(self, limit: int) -> None:
        if self._consumer is None:
            self._consumer = await self._broker.consume(self._queue, prefetch=self._prefetch)
        async with asyncio.timeout(PATIENCE_SECONDS):
            taken = await self._consumer.take(limit)
        assert 1 <= len(taken) <= limit
        self._held += taken
        assert not 0 < self._prefetch < len(self._held)
        self._fresh += [int(one.body) for one in taken if not one.redelivered]

    def _settle(self, action: Action, delivery: Delivery) -> None:
        if action == "ack":
            delivery.ack()
        else:
            delivery.reject(requeue=action == "requeue")
        if action != "requeue":
            self._done[int(delivery.body)] += 1

    async def _close(self) -> None:
        """Close: unsettled messages return to the queue, and the next consumer receives them."""
        if self._consumer is not None:
            await self._consumer.close()
        self._consumer = None
        self._held = []


async def _play(broker: Broker, queue: Queue, prefetch: int, play: Sequence[Act]) -> None:
    playing = Play(broker, queue, prefetch)
    for action, number in play:
        await playing.act(action, number)
    await playing.finish()


@given(prefetch=prefetches, play=plays)
async def test_the_broker_in_memory_keeps_every_message(prefetch: int, play: list[Act]) -> None:
    """Under any sequence of actions each message is settled once, first deliveries in order."""
    broker, queue = MemoryBroker(), Queue(name="played")
    await broker.start([queue])
    await _play(broker, queue, prefetch, play)


@pytest.mark.parametrize("port", ["rabbitmq"], indirect=True)
@given(prefetch=prefetches, play=plays)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_rabbitmq_keeps_every_message(port: Port, prefetch: int, play: list[Act]) -> None:
    """RabbitMQ behaves the same, so the memory broker is a faithful model of it."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await _play(broker, queue, prefetch, play)
    await broker.close()
