"""An embedder on the broker in memory, with a queue behind it and one for who asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from services.embedder import service
from services.embedder.models.model import Model
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
from services.shared.lifecycle import cancel
from services.shared.messaging import topology
from services.shared.messaging.broker import Delivery, Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.quarantine import Record
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from tests.support.fake_model import FakeModel

# Not exclusive: they outlive a cut connection.
ASKER: Final = Queue(name="asker")
NEXT: Final = Queue(name="next")


def request(image: bytes, correlation_id: str) -> EmbedRequest:
    """What the house's asker publishes."""
    slip = Slip(correlation_id=correlation_id, reply_to=NEXT.name, final_reply_to=ASKER.name)
    return EmbedRequest(slip, image)


@dataclass
class EmbedderHouse:
    """A running embedder and what came out of it."""

    broker: MemoryBroker
    model: FakeModel
    telemetry: Telemetry
    running: asyncio.Task[None]
    asked: list[str] = field(default_factory=list)

    async def ask(self, *images: bytes, queue: Queue = topology.EMBED) -> None:
        """Publish the images, named q0, q1, ..."""
        for image in images:
            self.asked.append(f"q{len(self.asked)}")
            message = Message.of(request(image, self.asked[-1]))
            await self.broker.publish(queue.name, message)

    async def vectors(self, count: int) -> list[Embedding]:
        """So many embeddings, as they arrive."""
        consumer = await self.broker.consume(NEXT, prefetch=1)
        found: list[Embedding] = []
        while len(found) < count:
            (delivery,) = await consumer.take(1)
            message = codec.decode(delivery.type, delivery.body)
            assert isinstance(message, Embeddings)
            found += message.items
            delivery.ack()
        await consumer.close()
        return found

    async def failures(self, count: int) -> dict[str, Failure]:
        """So many failures by correlation id."""
        consumer = await self.broker.consume(ASKER, prefetch=1)
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
        """What became of so many images, by correlation id: ok, or a failure's code."""
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

        collecting = [asyncio.create_task(collect(queue)) for queue in (NEXT, ASKER)]
        try:
            while len(found) < count:
                assert not any(task.done() for task in (*collecting, self.running))
                await asyncio.sleep(0.01)
        finally:
            await cancel(*collecting)
        return found

    async def set_aside(self) -> Delivery:
        """The first message in quarantine."""
        consumer = await self.broker.consume(topology.QUARANTINE, prefetch=1)
        (delivery,) = await consumer.take(1)
        return delivery

    async def record(self) -> Record:
        """The record of the first message in quarantine."""
        return Record.of((await self.set_aside()).headers)

    async def until(self, there: Callable[[], bool]) -> None:
        """Let the house go on until it is so."""
        async with asyncio.timeout(30):
            while not there():
                await asyncio.sleep(0.001)

    async def until_entered(self) -> None:
        """Wait until the model has got the next batch."""
        assert await asyncio.to_thread(self.model.entered.acquire, timeout=30)

    def count(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.telemetry.registry.get_sample_value(f"simile_embedder_{name}", labels) or 0.0


@asynccontextmanager
async def embedder_house(
    model: FakeModel | None = None,
    broker: MemoryBroker | None = None,
    *,
    patience_seconds: float = 60,
    **tuned: Any,
) -> AsyncIterator[EmbedderHouse]:
    """A house whose embedder has two decoding threads and one worker."""
    model, broker = model or FakeModel(), broker or MemoryBroker()
    await broker.start([*topology.ALL, ASKER, NEXT])
    stop, telemetry = asyncio.Event(), Telemetry()
    settings = EmbedderSettings(**{"max_batch_size": 4, "decode_threads": 2, **tuned})

    def load(*_: object) -> Sequence[Model]:
        return [model]

    running = asyncio.create_task(
        service.run_with(load, settings, SharedSettings(), broker, stop=stop, telemetry=telemetry)
    )
    try:
        async with asyncio.timeout(patience_seconds):
            yield EmbedderHouse(broker, model, telemetry, running)
    finally:
        model.gate.set()
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
