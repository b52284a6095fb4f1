"""Runs an embedder on the broker in memory, with the queues that its results go to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from services.embedder.results import DEFAULT_TIMING, Timing
from services.embedder.service import Embedder
from services.embedder.settings import EmbedderSettings
from services.shared.contracts import (
    Embedding,
    Embeddings,
    EmbedRequest,
    Failure,
    Replies,
    Slip,
    codec,
)
from services.shared.errors import BrokerUnavailable
from services.shared.lifecycle import cancel
from services.shared.messaging import topology
from services.shared.messaging.broker import Delivery, Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.quarantine import Record
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from tests.support import pictures
from tests.support.fake_model import RED, FakeModel

# These queues are not exclusive, so that they survive a cut connection.
CALLER: Final = Queue(name="caller")
NEXT: Final = Queue(name="next")

_WAIT_SECONDS: Final = 30


def request(image: bytes, correlation_id: str, **slip: Any) -> EmbedRequest:
    """Return a request whose vector goes to NEXT and whose failure goes to CALLER."""
    routes = {"reply_to": NEXT.name, "final_reply_to": CALLER.name, **slip}
    return EmbedRequest(Slip(correlation_id=correlation_id, **routes), image)


class CountingBroker(MemoryBroker):
    """Counts the publishes that it refuses while it is blocked."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    async def publish(self, queue: str, message: Message) -> None:
        """Publish, or count the refusal."""
        try:
            await super().publish(queue, message)
        except BrokerUnavailable:
            self.refused += 1
            raise


@dataclass
class RunningEmbedder:
    """Publishes images to a running embedder and receives its results."""

    broker: MemoryBroker
    model: FakeModel
    telemetry: Telemetry
    embedder: Embedder
    stop: asyncio.Event
    running: asyncio.Task[None]
    asked: list[str] = field(default_factory=list)

    async def ask(
        self,
        *images: bytes,
        queue: Queue = topology.EMBED,
        correlation_id: str | None = None,
        **slip: Any,
    ) -> None:
        """Publish the images under the ids q0, q1, ... or the given id; `slip` sets slip fields."""
        for image in images:
            self.asked.append(correlation_id or f"q{len(self.asked)}")
            message = Message.of(request(image, self.asked[-1], **slip))
            await self.broker.publish(queue.name, message)

    async def hold(self) -> None:
        """Keep the only worker busy with the image `q-held` until the model's gate opens."""
        await self.wait_consuming()
        while self.model.entered.acquire(blocking=False):
            pass
        self.model.gate.clear()
        await self.ask(pictures.plain_jpeg(RED), correlation_id="q-held")
        self.asked.clear()
        await self.wait_entered()

    async def messages(self, count: int) -> list[Embeddings]:
        """Receive messages until they hold `count` vectors in all."""
        consumer = await self.broker.consume(NEXT, prefetch=1)
        found: list[Embeddings] = []
        while sum(len(message.items) for message in found) < count:
            (delivery,) = await consumer.take(1)
            message = codec.decode(delivery.type, delivery.body)
            assert isinstance(message, Embeddings)
            found.append(message)
            delivery.ack()
        await consumer.close()
        return found

    async def vectors(self, count: int) -> list[Embedding]:
        """Receive `count` vectors in order of arrival."""
        return [item for message in await self.messages(count) for item in message.items]

    async def failures(self, count: int) -> dict[str, Failure]:
        """Receive `count` failures, and return them by correlation id."""
        consumer = await self.broker.consume(CALLER, prefetch=1)
        found: dict[str, Failure] = {}
        while len(found) < count:
            (delivery,) = await consumer.take(1)
            message = codec.decode(delivery.type, delivery.body)
            assert isinstance(message, Replies)
            for reply in message.items:
                assert isinstance(reply.outcome, Failure)
                found[reply.correlation_id] = reply.outcome
            delivery.ack()
        await consumer.close()
        return found

    async def outcomes(self, count: int) -> dict[str, str]:
        """Receive `count` results, and return `ok` or the failure's code by correlation id."""
        found: dict[str, str] = {}

        async def collect(queue: Queue) -> None:
            consumer = await self.broker.consume(queue, prefetch=0, auto_ack=True)
            while True:
                for delivery in await consumer.take(64):
                    match codec.decode(delivery.type, delivery.body):
                        case Embeddings() as made:
                            found.update((item.slip.correlation_id, "ok") for item in made.items)
                        case Replies(items):
                            for reply in items:
                                assert isinstance(reply.outcome, Failure)
                                found[reply.correlation_id] = reply.outcome.code

        collecting = [asyncio.create_task(collect(queue)) for queue in (NEXT, CALLER)]
        try:
            while len(found) < count:
                assert not any(task.done() for task in (*collecting, self.running))
                await asyncio.sleep(0.01)
        finally:
            await cancel(*collecting)
        return found

    async def quarantined(self) -> Delivery:
        """Receive the first message in quarantine."""
        consumer = await self.broker.consume(topology.QUARANTINE, prefetch=1)
        (delivery,) = await consumer.take(1)
        return delivery

    async def record(self) -> Record:
        """Receive the record of the first message in quarantine."""
        return Record.of((await self.quarantined()).headers)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let the embedder run until the condition holds."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while not holds():
                await asyncio.sleep(0.001)

    async def wait_consuming(self, *, consuming: bool = True) -> None:
        """Wait until the embedder consumes interactive images, or consumes none any more."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while bool((await self.broker.state(topology.EMBED.name)).consumers) != consuming:
                await asyncio.sleep(0.001)

    async def wait_entered(self) -> None:
        """Wait until the model has received its next batch."""
        assert await asyncio.to_thread(self.model.entered.acquire, timeout=_WAIT_SECONDS)

    async def wait_decoded(self, count: int) -> None:
        """Wait until `count` decoded images wait for the worker."""
        await self.until(lambda: self.embedder.queue.decoded == count)

    @property
    def in_flight(self) -> float:
        """Return the number of images that the embedder has taken and not settled."""
        return self.count("in_hand_images")

    def count(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.telemetry.registry.get_sample_value(f"simile_embedder_{name}", labels) or 0.0


@asynccontextmanager
async def running_embedder(
    model: FakeModel | None = None,
    broker: MemoryBroker | None = None,
    *,
    timing: Timing = DEFAULT_TIMING,
    drain_timeout_seconds: float = 20.0,
    patience_seconds: float = 60,
    **tuned: Any,
) -> AsyncIterator[RunningEmbedder]:
    """Run an embedder with one worker and two decode threads; `tuned` are its settings."""
    model, broker = model or FakeModel(), broker or MemoryBroker()
    await broker.start([*topology.ALL, CALLER, NEXT])
    stop, telemetry = asyncio.Event(), Telemetry()
    settings = EmbedderSettings(**{"max_batch_size": 4, "decode_threads": 2, **tuned})
    shared = SharedSettings(drain_timeout_seconds=drain_timeout_seconds)
    embedder = Embedder([model], settings, shared, broker, telemetry, timing)
    running = asyncio.create_task(embedder.run(stop))
    try:
        async with asyncio.timeout(patience_seconds):
            yield RunningEmbedder(broker, model, telemetry, embedder, stop, running)
    finally:
        model.gate.set()
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
