"""The searcher service turns messages of vectors into replies, and survives faults."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.searcher import answerer
from services.searcher.answerer import Answerer, VectorQuery
from services.searcher.index import engine
from services.searcher.index.finder import Finder
from services.shared import imaging
from services.shared.contracts import (
    Embedding,
    Failure,
    Filter,
    Neighbors,
    Question,
    Reply,
    Slip,
)
from services.shared.errors import SimileError
from services.shared.messaging import topology
from services.shared.messaging.broker import Message
from tests.support.running_searcher import COUNT, REPLIES, RunningSearcher, running_searcher
from tests.support.volume import DIMENSION, MODEL, items, publish_version, unit_vectors


@pytest.fixture
async def searcher(tmp_path: Path) -> AsyncIterator[RunningSearcher]:
    """Run a searcher with a collection until it is ready."""
    async with running_searcher(tmp_path) as running:
        yield running


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


async def test_a_vector_is_answered_with_its_neighbours(searcher: RunningSearcher) -> None:
    """The neighbours come nearest first, from a named version, with the time of each stage."""
    await searcher.ask(_query())
    (reply,) = (await searcher.answer()).items
    found = _neighbors(reply)
    assert (found.collection, found.model_id) == ("birds", MODEL)
    assert found.index_version == searcher.volume.active("birds")
    assert found.neighbors[0].item_id == items(COUNT)[4].item_id
    assert len(found.neighbors) == 10
    assert list(reply.stages) == ["model", "search_queue", "search", "rerank"]


async def test_one_message_of_queries_is_one_message_of_replies(searcher: RunningSearcher) -> None:
    """Answers for a replica share a message, each with its own k."""
    await searcher.ask(*(_query(str(number), k=number + 1) for number in range(5)))
    replies = await searcher.answer()
    assert [reply.correlation_id for reply in replies.items] == ["0", "1", "2", "3", "4"]
    assert [len(_neighbors(reply).neighbors) for reply in replies.items] == [1, 2, 3, 4, 5]


async def test_max_distance_and_a_large_k_are_obeyed(searcher: RunningSearcher) -> None:
    """A limit may leave a single neighbour; a k above the count gives all."""
    await searcher.ask(_query("near", max_distance=0.01), _query("all", k=100))
    near, everything = (await searcher.answer()).items
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
    searcher: RunningSearcher, query: Embedding, model_id: str, code: str
) -> None:
    """The failure has its code, and the next query is answered."""
    await searcher.ask(query, model_id=model_id)
    (failed,) = (await searcher.answer()).items
    assert isinstance(failed.outcome, Failure)
    assert failed.outcome.code == code
    await searcher.ask(_query("next"))
    (reply,) = (await searcher.answer()).items
    assert _neighbors(reply).neighbors


async def test_vectors_of_the_pixels_before_are_still_searched(
    searcher: RunningSearcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older index answers after an upgrade that changes the pixels of few images."""
    named = {MODEL: f"old/{imaging.PIXELS}-x/8"}
    monkeypatch.setattr(answerer, "current_name", lambda name: named.get(name, name))
    await searcher.ask(_query(), model_id=f"old/{imaging.PIXELS}-x/8")
    (reply,) = (await searcher.answer()).items
    assert _neighbors(reply).neighbors


def test_only_the_pixels_before_are_comparable() -> None:
    """Any other difference of the model's id counts."""
    new = f"lite0@1/{imaging.PIXELS}-draft358-bicubic-256-224/1280"
    assert imaging.current_name(new) == new
    assert imaging.current_name(new.replace(imaging.PIXELS, "pillow-v1")) == new
    assert imaging.current_name(new.replace(imaging.PIXELS, "pillow-v0")) != new


async def test_expired_queries_are_not_searched(searcher: RunningSearcher) -> None:
    """Expired queries are dropped and counted, and the others are answered."""
    past = time.time_ns() // 1_000_000 - 1
    await searcher.ask(_query("late", deadline_unix_ms=past), _query("waited for"))
    (reply,) = (await searcher.answer()).items
    assert reply.correlation_id == "waited for"
    assert searcher.metric("expired_total") == 1


async def test_a_gone_replica_affects_no_other(searcher: RunningSearcher) -> None:
    """An answer without a queue is dropped and counted; the other answers of the batch arrive."""
    await searcher.ask(_query("gone", final_reply_to="no.such.queue"), _query("here"))
    (reply,) = (await searcher.answer()).items
    assert reply.correlation_id == "here"
    assert searcher.metric("unanswerable_total") == 1
    while searcher.metric("queries_total", code="ok") < 2:
        await asyncio.sleep(0.01)
    assert await searcher.broker.depth(topology.SEARCH.name) == 0


