"""Builds single parts of an embedder, for tests that need no whole embedder."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
from prometheus_client import CollectorRegistry

from services.embedder.job import InFlight, Job
from services.embedder.metrics import EmbedderMetrics, Instruments
from services.embedder.models.model import unit_bytes
from services.embedder.results import ResultPublisher, Timing
from services.shared.contracts import Embeddings, Slip, codec
from services.shared.messaging import topology
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.quarantine import Quarantine
from services.shared.telemetry.tracing import NoTracing
from tests.support.fake_model import FakeModel
from tests.support.running_embedder import NEXT


class _Delivery:
    """Stands in for a delivery of a broker."""

    type = "simile.v1.EmbedRequest"
    body = b""
    received = 0.0
    headers: dict[str, str] = {}  # noqa: RUF012 (the shape of the port; never changed)

    redelivered = False
    redeliveries = 0

    def ack(self) -> None:
        """Do nothing, since no broker waits for the ack."""

    def reject(self, *, requeue: bool) -> None:
        """Do nothing, since no broker waits for the rejection."""


def job(
    name: str, image: bytes = b"", *, interactive: bool = True, redelivered: bool = False
) -> Job:
    """Return a job with that correlation id."""
    slip = Slip(correlation_id=name, reply_to="next", final_reply_to="caller")
    return Job(slip, image, _Delivery(), interactive, crash_count=int(redelivered))


def instruments() -> Instruments:
    """Return instruments with a registry of their own and no traces."""
    return Instruments(EmbedderMetrics(CollectorRegistry()), NoTracing().tracer("embedder"))


def done(name: str) -> Job:
    """Return a job with that correlation id and a vector."""
    made = job(name)
    made.vector = unit_bytes(np.ones(3, np.float32))
    return made


class Published(list[str]):
    """Publishes for workers, and lists the names of the jobs in the order of arrival."""

    def __init__(self, timing: Timing) -> None:
        super().__init__()
        self.broker = MemoryBroker()
        observed = instruments()
        self.publisher = ResultPublisher(
            self.broker,
            Quarantine(self.broker, replica="here", keeps_messages=False),
            InFlight(observed.watchdogs),
            observed,
            FakeModel(),
            timing,
        )

    async def receive(self) -> None:
        """Append the correlation id of each result that arrives, until cancelled."""
        consumer = await self.broker.consume(NEXT, prefetch=0, auto_ack=True)
        while True:
            for delivery in await consumer.take(10):
                message = codec.decode(delivery.type, delivery.body)
                assert isinstance(message, Embeddings)
                self.extend(item.slip.correlation_id for item in message.items)

    async def wait(self, count: int) -> None:
        """Wait until the results of `count` jobs have arrived."""
        async with asyncio.timeout(20):
            while len(self) < count:
                await asyncio.sleep(0.001)

    async def until(self, *names: str) -> None:
        """Wait until the results of exactly these jobs have arrived, in this order."""
        await self.wait(len(names))
        await settle()
        assert self == [*names]


@contextlib.asynccontextmanager
async def published_by(timing: Timing) -> AsyncIterator[Published]:
    """Run a publisher on a broker in memory."""
    published = Published(timing)
    await published.broker.start([*topology.ALL, NEXT])
    receiving = asyncio.create_task(published.receive())
    yield published
    published.publisher.close()
    receiving.cancel()


async def settle() -> None:
    """Let the event loop run everything that is due."""
    for _ in range(20):
        await asyncio.sleep(0)
