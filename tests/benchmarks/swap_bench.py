"""Runs a searcher over an in-memory broker, with versions to swap and a load of queries."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.searcher.admin import versions
from services.searcher.build.tuning import tune
from services.searcher.index.index import stored_file
from services.searcher.index.methods.registry import required_files
from services.searcher.index.scan import Vectors
from services.searcher.progress import NoProgress
from services.searcher.service import run
from services.searcher.settings import IndexSettings, SearcherSettings
from services.shared.contracts import (
    Embedding,
    Embeddings,
    Neighbors,
    Question,
    Replies,
    Reply,
    Slip,
    codec,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Consumer, Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.volume.items import ITEMS, Item, write_items
from services.shared.volume.manifest import VECTORS, Manifest, MethodName
from services.shared.volume.volume import Volume
from tests.benchmarks.datasets import Mixture

MODEL: Final = "benchmark@000000000000/none/0"

_ROWS: Final = 4096
_REPLIES: Final = Queue(name="replies")
_ANSWER_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A client's observation: times of query and answer (seconds), and the answering version.

    version is empty for a failure; mixed: a neighbour was not of the version that answered.
    """

    asked: float
    answered: float
    version: str
    mixed: bool

    @property
    def seconds(self) -> float:
        """Return the seconds until the answer."""
        return self.answered - self.asked


def publish(
    volume: Volume, collection: str, count: int, dimension: int, *, number: int, method: MethodName
) -> str:
    """Write, tune and publish a version whose items are labelled with its name; return the name."""
    version = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{number:08x}"
    staging = volume.home(collection) / "building" / version
    staging.mkdir(parents=True)
    mixture = Mixture("hard", dimension)
    with (staging / VECTORS).open("wb") as out:
        for block, start in enumerate(range(0, count, _ROWS)):
            rows = mixture.draw(min(_ROWS, count - start), 100 + number, block)
            out.write(rows.astype("<f4", copy=False).tobytes())
    write_items(staging / ITEMS, _items(count, version))
    settings = IndexSettings(method=method)
    tuned = tune(staging, count, dimension, settings, NoProgress())
    files = required_files(tuned.plan, tuned.shards)
    manifest = Manifest(
        collection=collection,
        version=version,
        model_id=MODEL,
        dimension=dimension,
        count=count,
        plan=tuned.plan,
        recall=tuned.recall,
        recall_target=settings.recall,
        energy=tuned.energy,
        measured=tuned.measured,
        shards=tuned.shards,
        images_root="/nowhere",
        created_unix_ms=time.time_ns() // 1_000_000,
        canaries=(0, count - 1),
        files={name: stored_file(staging / name) for name in files},
    )
    versions.publish(volume, staging, manifest)
    return version


def _items(count: int, version: str) -> Iterator[Item]:
    for number in range(count):
        digest = hashlib.sha256(f"{number}".encode()).hexdigest()
        yield Item(number, digest[:16], f"{number}.jpg", version, {}, 30, 20, digest)


class Bench:
    """Runs a searcher of a collection, and records the answers to its only client."""

    def __init__(self, volume: Volume, broker: MemoryBroker, collection: str) -> None:
        self.volume = volume
        self.answers: list[Answer] = []
        self._broker = broker
        self._collection = collection
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._numbers = itertools.count()
        self._expected: tuple[str, float, asyncio.Future[float]] | None = None

    async def ask(self, vector: bytes, dimension: int) -> None:
        """Request ten neighbours as the embedder would, and record the answer."""
        slip = Slip(
            correlation_id=f"{next(self._numbers)}",
            reply_to=topology.SEARCH.name,
            final_reply_to=_REPLIES.name,
            question=Question(collection=self._collection, k=10),
        )
        message = Embeddings(MODEL, dimension, (Embedding(slip, vector),))
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[slip.correlation_id] = waiting
        asked = time.perf_counter()
        await self._broker.publish(topology.SEARCH.name, Message.of(message))
        async with asyncio.timeout(_ANSWER_SECONDS):
            reply = await waiting
        self._note(asked, reply)

    async def swap(self, version: str) -> float:
        """Activate the version; return when its first answer came (perf_counter).

        Only answers to later queries count: with two versions that alternate, an
        earlier answer may have the same name.
        """
        first: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._expected = (version, time.perf_counter(), first)
        await asyncio.to_thread(self.volume.activate, self._collection, version)
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await first

    async def receive(self, replies: Consumer) -> None:
        """Pass each reply to its query, until cancelled."""
        while True:
            for delivery in await replies.take(32):
                delivery.ack()
                message = codec.decode(delivery.type, delivery.body)
                if isinstance(message, Replies):
                    for reply in message.items:
                        self._waiting.pop(reply.correlation_id).set_result(reply)

    def _note(self, asked: float, reply: Reply) -> None:
        found = reply.outcome
        version, mixed = "", False
        if isinstance(found, Neighbors):
            version = found.index_version
            mixed = any(neighbor.label != version for neighbor in found.neighbors)
        answered = time.perf_counter()
        self.answers.append(Answer(asked, answered, version, mixed))
        if self._expected is not None:
            expected, since, first = self._expected
            if version == expected and asked >= since and not first.done():
                first.set_result(answered)


@dataclass(slots=True)
class Load:
    """A closed loop: each client queries, waits for the answer, pauses, repeats."""

    bench: Bench
    vectors: Vectors
    clients: int
    pause_seconds: float
    stalls: list[float] = field(default_factory=list)

    @asynccontextmanager
    async def applied(self) -> AsyncIterator[None]:
        """Run the load during the block, with a ticker that detects stalls."""
        asking = [
            asyncio.create_task(self._client(number), name=f"client {number}")
            for number in range(self.clients)
        ]
        ticking = asyncio.create_task(self._tick(), name="ticker")
        try:
            yield
        finally:
            for task in (*asking, ticking):
                task.cancel()
            ended = await asyncio.gather(*asking, ticking, return_exceptions=True)
        for end in ended:
            if isinstance(end, Exception):
                raise end

    async def _client(self, number: int) -> None:
        rows = itertools.cycle(self.vectors[number :: self.clients])
        while True:
            row = next(rows)
            await self.bench.ask(row.astype("<f4").tobytes(), len(row))
            await asyncio.sleep(self.pause_seconds)

    async def _tick(self) -> None:
        """Record how much longer than a millisecond each sleep of a millisecond took."""
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.001)
            self.stalls.append(time.perf_counter() - started - 0.001)


@asynccontextmanager
async def running(root: Path, collection: str, poll_seconds: float) -> AsyncIterator[Bench]:
    """Run a searcher over the volume at `root` until it is ready."""
    broker, telemetry, stop = MemoryBroker(), Telemetry(), asyncio.Event()
    await broker.start([*topology.ALL, _REPLIES])
    settings = SearcherSettings(poll_seconds=poll_seconds)
    shared = SharedSettings(root=root, drain_timeout_seconds=5)
    serving = asyncio.create_task(run(settings, shared, broker, stop=stop, telemetry=telemetry))
    bench = Bench(Volume(root), broker, collection)
    receiving = asyncio.create_task(bench.receive(await broker.consume(_REPLIES, prefetch=256)))
    try:
        yield bench
    finally:
        stop.set()
        await serving
        receiving.cancel()
        await broker.close()


def between(answers: Sequence[Answer], first: float, last: float) -> list[Answer]:
    """Return the answers to queries sent in that span of time."""
    return [answer for answer in answers if first <= answer.asked < last]