async def test_an_answer_that_cannot_be_encoded_fails_alone(
    searcher: RunningSearcher, monkeypatch: pytest.MonkeyPatch
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
    await searcher.ask(_query("first"), _query("odd"), _query("last"))
    arrived = [reply for _ in range(3) for reply in (await searcher.answer()).items]
    outcomes = {reply.correlation_id: type(reply.outcome) for reply in arrived}
    assert outcomes == {"first": Neighbors, "odd": Failure, "last": Neighbors}
    assert searcher.metric("queries_total", code="internal") == 1


async def test_a_slip_beyond_its_bounds_is_left_out_of_its_message_alone(
    searcher: RunningSearcher,
) -> None:
    """The other queries are answered with their own vectors; the message is quarantined."""
    vectors = unit_vectors(COUNT)
    good = [_query(str(number), vector=vectors[number].tolist()) for number in range(3)]
    long = replace(good[1], slip=replace(good[1].slip, reply_to="r" * 300))
    await searcher.ask(good[0], long, good[2])
    replies = (await searcher.answer()).items
    assert [reply.correlation_id for reply in replies] == ["0", "2"]
    found = [_neighbors(reply).neighbors[0].item_id for reply in replies]
    assert found == [items(COUNT)[number].item_id for number in (0, 2)]
    dead = await searcher.broker.consume(topology.QUARANTINE, prefetch=1)
    (letter,) = await dead.take(1)
    assert "reply_to has 300 bytes" in letter.headers["detail"]
    assert searcher.metric("undecodable_total") == 1


async def test_an_undecodable_message_is_quarantined(searcher: RunningSearcher) -> None:
    """The message is quarantined with its reason, and the queue continues."""
    await searcher.broker.publish(topology.SEARCH.name, Message("simile.v1.Embeddings", b"\xff"))
    await searcher.ask(_query())
    await searcher.answer()
    dead = await searcher.broker.consume(topology.QUARANTINE, prefetch=1)
    (letter,) = await dead.take(1)
    assert letter.body == b"\xff"
    assert letter.headers["reason"] == "undecodable_message"
    assert "does not parse" in letter.headers["detail"]


async def test_a_blocked_broker_is_not_hammered(searcher: RunningSearcher) -> None:
    """Under a broker's alarm a query is searched a few times a second, then answered."""
    await searcher.ask(_query())
    searcher.broker.block()
    while searcher.metric("given_back_total") < 2:
        await asyncio.sleep(0.01)
    searcher.broker.unblock()
    assert (await searcher.answer()).items
    assert searcher.metric("given_back_total") <= 8
    while searcher.metric("queries_total", code="ok") < 1:
        await asyncio.sleep(0.01)


async def test_a_lost_connection_is_survived(searcher: RunningSearcher) -> None:
    """After a cut the searcher consumes again by itself."""
    searcher.broker.sever()
    searcher.replies = await searcher.broker.consume(REPLIES, prefetch=16)
    await searcher.ask(_query())
    assert (await searcher.answer()).items


async def test_without_an_index_the_searcher_is_unready(searcher: RunningSearcher) -> None:
    """Readiness shows no_index once the last collection is gone."""
    (searcher.volume.root / "birds" / "ACTIVE").unlink()
    async with asyncio.timeout(20):
        while "searcher" not in searcher.telemetry.health.not_ready():
            await asyncio.sleep(0.05)
    assert "no_index" in searcher.telemetry.health.not_ready()["searcher"]


async def test_stopping_answers_what_was_taken(searcher: RunningSearcher) -> None:
    """Queries that were taken before the stop are answered, and `run` returns."""
    for number in range(20):
        await searcher.ask(_query(str(number)))
    await asyncio.sleep(0)
    searcher.stop.set()
    async with asyncio.timeout(20):
        await searcher.running
    left, arrived = await searcher.broker.depth(topology.SEARCH.name), 0
    while arrived + left < 20:
        arrived += len((await searcher.answer()).items)
    assert arrived + left == 20


def test_vectors_are_little_endian() -> None:
    """The bytes of a message are read as little-endian on any machine."""
    from services.searcher.index.index import as_vector  # noqa: PLC0415 (used once)

    assert np.array_equal(as_vector(struct.pack("<2f", 0.6, 0.8)), np.array([0.6, 0.8], "f4"))


async def test_a_batch_of_several_collections_is_answered_from_each(
    searcher: RunningSearcher,
) -> None:
    """Queries of different collections share a message, and each index answers its own."""
    publish_version(searcher.volume, "fish", unit_vectors(9), items(9, prefix="fish"))
    async with asyncio.timeout(20):
        while searcher.metric("index_recall", collection="fish") == 0:
            await asyncio.sleep(0.05)
    await searcher.ask(_query("a"), _query("b", collection="fish"), _query("c"))
    outcomes = dict[str, str]()
    while len(outcomes) < 3:
        for reply in (await searcher.answer()).items:
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
    searcher: RunningSearcher,
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
    await searcher.ask(replace(query, slip=replace(query.slip, question=asked)))
    assert (await searcher.answer()).items
    assert [one is threading.main_thread() for one in threads] == [in_loop]


async def test_an_index_written_to_is_never_answered_from(searcher: RunningSearcher) -> None:
    """A file changed in place closes the index by name; a valid version then answers again."""
    file = searcher.volume.directory("birds", searcher.volume.active("birds")) / "vectors.f32"
    file.chmod(0o644)
    with file.open("r+b") as content:
        content.write(b"\1" * 64)
    await searcher.ask(_query())
    (reply,) = (await searcher.answer()).items
    assert isinstance(reply.outcome, Failure)
    assert reply.outcome.code == "no_index"
    assert "written to" in reply.outcome.detail
    assert "no_index" in searcher.telemetry.health.not_ready()["searcher"]
    publish_version(searcher.volume, "birds", unit_vectors(COUNT), items(COUNT), number=9)
    async with asyncio.timeout(20):
        while "searcher" in searcher.telemetry.health.not_ready():
            await asyncio.sleep(0.05)
    await searcher.ask(_query())
    (reply,) = (await searcher.answer()).items
    assert _neighbors(reply).neighbors
