"""Checks the broker port's contract: the same behaviour in memory and on a real RabbitMQ."""

from __future__ import annotations

import asyncio

import pytest

from services.shared.errors import (
    BrokerUnavailable,
    ConsumerLost,
    Overloaded,
    Unroutable,
    Unsendable,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import (
    Broker,
    Consumer,
    Delivery,
    Message,
    Queue,
    QueueState,
)
from tests.support.port import Port
from tests.support.waiting import until

PATIENCE_SECONDS = 20.0


def _message(number: int) -> Message:
    return Message("simile.v1.Replies", b"%d" % number)


async def _publish(broker: Broker, queue: Queue, count: int) -> None:
    for number in range(count):
        await broker.publish(queue.name, _message(number))


async def _take(consumer: Consumer, count: int) -> list[Delivery]:
    """Take exactly `count` deliveries; fail after a timeout."""
    taken: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(taken) < count:
            taken += await consumer.take(count - len(taken))
    return taken


async def _until_depth(broker: Broker, queue: str, depth: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await broker.depth(queue) != depth:
            await asyncio.sleep(0.01)


def _bodies(deliveries: list[Delivery]) -> list[int]:
    return [int(delivery.body) for delivery in deliveries]


async def test_messages_arrive_in_order_with_type_and_headers(port: Port) -> None:
    """Published messages are received unchanged, first in first out."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await broker.publish(queue.name, Message("a.Type", b"body", headers={"reason": "why"}))
    await broker.publish(queue.name, _message(2))
    first, second = await _take(await broker.consume(queue, prefetch=16), 2)
    assert (first.type, first.body, first.headers["reason"]) == ("a.Type", b"body", "why")
    assert not first.redelivered
    assert second.body == b"2"


async def test_take_gives_what_is_there_and_no_more_than_asked(port: Port) -> None:
    """A take returns at most its limit, and returns without waiting for that many."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    consumer = await broker.consume(queue, prefetch=16)
    await _publish(broker, queue, 5)
    first = await _take(consumer, 1)
    rest = await _take(consumer, 4)
    assert _bodies([*first, *rest]) == [0, 1, 2, 3, 4]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await consumer.take(1)


async def test_prefetch_bounds_the_unsettled(port: Port) -> None:
    """At most `prefetch` messages are unsettled; an ack lets the next one in."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await _publish(broker, queue, 5)
    consumer = await broker.consume(queue, prefetch=2)
    first, second = await _take(consumer, 2)
    await _until_depth(broker, queue.name, 3)
    first.ack()
    (third,) = await _take(consumer, 1)
    second.ack()
    third.ack()
    assert _bodies(await _take(consumer, 2)) == [3, 4]


async def test_acks_out_of_order_settle_only_what_was_acked(port: Port) -> None:
    """Gathered acks never cover an unsettled message: it comes back, marked redelivered."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await _publish(broker, queue, 6)
    consumer = await broker.consume(queue, prefetch=16)
    taken = await _take(consumer, 6)
    for number in (5, 1, 0, 3):
        taken[number].ack()
    await consumer.close()
    back = await _take(await broker.consume(queue, prefetch=16), 2)
    assert _bodies(back) == [2, 4]
    assert all(delivery.redelivered for delivery in back)
    assert await broker.depth(queue.name) == 0


async def test_a_requeue_beside_a_long_row_of_rejects_is_kept(port: Port) -> None:
    """A message rejected while earlier rejects and acks are being sent is delivered again."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await asyncio.gather(*(broker.publish(queue.name, _message(number)) for number in range(200)))
    consumer = await broker.consume(queue, prefetch=0)
    taken = await _take(consumer, 200)
    for delivery in taken[:100]:
        delivery.reject(requeue=False)
    for _ in range(3):  # the first rejects are being sent now, and wait for room
        await asyncio.sleep(0)
    for delivery in taken[100:-1]:
        delivery.reject(requeue=True)
    taken[-1].ack()
    back = _bodies(await _take(consumer, 99))
    assert sorted(back) == sorted(_bodies(taken[100:-1]))


async def test_close_sends_every_ack(port: Port) -> None:
    """Acks in flight when the consumer closes arrive, so no work is done twice."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await asyncio.gather(*(broker.publish(queue.name, _message(number)) for number in range(200)))
    consumer = await broker.consume(queue, prefetch=200)
    taken = await _take(consumer, 200)
    for delivery in taken[1::2]:  # the gaps keep them from going out as one
        delivery.ack()
    for _ in range(3):
        await asyncio.sleep(0)
    await consumer.close()
    back = await _take(await broker.consume(queue, prefetch=200), 100)
    assert sorted(_bodies(back)) == sorted(_bodies(taken[::2]))
    assert await broker.depth(queue.name) == 0


async def test_settling_twice_counts_once(port: Port) -> None:
    """A second ack or reject of a delivery changes nothing."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await _publish(broker, queue, 2)
    consumer = await broker.consume(queue, prefetch=1)
    (first,) = await _take(consumer, 1)
    first.ack()
    first.ack()
    first.reject(requeue=True)
    (second,) = await _take(consumer, 1)
    assert second.body == b"1"
    assert not second.redelivered


async def test_a_requeued_message_is_delivered_again(port: Port) -> None:
    """Reject with requeue returns the message, marked redelivered, ahead of later ones."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await _publish(broker, queue, 2)
    consumer = await broker.consume(queue, prefetch=1)
    (first,) = await _take(consumer, 1)
    first.reject(requeue=True)
    (again,) = await _take(consumer, 1)
    assert (again.body, again.redelivered) == (b"0", True)


async def test_a_dropped_message_goes_to_the_dead_letter_queue_with_its_reason(port: Port) -> None:
    """Reject without requeue dead-letters where the queue has a dead-letter queue."""
    dead = Queue(name=port.name())
    queue = Queue(name=port.name(), dead_letter_to=dead.name)
    broker = await port.connect([dead, queue])
    await _publish(broker, queue, 1)
    (delivery,) = await _take(await broker.consume(queue, prefetch=1), 1)
    delivery.reject(requeue=False)
    (letter,) = await _take(await broker.consume(dead, prefetch=1), 1)
    assert letter.body == b"0"
    assert letter.headers["x-first-death-reason"] == "rejected"


async def test_a_full_queue_refuses(port: Port) -> None:
    """A classic queue takes exactly its bound of ready messages; the next is Overloaded."""
    queue = Queue(name=port.name(), max_length=5)
    broker = await port.connect([queue])
    await _publish(broker, queue, 5)
    with pytest.raises(Overloaded):
        await broker.publish(queue.name, _message(5))
    (delivery,) = await _take(await broker.consume(queue, prefetch=1), 1)
    delivery.ack()
    await broker.publish(queue.name, _message(6))


async def test_a_queue_full_of_bytes_refuses(port: Port) -> None:
    """The bound on bytes holds: a refusal comes before twice the bound is in the queue."""
    queue = Queue(name=port.name(), max_length_bytes=1000)
    broker = await port.connect([queue])
    with pytest.raises(Overloaded):
        for _ in range(21):
            await broker.publish(queue.name, Message("a.Type", bytes(100)))
    assert await broker.depth(queue.name) <= 11


async def test_a_full_queue_that_drops_its_oldest_takes_the_newest(port: Port) -> None:
    """A bounded queue that drops its oldest refuses no publish."""
    queue = Queue(name=port.name(), max_length=3, drops_oldest=True)
    broker = await port.connect([queue])
    await _publish(broker, queue, 5)
    await _until_depth(broker, queue.name, 3)
    taken = await _take(await broker.consume(queue, prefetch=16), 3)
    assert _bodies(taken) == [2, 3, 4]


async def test_bytes_bound_a_queue_that_drops_its_oldest(port: Port) -> None:
    """A queue that drops its oldest holds at most its bound of bytes."""
    queue = Queue(name=port.name(), max_length_bytes=1000, drops_oldest=True)
    broker = await port.connect([queue])
    for number in range(20):
        await broker.publish(queue.name, Message("a.Type", b"%02d" % number + bytes(98)))
    depth = await broker.depth(queue.name)
    assert 8 <= depth <= 10
    taken = await _take(await broker.consume(queue, prefetch=16), depth)
    assert taken[-1].body.startswith(b"19")


async def test_reading_a_queue_changes_nothing(port: Port) -> None:
    """A consumer that takes all messages and closes leaves them in order, every time."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await _publish(broker, queue, 5)
    for _ in range(3):
        consumer = await broker.consume(queue, prefetch=0)
        assert _bodies(await _take(consumer, 5)) == [0, 1, 2, 3, 4]
        await consumer.close()
        await _until_depth(broker, queue.name, 5)


async def test_a_quorum_queue_counts_what_comes_back(port: Port) -> None:
    """Each redelivery after a consumer's end increments the count of deliveries."""
    queue = Queue(name=port.name(), kind="quorum", delivery_limit=10)
    broker = await port.connect([queue])
    await broker.publish(queue.name, Message("a.Type", b"poison", persistent=True))
    seen = []
    for _ in range(3):
        consumer = await broker.consume(queue, prefetch=1)
        (delivery,) = await _take(consumer, 1)
        seen.append(delivery.redeliveries)
        await consumer.close()
    assert seen == [0, 1, 2]


async def test_a_classic_queue_reports_only_that_a_message_came_back(port: Port) -> None:
    """A classic queue's count of redeliveries never exceeds 1."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await _publish(broker, queue, 1)
    seen = []
    for _ in range(3):
        consumer = await broker.consume(queue, prefetch=1)
        (delivery,) = await _take(consumer, 1)
        seen.append(delivery.redeliveries)
        await consumer.close()
    assert seen == [0, 1, 1]


async def test_a_message_expires_in_the_queue(port: Port) -> None:
    """An expired message goes to the dead-letter queue, if there is one."""
    dead = Queue(name=port.name())
    queue = Queue(name=port.name(), message_ttl_seconds=0.05, dead_letter_to=dead.name)
    broker = await port.connect([dead, queue])
    await _publish(broker, queue, 1)
    await _until_depth(broker, queue.name, 0)
    (letter,) = await _take(await broker.consume(dead, prefetch=1), 1)
    assert letter.headers["x-first-death-reason"] == "expired"


async def test_a_quorum_queue_dead_letters_after_its_delivery_limit(port: Port) -> None:
    """A limit of 3 means 4 deliveries, then the dead-letter queue."""
    dead = Queue(name=port.name(), kind="quorum")
    queue = Queue(name=port.name(), kind="quorum", delivery_limit=3, dead_letter_to=dead.name)
    broker = await port.connect([dead, queue])
    await broker.publish(queue.name, Message("a.Type", b"poison", persistent=True))
    consumer = await broker.consume(queue, prefetch=1)
    for _ in range(4):
        (delivery,) = await _take(consumer, 1)
        delivery.reject(requeue=True)
    (letter,) = await _take(await broker.consume(dead, prefetch=1), 1)
    assert letter.body == b"poison"
    assert letter.headers["x-first-death-reason"] == "delivery_limit"


async def test_a_missing_queue_is_unroutable(port: Port) -> None:
    """A message for a queue that does not exist is refused, not lost."""
    broker = await port.connect([])
    with pytest.raises(Unroutable):
        await broker.publish(port.name(), _message(0))
    with pytest.raises(Unroutable):
        await broker.depth(port.name())


async def test_an_exclusive_queue_is_gone_with_its_consumer(port: Port) -> None:
    """After a replica ends, messages to its reply queue are unroutable."""
    broker = await port.connect([])
    queue = Queue(name=port.name(), exclusive=True)
    consumer = await broker.consume(queue, prefetch=0, auto_ack=True)
    await broker.publish(queue.name, _message(1))
    (delivery,) = await _take(consumer, 1)
    assert delivery.body == b"1"
    await consumer.close()
    with pytest.raises(Unroutable):
        await broker.publish(queue.name, _message(2))


async def test_auto_ack_needs_no_settling(port: Port) -> None:
    """With auto_ack, delivered messages never come back."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    consumer = await broker.consume(queue, prefetch=0, auto_ack=True)
    await _publish(broker, queue, 3)
    await _take(consumer, 3)
    await consumer.close()
    await _publish(broker, queue, 1)
    (delivery,) = await _take(await broker.consume(queue, prefetch=1), 1)
    assert not delivery.redelivered


async def test_a_cut_connection_raises_consumer_lost(port: Port) -> None:
    """The consumer raises ConsumerLost; its owner consumes again and gets unsettled messages."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await broker.publish(queue.name, Message("a.Type", b"kept", persistent=True))
    consumer = await broker.consume(queue, prefetch=16)
    (held,) = await _take(consumer, 1)
    await port.sever()
    with pytest.raises(ConsumerLost):
        await _take(consumer, 1)
    held.ack()
    async with asyncio.timeout(PATIENCE_SECONDS):
        again = await broker.consume(queue, prefetch=16)
    (back,) = await _take(again, 1)
    assert (back.body, back.redelivered) == (b"kept", True)
    await until(lambda: broker.ready)
    await broker.publish(queue.name, _message(7))
    assert (await _take(again, 1))[0].body == b"7"


async def test_a_deleted_queue_ends_its_consumer(port: Port) -> None:
    """A consumer notices when an operator deletes its queue."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    consumer = await broker.consume(queue, prefetch=16)
    await port.delete(queue.name)
    with pytest.raises(ConsumerLost):
        await _take(consumer, 1)
    again = await broker.consume(queue, prefetch=16)
    await _publish(broker, queue, 1)
    assert _bodies(await _take(again, 1)) == [0]


async def test_cancel_gives_back_the_untaken_and_lets_the_taken_settle(port: Port) -> None:
    """A draining consumer finishes the messages in flight; other consumers get the rest."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await _publish(broker, queue, 3)
    consumer = await broker.consume(queue, prefetch=16)
    (taken,) = await _take(consumer, 1)
    await consumer.cancel()
    with pytest.raises(ConsumerLost):
        await consumer.take(1)
    taken.ack()
    await consumer.close()
    await consumer.close()
    assert _bodies(await _take(await broker.consume(queue, prefetch=16), 2)) == [1, 2]
    assert await broker.depth(queue.name) == 0


async def test_consumers_of_one_queue_share_the_work(port: Port) -> None:
    """Two consumers with room both get messages, none of them twice."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    left = await broker.consume(queue, prefetch=2)
    right = await broker.consume(queue, prefetch=2)
    await _publish(broker, queue, 4)
    bodies = _bodies([*await _take(left, 2), *await _take(right, 2)])
    assert sorted(bodies) == [0, 1, 2, 3]


async def test_a_queue_reports_its_messages_and_its_consumers(port: Port) -> None:
    """The count of consumers excludes cancelled ones."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await _publish(broker, queue, 2)
    assert await broker.state(queue.name) == QueueState(messages=2, consumers=0)
    first, second = [await broker.consume(queue, prefetch=1) for _ in range(2)]
    await _take(first, 1)
    await _take(second, 1)
    assert await broker.state(queue.name) == QueueState(messages=0, consumers=2)
    await first.cancel()
    assert (await broker.state(queue.name)).consumers == 1
    with pytest.raises(Unroutable):
        await broker.state("simile.nowhere")


async def test_other_arguments_for_a_queue_are_refused(port: Port) -> None:
    """Another definition under an old name is an error that names the queue and the remedy."""
    name = port.name()
    await port.connect([Queue(name=name, max_length=5)])
    with pytest.raises(BrokerUnavailable, match=name):
        await port.connect([Queue(name=name, max_length=6)])


UNSENDABLE = {
    "queue": ("q" * 256, Message("a.Type", b"")),
    "queue of many bytes": ("\u20ac" * 86, Message("a.Type", b"")),
    "queue that is no text": ("\udcff", Message("a.Type", b"")),
    "type": ("", Message("t" * 256, b"")),
    "header": ("", Message("a.Type", b"", headers={"correlation_id": "x" * 2**20})),
    "headers": ("", Message("a.Type", b"", headers={f"{one:03}": "x" * 99 for one in range(200)})),
    "header's name": ("", Message("a.Type", b"", headers={"n" * 256: "x"})),
    "header that is no text": ("", Message("a.Type", b"", headers={"n": "\udcff"})),
}


@pytest.mark.parametrize(("name", "message"), UNSENDABLE.values(), ids=UNSENDABLE)
async def test_an_oversized_message_is_refused_and_disturbs_nothing(
    port: Port, name: str, message: Message
) -> None:
    """A name, type or header that is too long is `unsendable`; other publishes are confirmed."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    consumer = await broker.consume(queue, prefetch=16)
    outcomes = await asyncio.gather(
        broker.publish(queue.name, _message(0)),
        broker.publish(name or queue.name, message),
        broker.publish(queue.name, _message(1)),
        return_exceptions=True,
    )
    assert [type(one) for one in outcomes] == [type(None), Unsendable, type(None)]
    assert broker.ready
    assert _bodies(await _take(consumer, 2)) == [0, 1]


async def test_the_longest_names_and_headers_arrive(port: Port) -> None:
    """A queue name of 255 bytes and headers of 16 KiB are carried."""
    start = port.name()
    queue = Queue(name=start + "q" * (255 - len(start)))
    broker = await port.connect([queue])
    headers = {"detail": "\u20ac" * 5000}
    await broker.publish(queue.name, Message("t" * 255, b"", headers=headers))
    (delivery,) = await _take(await broker.consume(queue, prefetch=1), 1)
    assert (delivery.type, delivery.headers) == ("t" * 255, headers)


async def test_starting_twice_with_the_same_queues_is_fine(port: Port) -> None:
    """Every service declares the whole topology at its start."""
    await port.connect(topology.ALL)
    broker = await port.connect(topology.ALL)
    assert broker.ready
    assert not broker.blocked


async def test_a_closed_broker_refuses(port: Port) -> None:
    """After close a publish fails at once with `broker_unavailable`; closing again is harmless."""
    queue = Queue(name=port.name())
    broker = await port.connect([queue])
    await broker.close()
    await broker.close()
    assert not broker.ready
    with pytest.raises(BrokerUnavailable):
        await broker.publish(queue.name, _message(0))
    with pytest.raises(BrokerUnavailable):
        await broker.depth(queue.name)
    with pytest.raises(BrokerUnavailable):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await broker.consume(queue, prefetch=1)
