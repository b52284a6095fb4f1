"""Tests searchers with different disks over both brokers: none takes queries it can't answer."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.searcher.answerer import VectorQuery
from services.searcher.catalog import Catalog
from services.searcher.handover import Handover
from services.searcher.metrics import SearcherMetrics
from services.searcher.service import run
from services.searcher.settings import SearcherSettings
from services.shared.contracts import (
    Embedding,
    Embeddings,
    Failure,
    Question,
    Replies,
    Slip,
    codec,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Consumer, Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.telemetry.stopwatch import Stopwatch
from services.shared.volume.volume import Volume
from tests.support.rabbitmq import Node
from tests.support.volume import DIMENSION, MODEL, items, publish_version, unit_vectors
from tests.support.waiting import until

COUNT = 30
QUERIES = 200
PATIENCE_SECONDS = 60
REPLIES = Queue(name="simile.reply.several-searchers", exclusive=True)


@dataclass
class Searcher:
    """Runs a searcher with its own disk."""

    volume: Volume
    telemetry: Telemetry = field(default_factory=Telemetry)

    def publish(self, collection: str) -> None:
        """Publish a collection on its disk."""
        publish_version(self.volume, collection, unit_vectors(COUNT), items(COUNT))

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.telemetry.registry.get_sample_value(f"simile_searcher_{name}", labels) or 0.0

    def handover(self, broker: Broker) -> Handover:
        """Return the handover of a searcher with that disk."""
        metrics = SearcherMetrics(CollectorRegistry())
        return Handover(broker, Catalog(self.volume, metrics), metrics)

    @property
    def unready(self) -> str:
        """Return why the searcher is not ready."""
        return self.telemetry.health.not_ready().get("searcher", "")

    def holds(self, collection: str) -> bool:
        """Return whether the collection is open."""
        return self.metric("index_bytes", collection=collection) > 0


@dataclass
class System:
    """Two searchers, `full` and `empty`, and the queue that receives answers."""

    broker: Broker
    full: Searcher
    empty: Searcher
    replies: Consumer

    async def answers(
        self, count: int, collection: str, *, within_seconds: float = 60
    ) -> list[str]:
        """Send `count` concurrent queries of a collection; return the codes of the answers."""
        deadline = time.time_ns() // 1_000_000 + round(1000 * within_seconds)
        vector = struct.pack(f"<{DIMENSION}f", *unit_vectors(COUNT)[4].tolist())
        for number in range(count):
            slip = Slip(
                correlation_id=str(number),
                reply_to=topology.SEARCH.name,
                final_reply_to=REPLIES.name,
                deadline_unix_ms=deadline,
                question=Question(collection=collection, k=5),
            )
            message = Message.of(Embeddings(MODEL, DIMENSION, (Embedding(slip, vector),)))
            await self.broker.publish(topology.SEARCH.name, message)
        codes: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(codes) < count:
                for delivery in await self.replies.take(64):
                    replies = codec.decode(delivery.type, delivery.body)
                    assert isinstance(replies, Replies)
                    for reply in replies.items:
                        outcome = reply.outcome
                        code = outcome.code if isinstance(outcome, Failure) else "ok"
                        codes[reply.correlation_id] = code
        return list(codes.values())

    async def consumers(self) -> int:
        """Return how many searchers consume queries."""
        return (await self.broker.state(topology.SEARCH.name)).consumers

    async def until_consumers(self, count: int) -> None:
        """Wait until `count` searchers consume queries."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.consumers() != count:
                await asyncio.sleep(0.02)


