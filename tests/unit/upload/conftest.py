"""Runs the API over a broker in memory, with fake services behind it and a small collection."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from services.shared.contracts import (
    Embeddings,
    Failure,
    Neighbor,
    Neighbors,
    Question,
    Replies,
    Reply,
    Slip,
    codec,
)
from services.shared.lifecycle import cancel
from services.shared.messaging import topology
from services.shared.messaging.broker import Message
from services.shared.messaging.memory import MemoryBroker
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.volume.items import Item
from services.shared.volume.volume import Volume
from services.upload import app as upload
from services.upload.settings import UploadSettings
from tests.support.fake_embedder import FakeEmbedder, fake_embedder
from tests.support.pictures import plain_jpeg
from tests.support.volume import MODEL, items, publish_version, unit_vectors

COUNT = 12
OPENAPI = json.loads(Path(upload.__file__).with_name("openapi.json").read_text())


@dataclass(frozen=True, slots=True)
class Answer:
    """Holds an HTTP answer that was read completely."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any


@dataclass
class Api:
    """Holds a running upload service, the fakes around it, and an HTTP client."""

    url: str
    session: aiohttp.ClientSession
    broker: MemoryBroker
    embedder: FakeEmbedder
    searcher: FakeSearcher
    volume: Volume
    images: Path
    telemetry: Telemetry
    stop: asyncio.Event
    running: asyncio.Task[None]

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request, and return its answer."""
        async with self.session.request(method, f"{self.url}{path}", **options) as answer:
            body = await answer.read()
            parsed = await answer.json(content_type=None) if "json" in answer.content_type else None
            return Answer(answer.status, answer.headers, body, parsed)

    async def get(self, path: str, **options: Any) -> Answer:
        """Send a GET request."""
        return await self.ask("GET", path, **options)

    async def search(self, image: Any, path: str = "/v1/search", **options: Any) -> Answer:
        """POST an image, or a stream of bytes, as the body."""
        body = io.BytesIO(image) if isinstance(image, bytes) else image
        return await self.ask("POST", path, data=body, **options)

    @property
    def items(self) -> list[Item]:
        """Return the collection's items."""
        return items(COUNT)


class FakeSearcher:
    """Answers every vector with the collection's first items, the nearest at distance 0.

    Answers have pages like the searcher's; with collapse, each neighbour folds the last item.
    """

    def __init__(self, broker: MemoryBroker, volume: Volume) -> None:
        self._broker = broker
        self._volume = volume
        self.slips: list[Slip] = []
        self.vectors: list[list[float]] = []
        self.model_id = MODEL
        self.sends_paths = True
        self.leaves_out_all = False
        self.close_above: float | None = None

    @property
    def asked(self) -> Question:
        """Return the question of the latest query."""
        return self.slips[-1].question

    async def serve(self) -> None:
        """Answer vectors until cancelled."""
        consumer = await self._broker.consume(topology.SEARCH, prefetch=16)
        while True:
            for delivery in await consumer.take(16):
                message = codec.decode(delivery.type, delivery.body)
                assert isinstance(message, Embeddings)
                for item in message.items:
                    slip = item.slip
                    self.slips.append(slip)
                    self.vectors.append(np.frombuffer(item.vector, "<f4").tolist())
                    stages = {**item.stages, "search": 0.003}
                    found = self._found(slip.question)
                    if message.model_id != self.model_id:
                        found = Failure("model_mismatch", "the index is of another model")
                    vector = item.vector if slip.return_vector else b""
                    reply = Reply(slip.correlation_id, found, stages, vector)
                    await self._broker.publish(slip.final_reply_to, Message.of(Replies((reply,))))
                delivery.ack()

    def _found(self, question: Question) -> Neighbors | Failure:
        version = self._volume.active(question.collection)
        of_version, _, start = question.cursor.rpartition("_")
        if question.cursor and of_version != version:
            return Failure("cursor_expired", "the index changed since the page before")
        passing = [one for one in items(COUNT) if one.item_id != question.exclude]
        passing = [] if self.leaves_out_all else passing
        end = int(start or 0) + question.k
        return Neighbors(
            question.collection,
            version,
            self.model_id,
            tuple(self._neighbor(one, question) for one in passing[int(start or 0) : end]),
            matching=len(passing),
            next_cursor=f"{version}_{end}" if end < len(passing) else "",
            close_above=self.close_above,
        )

    def _neighbor(self, item: Item, question: Question) -> Neighbor:
        folded = () if question.collapse is None else (items(COUNT)[-1].item_id,)
        distance = 0.1 * item.position
        similarity = 1 - item.position / 20
        return Neighbor(
            item.item_id,
            item.label,
            item.attributes,
            distance,
            similarity,
            folded,
            item.path if self.sends_paths else "",
        )


