"""Tests hostile messages over RabbitMQ, beside valid queries that must all be answered."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import aiormq
from pamqp import commands as spec

from services.embedder import service as embedder_service
from services.embedder.models.model import Model
from services.embedder.settings import EmbedderSettings
from services.searcher import service as searcher_service
from services.searcher.settings import SearcherSettings
from services.shared.contracts import (
    Embedding,
    Embeddings,
    EmbedRequest,
    Neighbors,
    Question,
    Reply,
    Slip,
)
from services.shared.contracts import messages_pb2 as pb
from services.shared.errors import SimileError
from services.shared.lifecycle import cancel
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Message, Queue
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from services.shared.messaging.request_reply import Embedded, Inbox
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.volume.volume import Volume
from tests.support import pictures
from tests.support.fake_model import GREEN, FakeModel
from tests.support.rabbitmq import Node
from tests.support.volume import DIMENSION, MODEL, items, publish_version, unit_vectors

HONEST: Final = 120
PATIENCE_SECONDS: Final = 120.0
COUNT: Final = 60
VECTORS: Final = unit_vectors(COUNT)
IDS: Final = [item.item_id for item in items(COUNT)]
IMAGE: Final = pictures.plain_jpeg(GREEN)
LONG: Final = {"reply_to": "r" * 300, "final_reply_to": "f" * 300, "correlation_id": "c" * 2**20}


class Caller:
    """Sends requests over a connection of its own, as upload does."""

    def __init__(self, broker: Broker, inbox: Inbox) -> None:
        self.broker = broker
        self._inbox = inbox

    async def search(self, name: str, number: int, cursor: str = "") -> Reply | SimileError:
        """Return the answer to a query by the vector of an item, or its failure."""
        question = Question(collection="birds", k=3, cursor=cursor)
        slip = self.slip(name, topology.SEARCH.name, question)
        item = Embedding(slip, VECTORS[number].tobytes())
        answer = await self._ask(topology.SEARCH, slip, Embeddings(MODEL, DIMENSION, (item,)))
        assert not isinstance(answer, Embedded)
        return answer

    async def embed(self, name: str) -> Reply | Embedded | SimileError:
        """Return the vector of an image, or the failure."""
        slip = self.slip(name, self._inbox.queue, Question())
        return await self._ask(topology.EMBED, slip, EmbedRequest(slip, IMAGE))

    def slip(self, name: str, reply_to: str, question: Question) -> Slip:
        """Return a slip whose answer comes back to this caller."""
        return Slip(
            correlation_id=name,
            reply_to=reply_to,
            final_reply_to=self._inbox.queue,
            question=question,
        )

    async def _ask(
        self, queue: Queue, slip: Slip, message: EmbedRequest | Embeddings
    ) -> Reply | Embedded | SimileError:
        try:
            arrival = await self._inbox.request(
                queue.name, slip, Message.of(message), PATIENCE_SECONDS
            )
            return arrival.result()
        except SimileError as error:
            return error


@asynccontextmanager
async def _caller(node: Node) -> AsyncIterator[Caller]:
    broker = AmqpBroker(node.url, name="caller", publish_timeout_seconds=20)
    await broker.start(topology.ALL)
    for queue in (topology.QUARANTINE, topology.EMBED, topology.SEARCH):
        await asyncio.to_thread(node.ctl, "purge_queue", queue.name)
    inbox = Inbox(broker, "caller")
    receiving = asyncio.create_task(inbox.run())
    await inbox.opened()
    try:
        yield Caller(broker, inbox)
    finally:
        await cancel(receiving)
        await broker.close()


@dataclass
class Served:
    """A service that runs in this process, over its own connection."""

    running: asyncio.Task[None]
    telemetry: Telemetry
    broker: AmqpBroker

    def metric(self, name: str) -> float:
        """Return a metric's value, summed over its labels."""
        return sum(
            sample.value
            for metric in self.telemetry.registry.collect()
            for sample in metric.samples
            if sample.name == name
        )


@asynccontextmanager
async def _serving(node: Node, name: str, work: Any) -> AsyncIterator[Served]:
    broker = AmqpBroker(node.url, name=name, publish_timeout_seconds=20)
    await broker.start(topology.ALL)
    telemetry, stop = Telemetry(), asyncio.Event()
    running = asyncio.create_task(work(broker, stop, telemetry))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while telemetry.health.not_ready() or not telemetry.health.ready_checks:
                await asyncio.sleep(0.02)
        yield Served(running, telemetry, broker)
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
        await broker.close()


