"""The searcher service turns messages of vectors into replies, and survives faults."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.searcher import answerer
from services.searcher.answerer import Answerer, VectorQuery
from services.searcher.index import engine
from services.searcher.index.finder import Finder
from services.searcher.service import run
from services.searcher.settings import SearcherSettings
from services.shared import imaging
from services.shared.contracts import (
    Embedding,
    Embeddings,
    Failure,
    Filter,
    Neighbors,
    Question,
    Replies,
    Reply,
    Slip,
    codec,
)
from services.shared.errors import SimileError
from services.shared.messaging import topology
from services.shared.messaging.broker import Consumer, Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.volume.volume import Volume
from tests.support.volume import DIMENSION, MODEL, items, publish_version, unit_vectors

COUNT = 30
REPLIES = Queue(name="replies")


@dataclass
class Bench:
    """Holds a running searcher, and the queue of its answers."""

    broker: MemoryBroker
    volume: Volume
    telemetry: Telemetry
    stop: asyncio.Event
    running: asyncio.Task[None]
    replies: Consumer
    arrived: list[Replies] = field(default_factory=list)

    async def ask(self, *queries: Embedding, model_id: str = MODEL) -> None:
        """Send vectors as the embedder does."""
        message = Embeddings(model_id, DIMENSION, queries)
        await self.broker.publish(topology.SEARCH.name, Message.of(message))

    async def answer(self) -> Replies:
        """Return the next message of replies."""
        async with asyncio.timeout(20):
            (delivery,) = await self.replies.take(1)
        delivery.ack()
        message = codec.decode(delivery.type, delivery.body)
        assert isinstance(message, Replies)
        return message

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.telemetry.registry.get_sample_value(f"simile_searcher_{name}", labels) or 0.0


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Run a searcher with a collection until it is ready."""
    volume, broker = Volume(tmp_path), MemoryBroker()
    publish_version(volume, "birds", unit_vectors(COUNT), items(COUNT))
    await broker.start([*topology.ALL, REPLIES])
    telemetry, stop = Telemetry(), asyncio.Event()
    shared = SharedSettings(root=tmp_path, drain_timeout_seconds=5)
    work = run(SearcherSettings(), shared, broker, stop=stop, telemetry=telemetry)
    running = asyncio.create_task(work)
    while telemetry.health.not_ready() or "searcher" not in telemetry.health._ready:
        await asyncio.sleep(0.01)
    replies = await broker.consume(REPLIES, prefetch=16)
    bench = Bench(broker, volume, telemetry, stop, running, replies)
    yield bench
    stop.set()
    await running
    await broker.close()


def _query(
    correlation_id: str = "query",
    *,
    vector: Sequence[float] | None = None,
    collection: str = "birds",
    k: int = 10,
    max_distance: float | None = None,
    deadline_unix_ms: int = 0,
    final_reply_to: str = REPLIES.name,
) -> Embedding:
    values = unit_vectors(COUNT)[4].tolist() if vector is None else vector
    slip = Slip(
        correlation_id=correlation_id,
        reply_to=topology.SEARCH.name,
        final_reply_to=final_reply_to,
        deadline_unix_ms=deadline_unix_ms,
        question=Question(collection=collection, k=k, max_distance=max_distance),
    )
    return Embedding(slip, struct.pack(f"<{DIMENSION}f", *values), {"model": 0.01})


def _neighbors(reply: Reply) -> Neighbors:
    assert isinstance(reply.outcome, Neighbors)
    return reply.outcome


async def test_a_vector_is_answered_with_its_neighbours(bench: Bench) -> None:
    """The neighbours come nearest first, from a named version, with the time of each stage."""
    await bench.ask(_query())
    (reply,) = (await bench.answer()).items
    found = _neighbors(reply)
    assert (found.collection, found.model_id) == ("birds", MODEL)
    assert found.index_version == bench.volume.active("birds")
    assert found.neighbors[0].item_id == items(COUNT)[4].item_id
    assert len(found.neighbors) == 10
    assert list(reply.stages) == ["model", "search_queue", "search", "rerank"]


async def test_one_message_of_queries_is_one_message_of_replies(bench: Bench) -> None:
    """Answers for a replica share a message, each with its own k."""
    await bench.ask(*(_query(str(number), k=number + 1) for number in range(5)))
    replies = await bench.answer()
    assert [reply.correlation_id for reply in replies.items] == ["0", "1", "2", "3", "4"]
    assert [len(_neighbors(reply).neighbors) for reply in replies.items] == [1, 2, 3, 4, 5]


async def test_max_distance_and_a_large_k_are_obeyed(bench: Bench) -> None:
    """A limit may leave a single neighbour; a k above the count gives all."""
    await bench.ask(_query("near", max_distance=0.01), _query("all", k=100))
    near, everything = (await bench.answer()).items
    assert len(_neighbors(near).neighbors) == 1
    assert len(_neighbors(everything).neighbors) == COUNT


