"""The metrics of the broker show its state and the lengths of its queues."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from services.shared.messaging.broker import Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.metrics import BrokerMetrics

QUEUE = Queue(name="queue")
MISSING = Queue(name="missing")


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return the registry of the metrics."""
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> BrokerMetrics:
    """Return the broker's metrics."""
    return BrokerMetrics(registry)


def _length(registry: CollectorRegistry, queue: Queue) -> float | None:
    return registry.get_sample_value("simile_broker_queue_messages", {"queue": queue.name})


async def test_queues_are_shown_with_their_length(
    registry: CollectorRegistry, metrics: BrokerMetrics
) -> None:
    """Ready messages are counted; a queue that does not exist has no series."""
    broker = MemoryBroker()
    await broker.start([QUEUE])
    for _ in range(3):
        await broker.publish(QUEUE.name, Message("type", b""))
    async with metrics.watching(broker, [MISSING, QUEUE]), asyncio.timeout(10):
        while _length(registry, QUEUE) is None:
            await asyncio.sleep(0)
    assert (_length(registry, QUEUE), _length(registry, MISSING)) == (3.0, None)


async def test_a_length_that_cannot_be_seen_any_more_is_not_shown(
    registry: CollectorRegistry, metrics: BrokerMetrics
) -> None:
    """While the broker is unavailable, an old length would be wrong."""
    broker = MemoryBroker()
    await broker.start([QUEUE])
    await metrics.show_queue(broker, QUEUE.name)
    assert _length(registry, QUEUE) == 0.0
    await broker.close()
    await metrics.show_queue(broker, QUEUE.name)
    assert _length(registry, QUEUE) is None


async def test_a_blocked_broker_shows(registry: CollectorRegistry, metrics: BrokerMetrics) -> None:
    """Ready and blocked show the broker's state at the time of the scrape."""
    broker = MemoryBroker()
    await broker.start([])
    names = ("simile_broker_ready", "simile_broker_blocked")
    async with metrics.watching(broker, []):
        assert [registry.get_sample_value(name) for name in names] == [1.0, 0.0]
        broker.block()
        assert [registry.get_sample_value(name) for name in names] == [0.0, 1.0]


class _UncancellableBroker(MemoryBroker):
    """Has a `depth` that does not end when it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.released = asyncio.Event(), asyncio.Event()

    async def depth(self, queue: str) -> int:
        del queue
        self.asked.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            await self.released.wait()
            raise
        return 0


async def test_an_answer_that_never_comes_holds_up_no_end(metrics: BrokerMetrics) -> None:
    """A process ends although its broker answers neither the request nor the cancel."""
    broker = _UncancellableBroker()
    async with asyncio.timeout(10):
        async with metrics.watching(broker, [QUEUE]):
            await broker.asked.wait()
    broker.released.set()
