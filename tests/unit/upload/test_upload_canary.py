"""Upload's canary chooses its query, is counted apart, and affects readiness."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.shared import imaging
from services.shared.canary import Canary, CanaryMetrics
from services.shared.lifecycle import cancel
from services.shared.messaging.broker import Message
from services.shared.messaging.request_reply import Inbox
from services.shared.telemetry.health import lasting
from services.shared.volume.items import Item
from services.shared.volume.volume import Volume
from services.upload.canary import CanaryChoice, ReplyPathCheck
from services.upload.collections import CollectionReader
from services.upload.settings import UploadSettings
from services.upload.stored_images import StoredImages
from tests.support.pictures import plain_jpeg
from tests.support.volume import items, publish_version, unit_vectors
from tests.unit.upload.conftest import COUNT, Api

LIMITS = imaging.Limits(2**20, 1_000_000, 100.0)


def _true_items(images: Path) -> list[Item]:
    """Return the collection's items with the true hashes of their files."""
    true = []
    for item in items(COUNT):
        content = (images / item.path).read_bytes()
        true.append(replace(item, sha256=hashlib.sha256(content).hexdigest()))
    return true


def _collections(volume: Volume, default: str | None = None) -> CollectionReader:
    return CollectionReader(
        volume,
        default_collection=default,
        images=StoredImages(None, thumbnail_pixels=64, thumbnail_cache_bytes=0),
    )


@dataclass
class Tried:
    """Holds a canary of the service under test, which the test runs."""

    api: Api
    registry: CollectorRegistry
    inbox: Inbox
    canary: Canary
    collections: CollectionReader
    metrics: CanaryMetrics

    def count(self, asked_by: str, code: str) -> float:
        """Return the number of canaries with that code."""
        labels = {"asked_by": asked_by, "code": code}
        return self.registry.get_sample_value("simile_upload_canary_total", labels) or 0.0


def _canary(
    inbox: Inbox,
    metrics: CanaryMetrics,
    collections: CollectionReader,
    check: ReplyPathCheck,
    timeout_seconds: float,
) -> Canary:
    choose = CanaryChoice(collections, "replica-1", LIMITS).choose
    return Canary(
        inbox, metrics, choose, check.judge, period_seconds=1, timeout_seconds=timeout_seconds
    )


@pytest.fixture
async def tried(api: Api) -> AsyncIterator[Tried]:
    """Run a canary beside the service, on the same broker and volume."""
    publish_version(
        api.volume, "birds", unit_vectors(COUNT), _true_items(api.images),
        images_root=api.images, number=1,
    )  # fmt: skip
    registry, collections = CollectorRegistry(), _collections(api.volume)
    inbox = Inbox(api.broker, "replica-1")
    running = asyncio.create_task(inbox.run())
    await inbox.opened()
    check = ReplyPathCheck(api.broker, inbox)
    metrics = CanaryMetrics("upload", registry)
    canary = _canary(inbox, metrics, collections, check, 20)
    yield Tried(api, registry, inbox, canary, collections, metrics)
    await cancel(running)


async def test_a_canary_sends_no_image_that_embedders_refuse(tried: Tried) -> None:
    """A build admits larger images than callers may send; the canary then sends a vector."""
    for limits in (
        dataclasses.replace(LIMITS, max_bytes=10),
        dataclasses.replace(LIMITS, max_pixels=9),
    ):
        known = await CanaryChoice(tried.collections, "replica-9", limits).choose()
        assert known is not None
        assert known.asked_by == "vector"


async def test_a_canary_sends_an_items_own_image(tried: Tried) -> None:
    """The stored bytes go through the embedder, the same bytes each time for a replica."""
    await tried.canary.ask()
    await tried.canary.ask()
    first, second = tried.api.embedder.embedded
    stored = [(tried.api.images / item.path).read_bytes() for item in items(COUNT)]
    assert first == second
    assert first in stored
    assert tried.count("image", "ok") == 2
    other = await CanaryChoice(tried.collections, "replica-9", LIMITS).choose()
    again = await CanaryChoice(tried.collections, "replica-9", LIMITS).choose()
    assert other is not None
    assert again is not None
    assert other.item_id == again.item_id