@pytest.mark.parametrize(
    ("query", "model_id", "code"),
    [
        (_query(collection="fish"), MODEL, "no_index"),
        (_query(), "other@1/pixels/8", "model_mismatch"),
        (_query(vector=[0.0] * DIMENSION), MODEL, "invalid_vector"),
        (_query(vector=[float("nan")] * DIMENSION), MODEL, "invalid_vector"),
    ],
    ids=["no index", "other model", "zero", "nan"],
)
async def test_a_query_that_fails_says_why_and_fails_alone(
    bench: Bench, query: Embedding, model_id: str, code: str
) -> None:
    """The failure has its code, and the next query is answered."""
    await bench.ask(query, model_id=model_id)
    (failed,) = (await bench.answer()).items
    assert isinstance(failed.outcome, Failure)
    assert failed.outcome.code == code
    await bench.ask(_query("next"))
    (reply,) = (await bench.answer()).items
    assert _neighbors(reply).neighbors


async def test_vectors_of_the_pixels_before_are_still_searched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older index answers after an upgrade that changes the pixels of few images."""
    named = {MODEL: f"old/{imaging.PIXELS}-x/8"}
    monkeypatch.setattr(answerer, "current_name", lambda name: named.get(name, name))
    await bench.ask(_query(), model_id=f"old/{imaging.PIXELS}-x/8")
    (reply,) = (await bench.answer()).items
    assert _neighbors(reply).neighbors


def test_only_the_pixels_before_are_comparable() -> None:
    """Any other difference of the model's id counts."""
    new = f"lite0@1/{imaging.PIXELS}-draft358-bicubic-256-224/1280"
    assert imaging.current_name(new) == new
    assert imaging.current_name(new.replace(imaging.PIXELS, "pillow-v1")) == new
    assert imaging.current_name(new.replace(imaging.PIXELS, "pillow-v0")) != new


async def test_expired_queries_are_not_searched(bench: Bench) -> None:
    """Expired queries are dropped and counted, and the others are answered."""
    past = time.time_ns() // 1_000_000 - 1
    await bench.ask(_query("late", deadline_unix_ms=past), _query("waited for"))
    (reply,) = (await bench.answer()).items
    assert reply.correlation_id == "waited for"
    assert bench.metric("expired_total") == 1


async def test_a_gone_replica_affects_no_other(bench: Bench) -> None:
    """An answer without a queue is dropped and counted; the other answers of the batch arrive."""
    await bench.ask(_query("gone", final_reply_to="no.such.queue"), _query("here"))
    (reply,) = (await bench.answer()).items
    assert reply.correlation_id == "here"
    assert bench.metric("unanswerable_total") == 1
    while bench.metric("queries_total", code="ok") < 2:
        await asyncio.sleep(0.01)
    assert await bench.broker.depth(topology.SEARCH.name) == 0


async def test_an_answer_that_cannot_be_encoded_fails_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The query gets `internal`; the answers beside it in the message arrive."""
    sound = Answerer.answer

    async def answer(answerer: Answerer, queries: Sequence[VectorQuery]) -> list[Reply]:
        replies = await sound(answerer, queries)
        return [
            replace(one, stages={"\udcff": 1.0}) if one.correlation_id == "odd" else one
            for one in replies
        ]

    monkeypatch.setattr(Answerer, "answer", answer)
    await bench.ask(_query("first"), _query("odd"), _query("last"))
    arrived = [reply for _ in range(3) for reply in (await bench.answer()).items]
    outcomes = {reply.correlation_id: type(reply.outcome) for reply in arrived}
    assert outcomes == {"first": Neighbors, "odd": Failure, "last": Neighbors}
    assert bench.metric("queries_total", code="internal") == 1


async def test_a_slip_beyond_its_bounds_is_left_out_of_its_message_alone(bench: Bench) -> None:
    """The other queries are answered with their own vectors; the message is quarantined."""
    vectors = unit_vectors(COUNT)
    good = [_query(str(number), vector=vectors[number].tolist()) for number in range(3)]
    long = replace(good[1], slip=replace(good[1].slip, reply_to="r" * 300))
    await bench.ask(good[0], long, good[2])
    replies = (await bench.answer()).items
    assert [reply.correlation_id for reply in replies] == ["0", "2"]
    found = [_neighbors(reply).neighbors[0].item_id for reply in replies]
    assert found == [items(COUNT)[number].item_id for number in (0, 2)]
    dead = await bench.broker.consume(topology.QUARANTINE, prefetch=1)
    (letter,) = await dead.take(1)
    assert "reply_to has 300 bytes" in letter.headers["detail"]
    assert bench.metric("undecodable_total") == 1


async def test_an_undecodable_message_is_quarantined(bench: Bench) -> None:
    """The message is quarantined with its reason, and the queue continues."""
    await bench.broker.publish(topology.SEARCH.name, Message("simile.v1.Embeddings", b"\xff"))
    await bench.ask(_query())
    await bench.answer()
    dead = await bench.broker.consume(topology.QUARANTINE, prefetch=1)
    (letter,) = await dead.take(1)
    assert letter.body == b"\xff"
    assert letter.headers["reason"] == "undecodable_message"
    assert "does not parse" in letter.headers["detail"]


async def test_a_blocked_broker_is_not_hammered(bench: Bench) -> None:
    """Under a broker's alarm a query is searched a few times a second, then answered."""
    await bench.ask(_query())
    bench.broker.block()
    while bench.metric("given_back_total") < 2:
        await asyncio.sleep(0.01)
    bench.broker.unblock()
    assert (await bench.answer()).items
    assert bench.metric("given_back_total") <= 8
    while bench.metric("queries_total", code="ok") < 1:
        await asyncio.sleep(0.01)