@asynccontextmanager
async def _searcher(node: Node, root: Path) -> AsyncIterator[Served]:
    publish_version(Volume(root), "birds", VECTORS, items(COUNT))
    shared = SharedSettings(root=root, canary_seconds=0)

    async def work(broker: Broker, stop: asyncio.Event, telemetry: Telemetry) -> None:
        await searcher_service.run(
            SearcherSettings(), shared, broker, stop=stop, telemetry=telemetry
        )

    async with _serving(node, "searcher", work) as served:
        yield served


@asynccontextmanager
async def _embedder(node: Node) -> AsyncIterator[Served]:
    settings = EmbedderSettings(max_batch_size=4, decode_threads=2)

    def load(*_: object) -> Sequence[Model]:
        return [FakeModel()]

    async def work(broker: Broker, stop: asyncio.Event, telemetry: Telemetry) -> None:
        await embedder_service.run_with(
            load, settings, SharedSettings(), broker, stop=stop, telemetry=telemetry
        )

    async with _serving(node, "embedder", work) as served:
        yield served


class _Properties:
    """Writes message properties as raw bytes that no valid client writes."""

    message_id = "hostile"

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def marshal(self) -> bytes:
        return self._raw


def _table(entries: bytes) -> bytes:
    return struct.pack(">I", len(entries)) + entries


def _nested(depth: int) -> bytes:
    table = _table(b"")
    for _ in range(depth):
        table = _table(b"\x01kF" + table)
    return table


HEADERS, TIMESTAMP, TYPE = (struct.pack(">H", 1 << bit) for bit in (13, 6, 5))
UNREADABLE: Final[Mapping[str, bytes]] = {
    "a time in the year 584,556,019": TIMESTAMP + b"\xff" * 8,
    "a type that is not UTF-8": TYPE + b"\x02\xff\xfe",
    "a header's name that is not UTF-8": HEADERS + _table(b"\x02\xff\xfeV"),
    "tables within tables": HEADERS + _nested(2000),
    "a hundred thousand voids": HEADERS + _table(b"\x01kA" + _table(b"V" * 100_000)),
}


async def _publish_raw(node: Node, queue: Queue) -> None:
    """Publish a message with each kind of properties that aiormq can't read."""
    connection = await aiormq.connect(node.url)
    channel = await connection.channel()
    for raw in UNREADABLE.values():
        properties = cast("spec.Basic.Properties", _Properties(raw))
        await channel.basic_publish(b"body", routing_key=queue.name, properties=properties)
    await connection.close()


def _forged(cursor: str) -> Iterator[str]:
    """Yield cursors with a valid header and another body: wrapped, negative, repeated, endless."""
    head = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[:8]
    wraps = b"\xff" * 9 + b"\x01"
    half = b"\xff" * 8 + b"\x7f"
    for body in (wraps, half + half, b"\x80" * 9 + b"\x01", b"\x00\x00", b"\x83", b"\xff\x7f"):
        yield base64.urlsafe_b64encode(head + body).rstrip(b"=").decode()


def _slips(sound: Slip) -> Iterator[pb.Slip]:
    """Yield slips with a text far beyond its bound."""
    fields = {name: getattr(sound, name) for name in LONG}
    for name, text in LONG.items():
        yield pb.Slip(k=3, collection="birds", **{**fields, name: text})


async def _hostile_to_searcher(node: Node, caller: Caller) -> int:
    """Publish slips beyond their bounds, junk, and unreadable properties; return how many."""
    sound = caller.slip("hostile", topology.SEARCH.name, Question(collection="birds"))
    messages = [Message("simile.v1.Embeddings", b"\xff"), Message("a.Type", b"junk")]
    for slip in _slips(sound):
        vector = VECTORS[0].tobytes()
        body = pb.Embeddings(
            model_id=MODEL, dimension=DIMENSION, items=[pb.Embedding(slip=slip, vector=vector)]
        )
        messages.append(Message("simile.v1.Embeddings", body.SerializeToString()))
    for message in messages:
        await caller.broker.publish(topology.SEARCH.name, message)
    await _publish_raw(node, topology.SEARCH)
    return len(messages) + len(UNREADABLE)


