"""Stands in for the embedders: answers requests with vectors made from the images' bytes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np

from services.shared.contracts import (
    Embedding,
    Embeddings,
    EmbedRequest,
    Failure,
    Replies,
    Reply,
    codec,
)
from services.shared.errors import Unroutable
from services.shared.lifecycle import cancel
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Message, Queue
from tests.support.volume import DIMENSION, MODEL


def vector_of(image: bytes) -> bytes:
    """Return a unit vector that depends on every byte of the image."""
    seed = int.from_bytes(hashlib.sha256(image).digest()[:4], "little")
    drawn = np.random.default_rng(seed).normal(size=DIMENSION)
    return (drawn / np.linalg.norm(drawn)).astype("<f4").tobytes()


@dataclass
class FakeEmbedder:
    """Records the images that it embedded; tests set how it behaves.

    Attributes:
        failing: The failure that each of these images is answered with.
        ignoring: Images that are never answered.
        silent_after: The number of images after which no message is acked any more.
    """

    broker: Broker
    queue: Queue
    model_id: str = MODEL
    embedded: list[bytes] = field(default_factory=list)
    failing: dict[bytes, Failure] = field(default_factory=dict)
    ignoring: set[bytes] = field(default_factory=set)
    silent_after: int | None = None

    async def serve(self) -> None:
        """Answer requests until cancelled."""
        consumer = await self.broker.consume(self.queue, prefetch=16)
        while True:
            for delivery in await consumer.take(16):
                request = codec.decode(delivery.type, delivery.body)
                assert isinstance(request, EmbedRequest)
                if self.silent_after is not None and len(self.embedded) >= self.silent_after:
                    continue
                with contextlib.suppress(Unroutable):  # the caller has gone
                    await self._answer(request)
                delivery.ack()

    async def _answer(self, request: EmbedRequest) -> None:
        slip = request.slip
        if request.image in self.ignoring:
            return
        if request.image in self.failing:
            reply = Reply(slip.correlation_id, self.failing[request.image])
            await self.broker.publish(slip.final_reply_to, Message.of(Replies((reply,))))
            return
        self.embedded.append(request.image)
        item = Embedding(slip, vector_of(request.image), {"decode": 0.001, "model": 0.002})
        message = Embeddings(self.model_id, DIMENSION, (item,))
        await self.broker.publish(slip.reply_to, Message.of(message))


@contextlib.asynccontextmanager
async def fake_embedder(
    broker: Broker, queue: Queue = topology.EMBED_BULK
) -> AsyncIterator[FakeEmbedder]:
    """Run a fake embedder that serves one queue."""
    fake = FakeEmbedder(broker, queue)
    serving = asyncio.create_task(fake.serve())
    try:
        yield fake
    finally:
        await cancel(serving)
