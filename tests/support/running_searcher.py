"""Runs a searcher on the broker in memory, with the queue that its answers go to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.searcher.service import run
from services.searcher.settings import SearcherSettings
from services.shared.contracts import Embedding, Embeddings, Replies, codec
from services.shared.messaging import topology
from services.shared.messaging.broker import Consumer, Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.volume.volume import Volume
from tests.support.volume import DIMENSION, MODEL, items, publish_version, unit_vectors

COUNT: Final = 30
REPLIES: Final = Queue(name="replies")


@dataclass
class RunningSearcher:
    """Publishes vectors to a running searcher and receives its answers."""

    broker: MemoryBroker
    volume: Volume
    telemetry: Telemetry
    stop: asyncio.Event
    running: asyncio.Task[None]
    replies: Consumer

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

    async def wait_canaries(self, more: int = 1) -> None:
        """Wait for `more` further canaries that find themselves."""
        labels = {"asked_by": "vector", "code": "ok"}
        before = self.metric("canary_total", **labels)
        async with asyncio.timeout(20):
            while self.metric("canary_total", **labels) < before + more:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running_searcher(
    root: Path,
    settings: SearcherSettings | None = None,
    broker: MemoryBroker | None = None,
    *,
    canary_seconds: float = 30.0,
    **options: Any,
) -> AsyncIterator[RunningSearcher]:
    """Run a searcher of the collection `birds` until it is ready, and stop it at the end."""
    volume, broker = Volume(root), broker or MemoryBroker()
    publish_version(volume, "birds", unit_vectors(COUNT), items(COUNT))
    await broker.start([*topology.ALL, REPLIES])
    telemetry, stop = Telemetry(), asyncio.Event()
    shared = SharedSettings(root=root, canary_seconds=canary_seconds, drain_timeout_seconds=5)
    work = run(
        settings or SearcherSettings(), shared, broker, stop=stop, telemetry=telemetry, **options
    )
    running = asyncio.create_task(work)
    async with asyncio.timeout(20):
        while telemetry.health.not_ready() or "searcher" not in telemetry.health.ready_checks:
            await asyncio.sleep(0.01)
    replies = await broker.consume(REPLIES, prefetch=16)
    yield RunningSearcher(broker, volume, telemetry, stop, running, replies)
    stop.set()
    await running
    await broker.close()
