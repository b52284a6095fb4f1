"""The inbox: answers reach their futures, late ones are counted, lost queues fail at once."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from services.shared.contracts import (
    Embedding,
    Embeddings,
    EmbedRequest,
    Failure,
    Replies,
    Reply,
    Slip,
)
from services.shared.errors import BrokerUnavailable, ReplyQueueLost
from services.shared.lifecycle import cancel
from services.shared.messaging.broker import Message
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.request_reply import Embedded, Inbox
from services.shared.telemetry import logs


@dataclass
class Desk:
    """An inbox that receives, its broker, and how many answers came late."""

    broker: MemoryBroker
    late: list[None] = field(default_factory=list)
    junk: list[None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inbox = Inbox(
            self.broker,
            "replica",
            on_late=lambda: self.late.append(None),
            on_undecodable=lambda: self.junk.append(None),
        )

    async def send(self, *replies: Reply) -> None:
        """Publish replies to the inbox's queue."""
        await self.broker.publish(self.inbox.queue, Message.of(Replies(replies)))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A running inbox on a broker in memory."""
    broker = MemoryBroker()
    await broker.start([])
    desk = Desk(broker)
    receiving = asyncio.create_task(desk.inbox.run())
    await desk.inbox.opened()
    yield desk
    await cancel(receiving)
    await broker.close()


def _reply(correlation_id: str) -> Reply:
    return Reply(correlation_id, Failure("no_index", "why"))


async def test_each_reply_of_a_list_reaches_its_own_future(desk: Desk) -> None:
    """One message resolves several futures; a Failure is an answer like any other."""
    first, second = desk.inbox.expect("first"), desk.inbox.expect("second")
    await desk.send(_reply("second"), _reply("first"))
    assert (await first).answer == _reply("first")
    assert (await second).answer == _reply("second")
    assert desk.inbox.pending == 0


async def test_a_vector_is_an_answer_too(desk: Desk) -> None:
    """Embeddings sent straight back resolve the future of their slip."""
    future = desk.inbox.expect("vector")
    slip = Slip(correlation_id="vector", reply_to="r", final_reply_to="r")
    item = Embedding(slip, struct.pack("<f", 1.0))
    await desk.broker.publish(desk.inbox.queue, Message.of(Embeddings("m", 1, (item,))))
    assert (await future).answer == Embedded("m", 1, item)


async def test_an_answer_that_nobody_waits_for_is_counted(desk: Desk) -> None:
    """A forgotten id's answer is late, and harms no other."""
    desk.inbox.expect("gone")
    desk.inbox.forget("gone")
    waiting = desk.inbox.expect("waiting")
    await desk.send(_reply("gone"), _reply("waiting"))
    await waiting
    assert len(desk.late) == 1


async def test_undecodable_messages_are_dropped(desk: Desk) -> None:
    """Rubbish, and a message of the wrong kind, leave the inbox receiving."""
    waiting = desk.inbox.expect("waiting")
    slip = Slip(correlation_id="waiting", reply_to="r", final_reply_to="r")
    await desk.broker.publish(desk.inbox.queue, Message("simile.v1.Replies", b"\xff"))
    await desk.broker.publish(desk.inbox.queue, Message.of(EmbedRequest(slip, b"")))
    await desk.send(_reply("waiting"))
    assert (await waiting).answer == _reply("waiting")
    assert len(desk.junk) == 2


async def test_a_flood_of_junk_is_counted_and_logged_once(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each message of it counts in the metric; the log gets one line, not one a message."""
    logs.configure("info", "json")
    waiting = desk.inbox.expect("waiting")
    for _ in range(200):
        await desk.broker.publish(desk.inbox.queue, Message("simile.v1.Replies", b"\xff"))
    await desk.send(_reply("waiting"))
    await waiting
    assert len(desk.junk) == 200
    assert capsys.readouterr().out.count("undecodable_message") == 1


async def test_a_lost_queue_fails_what_waits_and_a_fresh_one_opens(desk: Desk) -> None:
    """No future hangs when the connection goes; the next query has a new way back."""
    future, before = desk.inbox.expect("waiting"), desk.inbox.queue
    desk.broker.sever()
    with pytest.raises(ReplyQueueLost):
        await future
    await desk.inbox.opened()
    assert desk.inbox.queue != before
    again = desk.inbox.expect("again")
    await desk.send(_reply("again"))
    await again


async def test_without_a_queue_nothing_can_be_expected() -> None:
    """Before the first queue is open a query is refused by name."""
    inbox = Inbox(MemoryBroker(), "replica")
    assert not inbox.ready
    with pytest.raises(BrokerUnavailable):
        inbox.expect("too early")
    with pytest.raises(BrokerUnavailable):
        _ = inbox.queue
