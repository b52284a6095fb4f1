"""Tests the broker in memory with a fake clock, and faults that the contract suite can't cause."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.errors import BrokerUnavailable, ConsumerLost
from services.shared.messaging.broker import Delivery, Message, Queue
from services.shared.messaging.memory import MemoryBroker
from tests.support.clock import Clock

QUEUE = Queue(name="work")


async def _broker(*queues: Queue, clock: Clock | None = None, count: int = 0) -> MemoryBroker:
    """Start a broker with `count` messages in the last queue."""
    broker = MemoryBroker(clock or Clock())
    await broker.start(queues)
    for number in range(count):
        await broker.publish(queues[-1].name, Message("a.Type", b"%d" % number))
    return broker


def _bodies(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(delivery.body) for delivery in deliveries]


async def test_consumers_take_turns() -> None:
    """Messages are delivered to the consumers of a queue in turn."""
    broker = await _broker(QUEUE)
    consumers = [await broker.consume(QUEUE, prefetch=16) for _ in range(3)]
    for number in range(9):
        await broker.publish(QUEUE.name, Message("a.Type", b"%d" % number))
    shares = [_bodies(await consumer.take(16)) for consumer in consumers]
    assert sorted(shares) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


async def test_what_comes_back_stands_in_its_old_place() -> None:
    """Requeued messages go ahead of later ones, in the order in which they were published."""
    broker = await _broker(QUEUE, count=4)
    consumer = await broker.consume(QUEUE, prefetch=3)
    for delivery in reversed(await consumer.take(3)):
        delivery.reject(requeue=True)
    await consumer.close()
    again = await broker.consume(QUEUE, prefetch=16)
    assert _bodies(await again.take(16)) == [0, 1, 2, 3]


async def test_an_expired_message_is_never_delivered() -> None:
    """An expired message is dead-lettered, also before the first consumer."""
    clock, dead = Clock(), Queue(name="dead")
    queue = Queue(name="short", message_ttl_seconds=10.0, dead_letter_to="dead")
    broker = await _broker(dead, queue, clock=clock, count=1)
    clock.now += 9
    await broker.publish(queue.name, Message("a.Type", b"1"))
    clock.now += 1
    consumer = await broker.consume(queue, prefetch=16)
    assert _bodies(await consumer.take(16)) == [1]
    assert await broker.depth("dead") == 1


async def test_a_full_dead_letter_queue_drops() -> None:
    """A full dead-letter queue does not keep messages in the queue that they come from."""
    dead = Queue(name="dead", max_length=1)
    queue = Queue(name="queue", dead_letter_to="dead")
    broker = await _broker(dead, queue, count=2)
    for delivery in await (await broker.consume(queue, prefetch=2)).take(2):
        delivery.reject(requeue=False)
    assert await broker.depth("dead") == 1
    assert await broker.depth("queue") == 0


async def test_a_cut_counts_once_however_many_consume() -> None:
    """When all connections are cut, no message passes from a lost consumer to the next."""
    dead = Queue(name="dead", kind="quorum")
    queue = Queue(name="queue", kind="quorum", delivery_limit=1, dead_letter_to="dead")
    broker = await _broker(dead, queue, count=1)
    consumers = [await broker.consume(queue, prefetch=1) for _ in range(5)]
    broker.sever()
    for consumer in consumers:
        with pytest.raises(ConsumerLost):
            await consumer.take(1)
    assert await broker.depth("queue") == 1
    assert await broker.depth("dead") == 0


async def test_a_blocked_broker_refuses_publishes_and_delivers_on() -> None:
    """As during RabbitMQ's memory alarm, ready messages can be received and settled."""
    broker = await _broker(QUEUE, count=1)
    broker.block()
    assert broker.blocked
    assert not broker.ready
    with pytest.raises(BrokerUnavailable):
        await broker.publish(QUEUE.name, Message("a.Type", b"1"))
    (delivery,) = await (await broker.consume(QUEUE, prefetch=1)).take(1)
    delivery.ack()
    broker.unblock()
    await broker.publish(QUEUE.name, Message("a.Type", b"1"))


STEPS = st.lists(st.sampled_from(["publish", "take", "ack", "requeue", "drop", "sever"]))


@given(steps=STEPS, prefetch=st.integers(1, 4))
def test_no_message_is_lost_or_doubled(steps: list[str], prefetch: int) -> None:
    """After any steps each message is settled, unsettled in a consumer, or ready: exactly once."""
    asyncio.run(_walk(steps, prefetch))


async def _walk(steps: list[str], prefetch: int) -> None:
    broker = await _broker(QUEUE)
    consumer = await broker.consume(QUEUE, prefetch=prefetch)
    unsettled: set[int] = set()
    held: list[Delivery] = []
    for number, step in enumerate(steps):
        match step:
            case "publish":
                await broker.publish(QUEUE.name, Message("a.Type", b"%d" % number))
                unsettled.add(number)
            case "take" if len(held) < min(prefetch, len(unsettled)):
                held += await consumer.take(prefetch)
            case "ack" | "drop" if held:
                delivery = held.pop()
                unsettled.discard(int(delivery.body))
                delivery.ack() if step == "ack" else delivery.reject(requeue=False)
            case "requeue" if held:
                held.pop(0).reject(requeue=True)
            case "sever":
                broker.sever()
                held.clear()
                consumer = await broker.consume(QUEUE, prefetch=prefetch)
        assert len(held) <= prefetch
        assert len(set(_bodies(held))) == len(held)
    await consumer.close()
    last = await broker.consume(QUEUE, prefetch=0, auto_ack=True)
    left = _bodies(await last.take(len(steps))) if unsettled else []
    assert left == sorted(unsettled)