@pytest.fixture(params=["memory", "rabbitmq"])
async def system(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[System]:
    """Yield the running system; `full` holds `birds`, and is ready."""
    broker: Broker = MemoryBroker()
    if request.param == "rabbitmq":
        node: Node = request.getfixturevalue("rabbitmq")
        broker = AmqpBroker(node.url, name="searchers", publish_timeout_seconds=10)
    await broker.start(topology.ALL)
    replies = await broker.consume(REPLIES, prefetch=0, auto_ack=True)
    full, empty = (Searcher(Volume(tmp_path / name)) for name in ("full", "empty"))
    full.publish("birds")
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as running:
        for one in (full, empty):
            shared = SharedSettings(root=one.volume.root, canary_seconds=0)
            settings = SearcherSettings(poll_seconds=0.05)
            work = run(settings, shared, broker, stop=stop, telemetry=one.telemetry)
            task = asyncio.create_task(work)
            running.push_async_callback(asyncio.wait, {task})
        running.callback(stop.set)
        system = System(broker, full, empty, replies)
        await until(lambda: full.holds("birds") and not full.unready)
        yield system
    await replies.close()
    await broker.close()


async def test_a_searcher_whose_disk_is_empty_takes_no_query(system: System) -> None:
    """Of 200 queries none gets no_index; once filled the searcher takes its share."""
    await until(lambda: "no_index" in system.empty.unready)
    assert not system.empty.telemetry.health.not_live()
    assert set(await system.answers(QUERIES, "birds")) == {"ok"}
    assert await system.consumers() == 1
    system.empty.publish("birds")
    await system.until_consumers(2)
    assert not system.empty.unready
    assert set(await system.answers(QUERIES, "birds")) == {"ok"}
    assert system.empty.metric("queries_total", code="ok") > 0


async def test_a_searcher_that_loses_its_index_takes_no_query(system: System) -> None:
    """A searcher without an index still answers the queries that it has received."""
    system.empty.publish("birds")
    await system.until_consumers(2)
    (system.empty.volume.home("birds") / "ACTIVE").unlink()
    await system.until_consumers(1)
    assert set(await system.answers(QUERIES, "birds")) == {"ok"}


async def test_a_query_is_passed_on_to_the_searcher_that_has_the_collection(system: System) -> None:
    """200 queries for a collection that reaches one disk after the other: none fails."""
    system.empty.publish("birds")
    system.full.publish("fish")
    await system.until_consumers(2)
    await until(lambda: system.full.holds("fish"))
    assert set(await system.answers(QUERIES, "fish")) == {"ok"}
    assert system.full.metric("queries_total", code="ok") == QUERIES
    assert 0 < system.empty.metric("passed_on_total") < 3 * QUERIES
    assert system.full.metric("redelivered_total") == system.empty.metric("redelivered_total") == 0


@pytest.fixture
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searchers return queries after short pauses."""
    quick = partial(Handover, max_pause_seconds=0.02)
    monkeypatch.setattr("services.searcher.service.Handover", quick)


@pytest.mark.usefixtures("_short_pauses")
async def test_a_collection_that_no_searcher_has_is_refused_after_some_passes(
    system: System,
) -> None:
    """The refusal has its reason; queries are not passed on for their whole deadline."""
    system.empty.publish("birds")
    await system.until_consumers(2)
    assert set(await system.answers(20, "fish")) == {"no_index"}
    passes = system.full.metric("passed_on_total") + system.empty.metric("passed_on_total")
    assert passes == 20 * 16


async def test_a_query_near_its_deadline_is_not_passed_on(system: System) -> None:
    """The caller gets the reason instead of a timeout."""
    system.empty.publish("birds")
    await system.until_consumers(2)
    vector = np.zeros(DIMENSION, "<f4").tobytes()
    passed = []
    for left_ms in (100, 10_000):
        deadline = time.time_ns() // 1_000_000 + left_ms
        slip = Slip(
            correlation_id="query",
            reply_to=topology.SEARCH.name,
            final_reply_to=REPLIES.name,
            deadline_unix_ms=deadline,
            question=Question(collection="fish"),
        )
        handover = system.full.handover(system.broker)
        query = VectorQuery(Embedding(slip, vector), MODEL, Stopwatch(time.perf_counter()))
        passed.append(len(await handover.elsewhere([query])))
    assert passed == [0, 1]


async def test_a_collection_that_the_only_searcher_lacks_is_answered_at_once(
    system: System,
) -> None:
    """Without another searcher the query is answered at once."""
    assert await system.answers(1, "fish") == ["no_index"]
    assert system.full.metric("passed_on_total") == 0


async def test_a_collection_that_has_just_become_active_is_opened_for_a_query(
    system: System,
) -> None:
    """The only searcher opens the collection without waiting for its next refresh."""
    system.full.publish("fish")
    assert await system.answers(1, "fish") == ["ok"]
