"""The searcher's canary sends a stored vector through the queue, apart from users' queries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.searcher.canary import judge
from services.searcher.settings import SearcherSettings
from services.shared.messaging.broker import Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.memory_queue import MemoryConsumer
from tests.support.running_searcher import RunningSearcher, running_searcher
from tests.support.volume import items, publish_version, unit_vectors

COUNT = 30


class RepliesLost(MemoryBroker):
    """Drops the messages to reply queues once `lost` is set."""

    lost = False

    async def publish(self, queue: str, message: Message) -> None:
        """Publish the message, or drop it."""
        if not (self.lost and queue.startswith("simile.reply.")):
            await super().publish(queue, message)


class Consumed(MemoryBroker):
    """Records the names of the queues that are consumed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    async def consume(
        self, queue: Queue, *, prefetch: int, auto_ack: bool = False
    ) -> MemoryConsumer:
        """Record the name and consume the queue."""
        self.names.append(queue.name)
        return await super().consume(queue, prefetch=prefetch, auto_ack=auto_ack)


@pytest.fixture
async def searcher(tmp_path: Path) -> AsyncIterator[RunningSearcher]:
    """Run a searcher of `birds` whose canary queries constantly."""
    settings = SearcherSettings(live_recall_share=1)
    async with running_searcher(tmp_path, settings, canary_seconds=0.01) as running:
        yield running


async def test_a_stored_vector_finds_itself_and_counts_as_no_query(
    searcher: RunningSearcher,
) -> None:
    """The canary passes queue, search and reply, and counts in no query metric or live recall."""
    await searcher.wait_canaries(3)
    assert searcher.metric("canary_success_timestamp_seconds") > 0
    assert searcher.metric("canary_seconds_count", asked_by="vector") >= 3
    assert searcher.metric("queries_total", code="ok") == 0
    assert searcher.metric("search_seconds_count") == 0
    assert searcher.metric("live_recall_expected_total", collection="birds") == 0
    labels = {"collection": "birds", "rank": "nearest"}
    assert searcher.metric("neighbor_distance_count", **labels) == 0


async def test_canaries_continue_after_a_lost_connection_and_a_new_index(
    searcher: RunningSearcher,
) -> None:
    """Canaries succeed again after a lost connection and after a swap."""
    await searcher.wait_canaries()
    searcher.broker.sever()
    await searcher.wait_canaries(2)
    publish_version(searcher.volume, "birds", unit_vectors(9, seed=5), items(9), number=1)
    async with asyncio.timeout(20):
        while searcher.metric("index_bytes", collection="birds") == 0 or (
            searcher.metric("canary_total", asked_by="vector", code="ok") == 0
        ):
            await asyncio.sleep(0.01)
    await searcher.wait_canaries(2)
    assert not searcher.telemetry.health.not_ready()


async def test_a_searcher_whose_replies_are_lost_is_unready(tmp_path: Path) -> None:
    """Readiness reports the canary after several canaries without an answer."""
    broker = RepliesLost()
    async with running_searcher(
        tmp_path, broker=broker, canary_seconds=0.01, canary_timeout_seconds=0.05
    ) as searcher:
        await searcher.wait_canaries()
        broker.lost = True
        async with asyncio.timeout(30):
            while "searcher canary" not in searcher.telemetry.health.not_ready():
                await asyncio.sleep(0.01)
        assert not searcher.telemetry.health.not_live()


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("ok", True),
        ("deadline_exceeded", False),
        ("wrong_answer", False),
        ("overloaded", None),
        ("broker_unavailable", None),
        ("no_index", None),
    ],
)
async def test_some_results_say_nothing_about_a_searcher(
    code: str,
    verdict: bool | None,  # noqa: FBT001 (a case of the parametrization)
) -> None:
    """Refusals, and failures that another check reports, are no verdict on the searcher."""
    assert await judge(code) is verdict


async def test_canaries_can_be_turned_off(tmp_path: Path) -> None:
    """With SIMILE_CANARY_SECONDS=0, no reply queue and no canary exist."""
    broker = Consumed()
    async with running_searcher(tmp_path, broker=broker, canary_seconds=0) as searcher:
        assert not [name for name in broker.names if name.startswith("simile.reply.")]
        assert "searcher canary" not in searcher.telemetry.health.ready_checks
