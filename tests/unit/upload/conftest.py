"""The API over a broker in memory, with stand-ins behind it and a small collection."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from PIL import Image

from services.shared.collection import Item, Volume
from services.shared.contracts import Embeddings, Neighbor, Neighbors, Replies, Reply, codec
from services.shared.lifecycle import cancel
from services.shared.messaging import topology
from services.shared.messaging.broker import Message
from services.shared.messaging.memory import MemoryBroker
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.upload.app import run
from services.upload.settings import UploadSettings
from tests.support.fake_embedder import FakeEmbedder, fake_embedder
from tests.support.pictures import plain_jpeg
from tests.support.volume import items, publish_version, unit_vectors

COUNT = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any


@dataclass
class Api:
    """A running upload service and its surroundings."""

    url: str
    session: aiohttp.ClientSession
    broker: MemoryBroker
    embedder: FakeEmbedder
    volume: Volume
    images: Path
    telemetry: Telemetry
    stop: asyncio.Event
    running: asyncio.Task[None]

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """One request."""
        async with self.session.request(method, f"{self.url}{path}", **options) as answer:
            body = await answer.read()
            parsed = await answer.json(content_type=None) if "json" in answer.content_type else None
            return Answer(answer.status, answer.headers, body, parsed)

    async def get(self, path: str, **options: Any) -> Answer:
        """GET."""
        return await self.ask("GET", path, **options)

    async def search(self, image: Any, path: str = "/v1/search", **options: Any) -> Answer:
        """POST an image, or a stream of bytes, as the body."""
        body = io.BytesIO(image) if isinstance(image, bytes) else image
        return await self.ask("POST", path, data=body, **options)

    @property
    def items(self) -> list[Item]:
        """The collection's items."""
        return items(COUNT)


class FakeSearcher:
    """Answers every vector with the collection's first items, the nearest at no distance."""

    def __init__(self, broker: MemoryBroker, volume: Volume) -> None:
        self._broker = broker
        self._volume = volume

    async def serve(self) -> None:
        """Answer for ever."""
        consumer = await self._broker.consume(topology.SEARCH, prefetch=16)
        while True:
            for delivery in await consumer.take(16):
                message = codec.decode(delivery.type, delivery.body)
                assert isinstance(message, Embeddings)
                for item in message.items:
                    slip = item.slip
                    stages = {**item.stages, "search": 0.003}
                    reply = Reply(slip.correlation_id, self._found(slip.collection, slip.k), stages)
                    await self._broker.publish(slip.final_reply_to, Message.of(Replies((reply,))))
                delivery.ack()

    def _found(self, collection: str, k: int) -> Neighbors:
        manifest = self._volume.manifest(collection, self._volume.active(collection))
        neighbors = tuple(
            Neighbor(
                one.item_id, one.label, one.attributes, 0.1 * one.position, 1 - one.position / 20
            )
            for one in items(COUNT)[:k]
        )
        return Neighbors(collection, manifest.version, manifest.model_id, neighbors)


def write_images(folder: Path) -> None:
    """The images of the collection, as JPEG under their items' names."""
    folder.mkdir()
    for item in items(COUNT):
        (folder / item.path).write_bytes(plain_jpeg((20 * item.position, 90, 40), (600, 400)))


@pytest.fixture
def upload_settings() -> UploadSettings:
    """Settings of the service; a test may override the fixture."""
    return UploadSettings(port=0, deadline_seconds=10)


@pytest.fixture
async def api(tmp_path: Path, upload_settings: UploadSettings) -> AsyncIterator[Api]:
    """The service with embedder and searcher stand-ins, serving `birds`."""
    images, volume, broker = tmp_path / "images", Volume(tmp_path / "root"), MemoryBroker()
    write_images(images)
    publish_version(volume, "birds", unit_vectors(COUNT), items(COUNT), images_root=images)
    await broker.start(topology.ALL)
    telemetry, stop = Telemetry(), asyncio.Event()
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    shared = SharedSettings(root=volume.root, drain_timeout_seconds=10)
    work = run(upload_settings, shared, broker, stop=stop, telemetry=telemetry, started=started)
    running = asyncio.create_task(work)
    searching = asyncio.create_task(FakeSearcher(broker, volume).serve())
    url = await started
    async with aiohttp.ClientSession() as session, fake_embedder(broker, topology.EMBED) as fake:
        while telemetry.health.not_ready():
            await asyncio.sleep(0.01)
        yield Api(url, session, broker, fake, volume, images, telemetry, stop, running)
        stop.set()
        await running
    await cancel(searching)
    await broker.close()


@pytest.fixture
def picture() -> bytes:
    """An image to search by."""
    out = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()