@contextlib.asynccontextmanager
async def connected(
    api: Api,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection to the service."""
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()


def write_images(folder: Path) -> None:
    """Write the images of the collection, as JPEG under their items' names."""
    folder.mkdir()
    for item in items(COUNT):
        (folder / item.path).write_bytes(plain_jpeg((20 * item.position, 90, 40), (600, 400)))


@pytest.fixture
def upload_settings() -> UploadSettings:
    """Return the settings of the service; a test may override this fixture."""
    return UploadSettings(port=0, deadline_seconds=10)


@pytest.fixture
async def api(tmp_path: Path, upload_settings: UploadSettings) -> AsyncIterator[Api]:
    """Run the service with a fake embedder and a fake searcher, serving `birds`."""
    async with running_api(tmp_path, upload_settings) as running:
        yield running


@contextlib.asynccontextmanager
async def running_api(
    tmp_path: Path, upload_settings: UploadSettings, *, fakes_searcher: bool = True
) -> AsyncIterator[Api]:
    """Run the service as the fixture `api` does, for tests that need another scope.

    Without the fake searcher the test runs one.
    """
    images, volume, broker = tmp_path / "images", Volume(tmp_path / "root"), MemoryBroker()
    write_images(images)
    publish_version(volume, "birds", unit_vectors(COUNT), items(COUNT), images_root=images)
    await broker.start(topology.ALL)
    telemetry, stop = Telemetry(), asyncio.Event()
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    shared = SharedSettings(root=volume.root, drain_timeout_seconds=10)
    work = upload.run(
        upload_settings, shared, broker, stop=stop, telemetry=telemetry, started=started
    )
    running = asyncio.create_task(work)
    searcher = FakeSearcher(broker, volume)
    searching = [asyncio.create_task(searcher.serve())] if fakes_searcher else []
    url = await started
    async with aiohttp.ClientSession() as session, fake_embedder(broker, topology.EMBED) as fake:
        while telemetry.health.not_ready():
            await asyncio.sleep(0.01)
        yield Api(url, session, broker, fake, searcher, volume, images, telemetry, stop, running)
        stop.set()
        await running
    await cancel(*searching)
    await broker.close()


@pytest.fixture
def picture() -> bytes:
    """Return an image to search by."""
    out = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


def form_of(*images: bytes, **fields: str) -> aiohttp.FormData:
    """Return a form with parameters and these images, named 0.png, 1.png, ..."""
    form = aiohttp.FormData(fields)
    for number, image in enumerate(images):
        form.add_field("image", io.BytesIO(image), filename=f"{number}.png")
    return form


def matches(name: str, answer: Answer) -> None:
    """Check that the answer's body fits the schema of that name in openapi.json."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": OPENAPI["components"]}
    Draft202012Validator(schema).validate(answer.json)


def refused(answer: Answer, status: int, code: str) -> None:
    """Check that the answer is that problem, as openapi.json describes it."""
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.json["correlation_id"] == answer.headers["X-Correlation-Id"]
    assert ("Retry-After" in answer.headers) == (status in {429, 503, 504})
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    matches("Problem", answer)