async def test_a_lost_connection_is_survived(bench: Bench) -> None:
    """After a cut the searcher consumes again by itself."""
    bench.broker.sever()
    bench.replies = await bench.broker.consume(REPLIES, prefetch=16)
    await bench.ask(_query())
    assert (await bench.answer()).items


async def test_without_an_index_the_searcher_is_unready(bench: Bench) -> None:
    """Readiness shows no_index once the last collection is gone."""
    (bench.volume.root / "birds" / "ACTIVE").unlink()
    async with asyncio.timeout(20):
        while "searcher" not in bench.telemetry.health.not_ready():
            await asyncio.sleep(0.05)
    assert "no_index" in bench.telemetry.health.not_ready()["searcher"]


async def test_stopping_answers_what_was_taken(bench: Bench) -> None:
    """Queries that were taken before the stop are answered, and `run` returns."""
    for number in range(20):
        await bench.ask(_query(str(number)))
    await asyncio.sleep(0)
    bench.stop.set()
    async with asyncio.timeout(20):
        await bench.running
    left, arrived = await bench.broker.depth(topology.SEARCH.name), 0
    while arrived + left < 20:
        arrived += len((await bench.answer()).items)
    assert arrived + left == 20


def test_vectors_are_little_endian() -> None:
    """The bytes of a message are read as little-endian on any machine."""
    from services.searcher.index.index import as_vector  # noqa: PLC0415 (used once)

    assert np.array_equal(as_vector(struct.pack("<2f", 0.6, 0.8)), np.array([0.6, 0.8], "f4"))


async def test_a_batch_of_several_collections_is_answered_from_each(bench: Bench) -> None:
    """Queries of different collections share a message, and each index answers its own."""
    publish_version(bench.volume, "fish", unit_vectors(9), items(9, prefix="fish"))
    async with asyncio.timeout(20):
        while bench.metric("index_recall", collection="fish") == 0:
            await asyncio.sleep(0.05)
    await bench.ask(_query("a"), _query("b", collection="fish"), _query("c"))
    outcomes = dict[str, str]()
    while len(outcomes) < 3:
        for reply in (await bench.answer()).items:
            outcomes[reply.correlation_id] = _neighbors(reply).collection
    assert outcomes == {"a": "birds", "b": "fish", "c": "birds"}


@pytest.mark.parametrize(
    ("quick_bytes", "asked", "in_loop"),
    [
        (engine.QUICK_BYTES, Question(collection="birds"), True),
        (engine.QUICK_BYTES, Question(collection="birds", filter=Filter(("label 1",))), False),
        (COUNT * DIMENSION * 4, Question(collection="birds", k=11), False),
        (COUNT * DIMENSION * 4 - 1, Question(collection="birds"), False),
    ],
    ids=["a plain question", "a filter", "many neighbours", "a large collection"],
)
async def test_only_what_is_quick_is_searched_in_the_event_loop(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    quick_bytes: int,
    asked: Question,
    in_loop: bool,  # noqa: FBT001 (a case of the parametrization)
) -> None:
    """A small collection is searched faster than a thread starts; other searches run in threads."""
    monkeypatch.setattr(engine, "QUICK_BYTES", quick_bytes)
    real, threads = Finder.find, list[threading.Thread]()

    def find(*arguments: Any) -> list[Neighbors | SimileError]:
        threads.append(threading.current_thread())
        return real(*arguments)

    monkeypatch.setattr(Finder, "find", find)
    query = _query()
    await bench.ask(replace(query, slip=replace(query.slip, question=asked)))
    assert (await bench.answer()).items
    assert [one is threading.main_thread() for one in threads] == [in_loop]


async def test_an_index_written_to_is_never_answered_from(bench: Bench) -> None:
    """A file changed in place closes the index by name; a valid version then answers again."""
    file = bench.volume.directory("birds", bench.volume.active("birds")) / "vectors.f32"
    file.chmod(0o644)
    with file.open("r+b") as content:
        content.write(b"\1" * 64)
    await bench.ask(_query())
    (reply,) = (await bench.answer()).items
    assert isinstance(reply.outcome, Failure)
    assert reply.outcome.code == "no_index"
    assert "written to" in reply.outcome.detail
    assert "no_index" in bench.telemetry.health.not_ready()["searcher"]
    publish_version(bench.volume, "birds", unit_vectors(COUNT), items(COUNT), number=9)
    async with asyncio.timeout(20):
        while "searcher" in bench.telemetry.health.not_ready():
            await asyncio.sleep(0.05)
    await bench.ask(_query())
    (reply,) = (await bench.answer()).items
    assert _neighbors(reply).neighbors
