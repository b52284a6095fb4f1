"""Tests faults that need a real RabbitMQ: a killed node, an alarm, refused credentials."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator

import pytest

from services.shared.errors import BrokerUnavailable, ConsumerLost, ReplyQueueLost, Unroutable
from services.shared.lifecycle import cancel
from services.shared.messaging.broker import Message, Queue
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from services.shared.messaging.request_reply import Inbox
from tests.support.cut_proxy import CutProxy
from tests.support.rabbitmq import Node, running_node
from tests.support.waiting import until

PATIENCE_SECONDS = 60.0
QUEUE = Queue(name="faults")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Run a node for this module: it is killed and alarmed."""
    with running_node(tmp_path_factory.mktemp("faults")) as node:
        yield node


async def test_a_killed_node_fails_pending_publishes_and_is_survived(node: Node) -> None:
    """After kill -9 of the node pending publishes fail, and the broker reconnects by itself."""
    broker = AmqpBroker(node.url, name="killed")
    await broker.start([QUEUE])
    inbox = Inbox(broker, "replica")
    receiving = asyncio.create_task(inbox.run())
    await inbox.opened()
    future, before = inbox.expect("waiting"), inbox.queue
    consumer = await broker.consume(QUEUE, prefetch=4)
    await broker.publish(QUEUE.name, Message("a.Type", b"kept", persistent=True))
    await asyncio.to_thread(node.kill)
    with pytest.raises(ReplyQueueLost):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await future
    with pytest.raises(ConsumerLost):
        for _ in range(2):  # messages from before the kill may come first
            await consumer.take(4)
    with pytest.raises(BrokerUnavailable):
        await broker.publish(QUEUE.name, Message("a.Type", b""))
    await asyncio.to_thread(node.start)
    await until(lambda: broker.ready)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await inbox.opened()
        again = await broker.consume(QUEUE, prefetch=4)
        (delivery,) = await again.take(1)
    assert delivery.body == b"kept"
    assert inbox.queue != before
    await cancel(receiving)
    await broker.close()


async def test_a_silent_link_fails_pending_publishes_and_is_survived(node: Node) -> None:
    """On a half-open link no byte passes: the heartbeat notices, publishes end in time."""
    async with CutProxy(node.port) as proxy:
        url = node.url.replace(str(node.port), str(proxy.port)) + "?heartbeat=1"
        broker = AmqpBroker(url, name="silent", publish_timeout_seconds=0.2)
        await broker.start([QUEUE])
        inbox = Inbox(broker, "replica")
        receiving = asyncio.create_task(inbox.run())
        await inbox.opened()
        future, before = inbox.expect("waiting"), inbox.queue
        proxy.stall()
        with pytest.raises(BrokerUnavailable, match="did not confirm"):
            await broker.publish(QUEUE.name, Message("a.Type", b""))
        with pytest.raises(ReplyQueueLost):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await future
        proxy.resume()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await inbox.opened()
        await until(lambda: broker.ready)
        assert inbox.queue != before
        await cancel(receiving)
        await broker.close()


async def test_a_closed_broker_leaves_no_task(node: Node) -> None:
    """After close no task of the broker is left, in whatever state it was closed."""
    before = asyncio.all_tasks()
    broker = AmqpBroker(node.url, name="tidy")
    await broker.start([QUEUE])
    consumer = await broker.consume(QUEUE, prefetch=4)
    waiting = asyncio.create_task(consumer.take(1))
    await broker.close()
    with pytest.raises(ConsumerLost):
        await waiting
    async with asyncio.timeout(PATIENCE_SECONDS):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0.01)


async def test_a_lost_consumer_leaves_no_task(node: Node) -> None:
    """A consumer that is never closed ends its tasks when its connection is lost."""
    queue = Queue(name="faults.lost")
    async with CutProxy(node.port) as proxy:
        broker = AmqpBroker(node.url.replace(str(node.port), str(proxy.port)), name="cut")
        await broker.start([queue])
        consumer = await broker.consume(queue, prefetch=4)
        proxy.cut()
        with pytest.raises(ConsumerLost):
            await consumer.take(1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while any(task.get_name() == f"acks {queue.name}" for task in asyncio.all_tasks()):
                await asyncio.sleep(0.01)
        await broker.close()


async def test_a_silent_peer_does_not_delay_close(node: Node) -> None:
    """Closing stops waiting for a RabbitMQ that does not answer, and leaves no task."""
    before = asyncio.all_tasks()
    async with CutProxy(node.port) as proxy:
        broker = AmqpBroker(node.url.replace(str(node.port), str(proxy.port)), name="mute")
        await broker.start([QUEUE])
        proxy.stall()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await broker.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("queue", [QUEUE.name, "faults.missing"])
async def test_reading_the_length_of_a_queue_keeps_no_memory(node: Node, queue: str) -> None:
    """Lengths are read every second while a service runs, so reading must not leak."""
    broker = AmqpBroker(node.url, name="lengths")
    await broker.start([QUEUE])

    async def objects_after(looks: int) -> int:
        for _ in range(looks):
            with contextlib.suppress(Unroutable):
                await broker.depth(queue)
        gc.collect()
        return len(gc.get_objects())

    before = await objects_after(20)
    assert await objects_after(100) - before < 500
    await broker.close()


async def test_an_alarm_refuses_publishes(node: Node) -> None:
    """Under a memory alarm a publish is refused, not kept; acks and takes go on."""
    broker = AmqpBroker(node.url, name="alarmed", publish_timeout_seconds=0.5)
    await broker.start([QUEUE])
    await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.000001")
    try:
        with pytest.raises(BrokerUnavailable):
            for _ in range(100):  # until the alarm is raised
                await broker.publish(QUEUE.name, Message("a.Type", b"x"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not broker.blocked:
                await asyncio.sleep(0.02)
        assert not broker.ready
        with pytest.raises(BrokerUnavailable, match="short of memory or disk"):
            await broker.publish(QUEUE.name, Message("a.Type", b"x"))
    finally:
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.6")
    await until(lambda: broker.ready)
    await broker.publish(QUEUE.name, Message("a.Type", b"after"))
    await broker.close()


async def test_wrong_credentials_are_refused_at_once(node: Node) -> None:
    """A wrong password is an error that names what to check, not an endless wait."""
    broker = AmqpBroker(node.url.replace("guest:guest", "guest:wrong"), name="wrong")
    with pytest.raises(BrokerUnavailable, match="SIMILE_AMQP_URL"):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await broker.start([QUEUE])
    await broker.close()


async def test_start_without_a_broker_times_out(node: Node) -> None:
    """If nothing listens, start fails within its timeout."""
    del node
    broker = AmqpBroker("amqp://guest:guest@127.0.0.1:1/", name="away", start_timeout_seconds=0.3)
    with pytest.raises(BrokerUnavailable, match="is it running"):
        await broker.start([QUEUE])
    await broker.close()
