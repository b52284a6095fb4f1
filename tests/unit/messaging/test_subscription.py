"""Subscriptions survive losses, quarantine bad messages, and end without losing a message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from services.shared.contracts import Embedding, Embeddings, EmbedRequest, Slip
from services.shared.contracts import messages_pb2 as pb
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Consumer, Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.quarantine import Quarantine, Record
from services.shared.messaging.subscription import BadMessages, Subscription


@dataclass
class Received:
    """Holds a subscription to the queue of queries, and its reports."""

    broker: MemoryBroker
    changes: list[Queue | None] = field(default_factory=list)
    bad: int = 0

    def __post_init__(self) -> None:
        self.subscription = self.subscribe(topology.SEARCH)

    def subscribe(self, *queues: Queue) -> Subscription[Embeddings]:
        """Subscribe to the queues, one after the other."""
        quarantine = Quarantine(self.broker, replica="pod-1", keeps_messages=True)
        return Subscription(
            self.broker,
            iter(queues * 2).__next__,
            (Embeddings,),
            BadMessages(self._count, quarantine),
            prefetch=8,
            on_change=self.changes.append,
        )

    async def publish(self, *names: str) -> None:
        """Publish a query for each name."""
        for name in names:
            await self.broker.publish(topology.SEARCH.name, Message.of(_message(name)))

    async def names(self, limit: int = 8) -> list[str]:
        """Take messages, acknowledge them, and return the names of their queries."""
        received = await self.subscription.take(limit)
        for delivery, _ in received:
            delivery.ack()
        return [item.slip.correlation_id for _, message in received for item in message.items]

    async def records(self) -> list[Record]:
        """Return the records in quarantine."""
        consumer = await self.broker.consume(topology.QUARANTINE, prefetch=0)
        return [Record.of(kept.headers) for kept in await consumer.take(8)]

    def _count(self) -> None:
        self.bad += 1


def _slip(name: str) -> Slip:
    return Slip(correlation_id=name, reply_to="a", final_reply_to="b")


def _message(name: str) -> Embeddings:
    return Embeddings("m", 1, (Embedding(_slip(name), bytes(4)),))


@pytest.fixture
async def received() -> AsyncIterator[Received]:
    """Open a subscription on a broker in memory."""
    broker = MemoryBroker()
    await broker.start(topology.ALL)
    received = Received(broker)
    yield received
    await received.subscription.close()
    await broker.close()


async def test_a_lost_queue_is_consumed_again(received: Received) -> None:
    """Unsettled messages come again after the loss, and both changes are reported."""
    await received.publish("first")
    [(lost, _)] = await received.subscription.take(8)
    received.broker.sever()
    assert await received.names() == ["first"]
    lost.ack()  # the ack of a lost connection has no effect
    assert received.changes == [topology.SEARCH, None, topology.SEARCH]


async def test_each_loss_opens_the_next_queue(received: Received) -> None:
    """A reply queue has a fresh name after each loss, and its messages need no ack."""
    first, second = (Queue(name=name, exclusive=True) for name in ("first", "second"))
    subscription = received.subscribe(first, second)
    taking = asyncio.create_task(subscription.take(8))
    while received.changes != [first]:
        await asyncio.sleep(0)
    received.broker.sever()
    while received.changes != [first, None, second]:
        await asyncio.sleep(0)
    await received.broker.publish("second", Message.of(_message("query")))
    assert len(await taking) == 1
    await subscription.close()
    with pytest.raises(Exception, match="no queue second"):
        await received.broker.publish("second", Message.of(_message("query")))


async def test_bad_messages_are_quarantined_and_do_not_come_back(received: Received) -> None:
    """A message that can't be decoded and one of another type do not affect the others."""
    await received.broker.publish(topology.SEARCH.name, Message("simile.v1.Embeddings", b"\xff"))
    await received.broker.publish(
        topology.SEARCH.name, Message.of(EmbedRequest(_slip("image"), b""))
    )
    await received.publish("good")
    assert await received.names() == ["good"]
    assert received.bad == 2
    await received.subscription.close()
    assert await received.broker.depth(topology.SEARCH.name) == 0
    records = await received.records()
    assert [record.reason for record in records] == ["undecodable_message"] * 2
    assert "is not for simile.search" in records[1].detail


async def test_bad_items_do_not_cost_the_good_items_of_their_message(received: Received) -> None:
    """The message is kept in quarantine once, and its valid items are received."""
    long = pb.Slip(correlation_id="long", reply_to="r" * 300, final_reply_to="b")
    body = (
        pb.Embeddings(
            model_id="m",
            dimension=1,
            items=[pb.Embedding(slip=long, vector=bytes(4))] * 2,
        ).SerializeToString()
        + pb.Embeddings(
            items=[
                pb.Embedding(
                    slip=pb.Slip(correlation_id="good", reply_to="a", final_reply_to="b"),
                    vector=bytes(4),
                )
            ]
        ).SerializeToString()
    )
    await received.broker.publish(topology.SEARCH.name, Message("simile.v1.Embeddings", body))
    assert await received.names() == ["good"]
    assert received.bad == 1
    (record,) = await received.records()
    assert "reply_to" in record.detail


async def test_after_cancel_taken_messages_are_settled_and_no_other_is_taken(
    received: Received,
) -> None:
    """No message is received after `cancel`; an ack counts; `close` returns unacked messages."""
    await received.publish("first", "second", "third")
    [(first, _), (_, _)] = await received.subscription.take(2)
    await received.subscription.cancel()
    assert await received.subscription.take(8) == ()
    first.ack()
    await received.subscription.close()
    assert await received.broker.depth(topology.SEARCH.name) == 2
    assert received.changes == [topology.SEARCH]


async def test_cancel_ends_a_pending_take(received: Received) -> None:
    """A loop that waits for messages ends by itself."""
    taking = asyncio.create_task(received.subscription.take(8))
    while received.subscription.unready():
        await asyncio.sleep(0)
    await received.subscription.cancel()
    assert await taking == ()


async def test_cancel_while_the_broker_is_away_receives_nothing_later(
    received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that opens after the cancel leaves its messages to others."""
    connected = asyncio.Event()
    consume = received.broker.consume

    async def later(queue: Queue, *, prefetch: int, auto_ack: bool = False) -> Consumer:
        await connected.wait()
        return await consume(queue, prefetch=prefetch, auto_ack=auto_ack)

    monkeypatch.setattr(received.broker, "consume", later)
    await received.publish("query")
    taking = asyncio.create_task(received.subscription.take(8))
    await asyncio.sleep(0)
    await received.subscription.cancel()
    connected.set()
    assert await taking == ()
    assert await received.broker.depth(topology.SEARCH.name) == 1
    assert received.changes == []


async def test_it_is_unready_until_it_consumes_and_stalled_where_a_broker_is_there(
    received: Received,
) -> None:
    """Neither an absent broker nor the end of a subscription is a reason to restart."""
    broker: Broker = received.broker
    assert received.subscription.unready() == "not consuming: the broker is unavailable"
    assert received.subscription.stalled() == "not consuming: the broker is unavailable"
    received.broker.block()
    assert not broker.ready
    assert received.subscription.stalled() is None
    received.broker.unblock()
    await received.publish("query")
    await received.names()
    assert received.subscription.unready() is None
    assert received.subscription.stalled() is None


async def test_a_cancelled_subscription_is_not_stalled(received: Received) -> None:
    """A drained consumer is no reason to restart."""
    await received.subscription.cancel()
    assert received.subscription.stalled() is None
