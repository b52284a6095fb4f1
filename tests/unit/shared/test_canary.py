"""Canaries check answers, report metrics and logs, and affect readiness."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from services.shared.canary import Canary, CanaryMetrics, Choose, Known
from services.shared.contracts import (
    EmbedRequest,
    Failure,
    Neighbor,
    Neighbors,
    Replies,
    Reply,
    Slip,
    codec,
)
from services.shared.lifecycle import cancel
from services.shared.messaging import topology
from services.shared.messaging.broker import Message
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.request_reply import Arrival, Inbox

ITEM = Known(
    asked_by="image",
    collection="birds",
    item_id="it",
    queue=topology.EMBED.name,
    reply_to=topology.SEARCH.name,
    message=lambda slip: EmbedRequest(slip, b"its image"),
)


def _found(*neighbors: tuple[str, float]) -> Neighbors:
    found = [Neighbor(name, "", {}, far, 1 - far**2 / 2) for name, far in neighbors]
    return Neighbors("birds", "v1", "model", tuple(found))


class QuickInbox(Inbox):
    """Times out soon while `silent` is set, since no answer comes then."""

    silent = False

    async def request(
        self, queue: str, slip: Slip, message: Message, timeout_seconds: float, **options: Any
    ) -> Arrival:
        """Request as an inbox does, with a short timeout while `silent` is set."""
        seconds = 0.02 if self.silent else timeout_seconds
        return await super().request(queue, slip, message, seconds, **options)


@dataclass
class Cage:
    """Holds a canary, and answers its queries with `outcome`, or not at all for None."""

    broker: MemoryBroker
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    outcome: Neighbors | Failure | None = field(default_factory=lambda: _found(("it", 0.0)))
    known: Known | None = ITEM
    slips: list[Slip] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.choose: Choose = self._choose_known
        self.inbox = QuickInbox(self.broker, "replica")
        metrics = CanaryMetrics("upload", self.registry)
        self.canary = Canary(
            self.inbox, metrics, self._next, self._judge,
            period_seconds=0.001, timeout_seconds=20,
        )  # fmt: skip

    async def _next(self) -> Known | None:
        return await self.choose()

    async def _choose_known(self) -> Known | None:
        return self.known

    async def _judge(self, code: str) -> bool | None:
        self.judged.append(code)
        return None if code == "overloaded" else code == "ok"

    async def answer(self) -> None:
        """Answer queries in place of the embedders and the searchers."""
        consumer = await self.broker.consume(topology.EMBED, prefetch=16)
        while True:
            for delivery in await consumer.take(16):
                message = codec.decode(delivery.type, delivery.body)
                assert isinstance(message, EmbedRequest)
                self.slips.append(message.slip)
                if self.outcome is not None:
                    reply = Reply(message.slip.correlation_id, self.outcome)
                    queue = message.slip.final_reply_to
                    await self.broker.publish(queue, Message.of(Replies((reply,))))
                delivery.ack()

    async def ask(self, *outcomes: Neighbors | Failure | None) -> None:
        """Send a canary for each outcome."""
        for self.outcome in outcomes:
            self.inbox.silent = self.outcome is None
            await self.canary.ask()

    def tried(self, code: str) -> float:
        """Return the number of canaries that ended with that code."""
        labels = {"asked_by": "image", "code": code}
        return self.registry.get_sample_value("simile_upload_canary_total", labels) or 0.0

    @property
    def succeeded(self) -> float:
        """Return the time of the last success."""
        name = "simile_upload_canary_success_timestamp_seconds"
        return self.registry.get_sample_value(name) or 0.0


@pytest.fixture
async def cage() -> AsyncIterator[Cage]:
    """Return a canary whose path works."""
    broker = MemoryBroker()
    await broker.start(topology.ALL)
    cage = Cage(broker)
    running = [asyncio.create_task(work) for work in (cage.inbox.run(), cage.answer())]
    await cage.inbox.opened()
    yield cage
    await cancel(*running)
    await broker.close()


async def test_a_canary_that_finds_itself_is_counted_and_timed(cage: Cage) -> None:
    """A canary is a query with a mark and a deadline of its own."""
    await cage.ask(_found(("it", 0.0), ("other", 0.4)))
    (slip,) = cage.slips
    assert slip.canary
    assert slip.deadline_unix_ms > 0
    assert (slip.question.collection, slip.reply_to) == ("birds", topology.SEARCH.name)
    assert cage.tried("ok") == 1
    assert cage.succeeded > 0
    timed = "simile_upload_canary_seconds_count"
    assert cage.registry.get_sample_value(timed, {"asked_by": "image"}) == 1


@pytest.mark.parametrize(
    ("neighbors", "code"),
    [
        ([("twin", 0.0), ("it", 0.01)], "ok"),
        ([("twin", 0.0)], "ok"),
        ([("it", 0.3), ("other", 0.9)], "ok"),
        ([("other", 0.3), ("it", 0.5)], "wrong_answer"),
        ([("other", 0.3)], "wrong_answer"),
        ([], "wrong_answer"),
    ],
)
async def test_itself_or_one_just_like_it_must_be_the_nearest(
    cage: Cage, neighbors: Sequence[tuple[str, float]], code: str
) -> None:
    """A near-duplicate counts as the item; another item before it is a wrong answer."""
    await cage.ask(_found(*neighbors))
    assert cage.judged == [code]
    assert (cage.succeeded > 0) == (code == "ok")


async def test_each_failure_has_its_code(cage: Cage) -> None:
    """No answer, the failure of a stage, and a refused publish have different codes."""
    await cage.ask(None, Failure("no_index", "none here"))
    cage.known = Known(
        asked_by="vector", collection="birds", item_id="it", queue="no.such.queue",
        reply_to="x", message=ITEM.message,
    )  # fmt: skip
    await cage.ask(None)
    assert cage.judged == ["deadline_exceeded", "no_index", "unroutable"]
    assert cage.inbox.pending == 0


async def test_readiness_follows_successive_results(cage: Cage) -> None:
    """Three successive failures make the service unready, two successes make it ready again."""
    right = _found(("it", 0.0))
    await cage.ask(None, right, None, None)
    assert cage.canary.unready is None
    await cage.ask(None)
    assert cage.canary.unready == "canaries fail, at last with deadline_exceeded"
    await cage.ask(right)
    assert cage.canary.unready is not None
    await cage.ask(right)
    assert cage.canary.unready is None


async def test_an_inconclusive_result_changes_nothing(cage: Cage) -> None:
    """An overloaded path says nothing about the answers, however often it occurs."""
    await cage.ask(*[Failure("overloaded", "full")] * 10)
    assert cage.canary.unready is None
    assert cage.tried("overloaded") == 10


async def test_logs_show_changes_only(cage: Cage) -> None:
    """A line is logged when canaries keep failing, fail with another code, or succeed again."""
    right, failure = _found(("it", 0.0)), Failure("no_index", "none here")
    with structlog.testing.capture_logs() as lines:
        await cage.ask(right, failure, right)
        assert lines == []
        await cage.ask(failure, failure, failure, None, None, right, right)
    assert [(line["log_level"], line["code"]) for line in lines] == [
        ("warning", "no_index"),
        ("warning", "deadline_exceeded"),
        ("info", "ok"),
    ]


async def test_without_a_known_answer_no_canary_is_sent(cage: Cage) -> None:
    """Before the first index, and without a reply queue, no canary is sent or counted."""
    cage.known = None
    await cage.ask(None)
    cage.known = ITEM
    cage.broker.sever()
    assert not cage.slips
    assert not cage.judged


async def test_a_defect_in_a_canary_ends_nothing(cage: Cage) -> None:
    """The stage continues after any error of a canary."""
    broken = asyncio.Event()

    async def choose() -> Known | None:
        if broken.is_set():
            return ITEM
        broken.set()
        message = "a defect"
        raise RuntimeError(message)

    cage.choose = choose
    with structlog.testing.capture_logs() as lines:
        running = asyncio.create_task(cage.canary.run())
        async with asyncio.timeout(20):
            while not cage.slips:
                await asyncio.sleep(0.001)
        await cancel(running)
    assert lines[0]["action"] == "internal"


async def test_the_loopback_works_while_the_queue_exists(cage: Cage) -> None:
    """The loopback needs no other service; it fails with a blocked broker or a lost queue."""
    assert await cage.inbox.loopback_ok(5)
    cage.broker.block()
    assert not await cage.inbox.loopback_ok(5)
    cage.broker.unblock()
    cage.broker.sever()
    assert not await cage.inbox.loopback_ok(0.01)
    async with asyncio.timeout(20):
        while not await cage.inbox.loopback_ok(5):
            await asyncio.sleep(0)
