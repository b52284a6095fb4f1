"""The inbox resolves requests, counts late answers, and fails all requests of a lost queue."""

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
from services.shared.errors import BrokerUnavailable, NoIndex, ReplyQueueLost, Unroutable
from services.shared.lifecycle import cancel
from services.shared.messaging.broker import Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.request_reply import Embedded, Inbox, open_inbox
from services.shared.telemetry import logs


@dataclass
class Caller:
    """Holds an inbox with its broker, and its late and undecodable answers."""

    broker: MemoryBroker
    late: list[None] = field(default_factory=list)
    bad: list[None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inbox = Inbox(
            self.broker,
            "replica",
            on_late=lambda: self.late.append(None),
            on_undecodable=lambda: self.bad.append(None),
        )

    async def send(self, *replies: Reply) -> None:
        """Publish replies to the inbox's queue."""
        await self.broker.publish(self.inbox.queue, Message.of(Replies(replies)))


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    """Run an inbox on a broker in memory."""
    broker = MemoryBroker()
    await broker.start([])
    caller = Caller(broker)
    receiving = asyncio.create_task(caller.inbox.run())
    await caller.inbox.opened()
    yield caller
    await cancel(receiving)
    await broker.close()


def _reply(correlation_id: str) -> Reply:
    return Reply(correlation_id, Failure("no_index", "why"))


async def test_each_reply_of_a_list_reaches_its_own_future(caller: Caller) -> None:
    """A message resolves several futures; a Failure is an answer like any other."""
    first, second = caller.inbox.expect("first"), caller.inbox.expect("second")
    await caller.send(_reply("second"), _reply("first"))
    assert (await first).answer == _reply("first")
    assert (await second).answer == _reply("second")
    assert caller.inbox.pending == 0


async def test_a_vector_is_an_answer_too(caller: Caller) -> None:
    """Embeddings on the reply queue resolve the future of their slip."""
    future = caller.inbox.expect("vector")
    slip = Slip(correlation_id="vector", reply_to="r", final_reply_to="r")
    item = Embedding(slip, struct.pack("<f", 1.0))
    await caller.broker.publish(caller.inbox.queue, Message.of(Embeddings("m", 1, (item,))))
    assert (await future).answer == Embedded("m", 1, item)


async def test_an_answer_that_nobody_waits_for_is_counted(caller: Caller) -> None:
    """The answer to a forgotten id is late, and affects no other."""
    caller.inbox.expect("gone")
    caller.inbox.forget("gone")
    waiting = caller.inbox.expect("waiting")
    await caller.send(_reply("gone"), _reply("waiting"))
    await waiting
    assert len(caller.late) == 1


async def test_undecodable_messages_are_dropped(caller: Caller) -> None:
    """After random bytes and a message of the wrong type the inbox still receives."""
    waiting = caller.inbox.expect("waiting")
    slip = Slip(correlation_id="waiting", reply_to="r", final_reply_to="r")
    await caller.broker.publish(caller.inbox.queue, Message("simile.v1.Replies", b"\xff"))
    await caller.broker.publish(caller.inbox.queue, Message.of(EmbedRequest(slip, b"")))
    await caller.send(_reply("waiting"))
    assert (await waiting).answer == _reply("waiting")
    assert len(caller.bad) == 2


async def test_a_flood_of_junk_is_counted_and_logged_once(
    caller: Caller, capsys: pytest.CaptureFixture[str]
) -> None:
    """The metric counts each message; the log gets one line for all."""
    logs.configure("info", "json")
    waiting = caller.inbox.expect("waiting")
    for _ in range(200):
        await caller.broker.publish(caller.inbox.queue, Message("simile.v1.Replies", b"\xff"))
    await caller.send(_reply("waiting"))
    await waiting
    assert len(caller.bad) == 200
    assert capsys.readouterr().out.count("undecodable_message") == 1


async def test_a_lost_queue_fails_what_waits_and_a_fresh_one_opens(caller: Caller) -> None:
    """No future hangs when the connection is lost; the next request has a new reply queue."""
    future, before = caller.inbox.expect("waiting"), caller.inbox.queue
    caller.broker.sever()
    with pytest.raises(ReplyQueueLost):
        await future
    await caller.inbox.opened()
    assert caller.inbox.queue != before
    again = caller.inbox.expect("again")
    await caller.send(_reply("again"))
    await again


async def test_without_a_queue_nothing_can_be_expected() -> None:
    """Before the first queue is open a request fails with BrokerUnavailable."""
    inbox = Inbox(MemoryBroker(), "replica")
    assert not inbox.ready
    with pytest.raises(BrokerUnavailable):
        inbox.expect("too early")
    with pytest.raises(BrokerUnavailable):
        _ = inbox.queue


async def test_a_request_returns_its_answer_and_when_it_arrived(caller: Caller) -> None:
    """`reply` holds the stages of the answer, and `result` raises the error of a failure."""
    slip = Slip(correlation_id="query", reply_to="r", final_reply_to=caller.inbox.queue)
    sent: list[None] = []
    arrival = await caller.inbox.request(
        caller.inbox.queue,  # this makes the request its own answer
        slip,
        Message.of(Replies((_reply("query"),))),
        20,
        on_sent=lambda: sent.append(None),
    )
    assert arrival.reply == _reply("query")
    assert len(sent) == 1
    with pytest.raises(NoIndex, match="why"):
        arrival.result()


async def test_a_request_without_an_answer_times_out_and_is_forgotten(caller: Caller) -> None:
    """The answer counts as late after the timeout."""
    slip = Slip(correlation_id="query", reply_to="r", final_reply_to=caller.inbox.queue)
    await caller.broker.start([Queue(name="ignored")])
    with pytest.raises(TimeoutError):
        await caller.inbox.request("ignored", slip, Message("a.Type", b""), 0.001)
    assert caller.inbox.pending == 0


async def test_an_open_inbox_has_a_queue_until_its_end() -> None:
    """The reply queue is deleted when the context ends."""
    broker = MemoryBroker()
    await broker.start([])
    async with open_inbox(broker, "replica") as inbox:
        queue = inbox.queue
        assert await inbox.loopback_ok(20)
    assert not inbox.ready
    with pytest.raises(Unroutable):
        await broker.publish(queue, Message.of(Replies((_reply("query"),))))