async def test_a_canary_does_not_count_as_a_query(tried: Tried) -> None:
    """A canary is in no metric of queries, and caches no vector."""
    await tried.canary.ask()
    registry = tried.api.telemetry.registry
    labels = {"result": "miss"}
    assert not registry.get_sample_value("simile_upload_embedding_cache_total", labels)
    assert not registry.get_sample_value("simile_upload_stage_seconds_count", {"stage": "search"})
    assert tried.api.searcher.slips[-1].canary
    assert not tried.api.searcher.slips[-1].return_vector


async def test_missing_or_changed_images_are_not_sent(tried: Tried) -> None:
    """The canary then sends a stored vector, which does not test the embedders."""
    for number, item in enumerate(items(COUNT)):
        file = tried.api.images / item.path
        if number % 2:
            file.unlink()
        else:
            file.write_bytes(plain_jpeg((1, 2, 3)))
    await tried.canary.ask()
    assert tried.api.embedder.embedded == []
    assert tried.count("vector", "ok") == 1


async def test_without_an_embedder_canaries_fail_and_the_replica_stays_ready(tried: Tried) -> None:
    """No replica is better than another then, and a 503 with a reason beats no replica."""
    tried.api.embedder.ignoring = {
        (tried.api.images / item.path).read_bytes() for item in items(COUNT)
    }
    check = ReplyPathCheck(tried.api.broker, tried.inbox)
    canary = _canary(tried.inbox, tried.metrics, tried.collections, check, 0.05)
    for _ in range(4):
        await canary.ask()
    assert tried.count("image", "deadline_exceeded") == 4
    assert canary.unready is None


async def test_a_replica_whose_reply_queue_gets_nothing_is_unready(
    tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is in the replica's own part of the path, so another replica works better."""
    publish = tried.api.broker.publish

    async def lose_replies(queue: str, message: Message) -> None:
        if queue != tried.inbox.queue:
            await publish(queue, message)

    check = ReplyPathCheck(tried.api.broker, tried.inbox, timeout_seconds=0.05)
    metrics = CanaryMetrics("upload", CollectorRegistry())
    canary = _canary(tried.inbox, metrics, tried.collections, check, 0.05)
    with monkeypatch.context() as lossy:
        lossy.setattr(tried.api.broker, "publish", lose_replies)
        for _ in range(3):
            await canary.ask()
    assert canary.unready is not None
    async with asyncio.timeout(20):
        while canary.unready is not None:  # an answer may take longer than the canary's timeout
            await canary.ask()


async def test_a_broker_that_is_away_leaves_no_verdict(tried: Tried) -> None:
    """Another check reports the broker; the replica is ready as soon as the broker is back."""
    tried.api.broker.block()
    for _ in range(4):
        await tried.canary.ask()
    tried.api.broker.unblock()
    assert tried.count("image", "broker_unavailable") == 4
    assert tried.canary.unready is None


async def test_a_canary_follows_the_queries(tried: Tried) -> None:
    """The canary uses the collection of the last query, else the default or the first, if any."""
    volume = tried.api.volume
    publish_version(volume, "apes", unit_vectors(4), items(4, prefix="ape"))

    async def chosen(collections: CollectionReader) -> str | None:
        known = await CanaryChoice(collections, "replica", LIMITS).choose()
        return None if known is None else known.collection

    assert await chosen(_collections(volume)) == "apes"
    collections = _collections(volume, "birds")
    assert await chosen(collections) == "birds"
    await collections.open("apes")
    assert await chosen(collections) == "apes"
    (volume.root / "apes" / "ACTIVE").unlink()
    assert await chosen(collections) == "birds"
    (volume.root / "birds" / "ACTIVE").unlink()
    assert await chosen(collections) is None


class TestWithoutReplyQueue:
    """Tests a replica whose reply queue can't be opened for long."""

    @pytest.fixture
    def upload_settings(self, monkeypatch: pytest.MonkeyPatch) -> UploadSettings:
        """Return settings, and let a moment without a reply queue count as long."""
        monkeypatch.setattr("services.upload.app.lasting", lambda check, _: lasting(check, 0.0))
        return UploadSettings(port=0)

    async def test_no_reply_queue_though_there_is_a_broker_is_not_live(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only a restart may help then; an absent broker is no reason for a restart."""

        async def never(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        health = api.telemetry.health
        assert not health.not_live()
        monkeypatch.setattr(api.broker, "consume", never)
        api.broker.sever()
        async with asyncio.timeout(20):
            while "reply queue" not in health.not_live():
                await asyncio.sleep(0.01)
        api.broker.block()
        assert not health.not_live()
        assert not health.not_ready()