async def _in_quarantine(broker: Broker, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await broker.depth(topology.QUARANTINE.name) < count:
            await asyncio.sleep(0.02)


async def test_forged_cursors_and_long_slips_fail_no_valid_query(
    rabbitmq: Node, tmp_path: Path
) -> None:
    """Forged cursors are `malformed_request`, other messages are quarantined once; queries work."""
    async with _searcher(rabbitmq, tmp_path) as served, _caller(rabbitmq) as caller:
        first = await caller.search("first", 0)
        assert isinstance(first, Reply)
        assert isinstance(first.outcome, Neighbors)
        forged = [*_forged(first.outcome.next_cursor)] * 10
        asked: list[Coroutine[Any, Any, Reply | SimileError]] = []
        for number in range(HONEST):
            asked.append(caller.search(f"honest-{number}", number % COUNT))
            if number < len(forged):
                asked.append(caller.search(f"forged-{number}", 0, forged[number]))
        hostile, answers = await asyncio.gather(
            _hostile_to_searcher(rabbitmq, caller), asyncio.gather(*asked)
        )
        refused = [one.code for one in answers if isinstance(one, SimileError)]
        assert refused == ["malformed_request"] * len(forged)
        nearest = [
            one.outcome.neighbors[0].item_id
            for one in answers
            if isinstance(one, Reply) and isinstance(one.outcome, Neighbors)
        ]
        assert nearest == [IDS[number % COUNT] for number in range(HONEST)]
        await _in_quarantine(caller.broker, hostile)
        assert served.metric("simile_searcher_undecodable_total") == hostile
        assert not served.running.done()
        assert served.broker.ready
        assert await caller.broker.depth(topology.SEARCH.name) == 0


async def test_long_slips_and_junk_fail_no_valid_image(rabbitmq: Node) -> None:
    """A slip beyond its bounds ends no embedder and is quarantined once; images are embedded."""
    async with _embedder(rabbitmq) as served, _caller(rabbitmq) as caller:
        sound = caller.slip("hostile", "nowhere", Question())
        hostile = [
            Message(
                "simile.v1.EmbedRequest",
                pb.EmbedRequest(slip=slip, image=IMAGE).SerializeToString(),
            )
            for slip in _slips(sound)
        ]
        asked = [caller.embed(f"honest-{number}") for number in range(HONEST // 2)]
        publishing = [caller.broker.publish(topology.EMBED.name, one) for one in hostile]
        answers, _, _ = await asyncio.gather(
            asyncio.gather(*asked),
            asyncio.gather(*publishing),
            _publish_raw(rabbitmq, topology.EMBED),
        )
        assert {type(one) for one in answers} == {Embedded}
        await _in_quarantine(caller.broker, len(hostile) + len(UNREADABLE))
        assert served.metric("simile_embedder_undecodable_total") == len(hostile) + len(UNREADABLE)
        assert not served.running.done()
        assert served.broker.ready
        assert await caller.broker.depth(topology.EMBED.name) == 0
        assert await caller.broker.depth(topology.EMBED_SUSPECTS.name) == 0


async def test_large_junk_leaves_earlier_records(rabbitmq: Node, tmp_path: Path) -> None:
    """Of three messages of 40 MB the start and the facts are kept; earlier records stay."""
    async with _caller(rabbitmq) as caller:
        kept = Message("a.Type", b"kept", persistent=True, headers={"record_id": "earlier"})
        await caller.broker.publish(topology.QUARANTINE.name, kept)
        for _ in range(3):
            junk = Message("simile.v1.Embeddings", b"\xff" * 40_000_000)
            await caller.broker.publish(topology.SEARCH.name, junk)
        async with _searcher(rabbitmq, tmp_path):
            await _in_quarantine(caller.broker, 4)
        consumer = await caller.broker.consume(topology.QUARANTINE, prefetch=0)
        bodies = [delivery.body for delivery in await consumer.take(4)]
        while len(bodies) < 4:
            bodies += [delivery.body for delivery in await consumer.take(4)]
        assert [len(body) for body in bodies] == [4, 4096, 4096, 4096]
        await consumer.close()
