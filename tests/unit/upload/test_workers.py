"""Queries without a consumer are refused at once, until a consumer appears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import pytest

from services.shared.contracts import EmbedRequest, Slip
from services.shared.errors import NoEmbedder, NoSearcher
from services.shared.messaging import topology
from services.shared.messaging.broker import Message
from services.shared.messaging.memory import MemoryBroker
from services.upload.search.workers import Workers
from services.upload.settings import UploadSettings
from tests.support.clock import Clock
from tests.support.fake_embedder import fake_embedder
from tests.unit.upload.conftest import Api, form_of, refused

EMBED, SEARCH = topology.EMBED.name, topology.SEARCH.name
GRACE_SECONDS = 2.0


@dataclass
class Consumers:
    """Holds a broker whose queues have no consumers, and a clock."""

    broker: MemoryBroker
    clock: Clock

    def workers(self, start_seconds: float = 0.0) -> Workers:
        """Return the replica's watch of the consumers."""
        return Workers(
            self.broker,
            embedder_start_seconds=start_seconds,
            grace_seconds=GRACE_SECONDS,
            clock=self.clock,
        )

    async def absent(self, workers: Workers) -> None:
        """Check the queues until their consumers have been missing for long enough."""
        await workers.look()
        self.clock.now += GRACE_SECONDS
        await workers.look()


@pytest.fixture
async def consumers() -> AsyncIterator[Consumers]:
    """Return a broker with every queue declared."""
    broker = MemoryBroker()
    await broker.start(topology.ALL)
    yield Consumers(broker, Clock())
    await broker.close()


async def test_a_queue_without_consumers_is_named(consumers: Consumers) -> None:
    """Missing embedders and missing searchers have distinct errors with a time to retry."""
    workers = consumers.workers()
    await consumers.absent(workers)
    with pytest.raises(NoEmbedder) as embedder:
        await workers.require(EMBED)
    with pytest.raises(NoSearcher) as searcher:
        await workers.require(SEARCH)
    assert embedder.value.retry_after_seconds == searcher.value.retry_after_seconds == 5
    await workers.require("simile.reply.upload-1.x")


async def test_a_worker_that_is_replaced_is_waited_for(consumers: Consumers) -> None:
    """Queries that arrive between two embedders of a rolling update wait in the queue."""
    workers = consumers.workers()
    await workers.look()
    consumers.clock.now += GRACE_SECONDS - 0.1
    await workers.look()
    await workers.require(EMBED)
    await consumers.broker.consume(topology.EMBED, prefetch=1)
    await workers.look()
    consumers.clock.now += 10 * GRACE_SECONDS
    await workers.require(EMBED)


async def test_the_first_embedder_is_seen_by_the_next_check(consumers: Consumers) -> None:
    """The refusals end when the first embedder consumes."""
    workers = consumers.workers()
    await consumers.absent(workers)
    await consumers.broker.consume(topology.EMBED, prefetch=1)
    await workers.look()
    await workers.require(EMBED)


async def test_a_refusal_follows_a_fresh_check(consumers: Consumers) -> None:
    """A caller that saw a worker become ready is not refused for an older state."""
    workers = consumers.workers()
    await consumers.absent(workers)
    await consumers.broker.consume(topology.EMBED, prefetch=1)
    consumers.clock.now += 0.1
    await workers.require(EMBED)


async def test_a_broker_that_is_away_is_no_sign(consumers: Consumers) -> None:
    """Consumers return a moment after the broker, so their absence is unknown until then."""
    workers = consumers.workers()
    await consumers.absent(workers)
    await consumers.broker.close()
    await workers.look()
    await workers.require(EMBED)
    await consumers.broker.start(topology.ALL)
    await workers.look()
    await workers.require(EMBED)


async def test_one_query_waits_for_the_autoscaler(consumers: Consumers) -> None:
    """When embedders scale to zero, a single message in the queue starts one."""
    workers = consumers.workers(start_seconds=29.5)
    await consumers.absent(workers)
    with pytest.raises(NoEmbedder, match="30 s") as refusal:
        await workers.require(EMBED)
    assert refusal.value.retry_after_seconds == 30
    slip = Slip(correlation_id="query", reply_to="r", final_reply_to="r")
    message = Message.of(EmbedRequest(slip, b"image"))
    for _ in range(3):
        await workers.wake(EMBED, message)
        await workers.look()
    assert await consumers.broker.depth(EMBED) == 1


async def test_where_an_embedder_always_runs_nothing_is_left_in_the_queue(
    consumers: Consumers,
) -> None:
    """No embedder would take the message before its caller has gone."""
    workers = consumers.workers()
    await consumers.absent(workers)
    await workers.wake(EMBED, Message("simile.v1.EmbedRequest", b""))
    assert await consumers.broker.depth(EMBED) == 0


class TestNoEmbedder:
    """Tests a service without embedders, whose absence is noticed at once."""

    @pytest.fixture
    def upload_settings(self, monkeypatch: pytest.MonkeyPatch) -> UploadSettings:
        """Return settings, and allow no time without consumers."""
        impatient = partial(Workers, grace_seconds=0.0)
        monkeypatch.setattr("services.upload.app.Workers", impatient)
        return UploadSettings(port=0)

    async def test_a_query_is_refused_before_its_deadline(self, api: Api, picture: bytes) -> None:
        """Images, batches and vectors get 503 with a code of its own and Retry-After."""
        await _until_code(api, picture, None)
        api.broker.lose_consumers(EMBED)
        other = picture + b"\0"
        await _until_code(api, other, "no_embedder")
        answer = await api.search(other)
        refused(answer, 503, "no_embedder")
        assert answer.headers["Retry-After"] == "5"
        refused(await api.search(other, "/v1/embed"), 503, "no_embedder")
        batch = await api.ask("POST", "/v1/search/batch", data=form_of(other, other))
        codes = [result["problem"]["code"] for result in batch.json["results"]]
        assert codes == ["no_embedder"] * 2
        # Cached vectors need no embedder.
        assert (await api.search(picture)).status == 200
        item = api.items[0].item_id
        assert (await api.get(f"/v1/items/birds/{item}/similar")).status == 200
        async with fake_embedder(api.broker, topology.EMBED):
            await _until_code(api, other, None)

    async def test_without_a_searcher_every_query_is_refused(
        self, api: Api, picture: bytes
    ) -> None:
        """The vectors of images can be computed without a searcher."""
        await _until_code(api, picture, None)
        api.broker.lose_consumers(SEARCH)
        await _until_code(api, picture, "no_searcher")
        item = api.items[0].item_id
        refused(await api.get(f"/v1/items/birds/{item}/similar"), 503, "no_searcher")
        assert (await api.search(picture, "/v1/embed")).status == 200


async def _until_code(api: Api, picture: bytes, code: str | None) -> None:
    """Send queries until the answer has the code, or none; the queries have a short deadline."""
    async with asyncio.timeout(20):
        while True:
            answer = await api.search(picture, headers={"Request-Timeout": "1"})
            if answer.json.get("code") == code:
                return
