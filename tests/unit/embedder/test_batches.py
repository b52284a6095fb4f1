"""Batches of a running embedder hold the right images, and their results leave in time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.embedder.models.model import Pixels, Vectors
from services.embedder.results import DEFAULT_TIMING, Timing
from services.shared.contracts import MAX_ITEMS, Box, Embeddings, codec
from services.shared.imaging import Probe
from services.shared.messaging import topology
from services.shared.messaging.broker import Queue
from tests.support import pictures
from tests.support.fake_model import BLUE, GREEN, FakeModel
from tests.support.running_embedder import RunningEmbedder, running_embedder


async def test_batches_form_while_the_worker_is_busy(embedder: RunningEmbedder) -> None:
    """An idle worker starts with one image; the images that arrive meanwhile form a batch."""
    await embedder.hold()
    await embedder.ask(*[pictures.plain_jpeg(BLUE)] * 4)
    await embedder.until(lambda: embedder.in_flight == 5)
    await embedder.wait_decoded(4)
    embedder.model.gate.set()
    await embedder.vectors(5)
    assert embedder.model.batches[-2:] == [1, 4]


async def test_a_worker_on_a_cpu_decodes_for_itself() -> None:
    """A worker decodes the images that arrived while it was busy, then runs them together."""
    async with running_embedder(decode_threads=None) as embedder:
        await embedder.hold()
        await embedder.ask(*[pictures.plain_jpeg(BLUE)] * 4)
        await embedder.until(lambda: embedder.in_flight == 5)
        assert embedder.embedder.queue.decoded == 0
        embedder.model.gate.set()
        await embedder.vectors(5)
        assert embedder.model.batches[-2:] == [1, 4]
        assert embedder.count("decode_threads") == 1


async def test_a_worker_that_decodes_is_busy() -> None:
    """Decoding counts as busy time: an embedder with large photographs is not idle."""

    class Slow(FakeModel):
        def prepare(
            self, image: bytes, box: Box | None = None, *, known: Probe | None = None
        ) -> Pixels:
            time.sleep(0.05)
            return super().prepare(image, box, known=known)

    async with running_embedder(Slow(), decode_threads=None) as embedder:
        await embedder.ask(pictures.plain_jpeg(BLUE))
        await embedder.vectors(1)
        assert embedder.count("worker_busy_seconds_total") >= 0.05


class _OneByOne(FakeModel):
    """Stops before each batch, and before it decodes each image after the first."""

    def __init__(self) -> None:
        super().__init__()
        self.decoding, self.decodes, self.prepared = threading.Event(), threading.Event(), 0

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        self.prepared += 1
        if self.prepared > 1:
            self.decodes.set()
            assert self.decoding.wait(30), "the test never opened the gate"
        return super().prepare(image, box, known=known)

    def embed(self, batch: Pixels) -> Vectors:
        vectors = super().embed(batch)
        if self.prepared:  # the warm-up embeds without decoding
            self.gate.clear()
        return vectors


@asynccontextmanager
async def _decoding_the_next(timing: Timing) -> AsyncIterator[tuple[RunningEmbedder, _OneByOne]]:
    """Run an embedder whose only worker has embedded one image and decodes another."""
    model = _OneByOne()
    async with running_embedder(model, timing=timing, decode_threads=None) as embedder:
        await embedder.hold()
        await embedder.ask(pictures.plain_jpeg(BLUE))
        await embedder.until(lambda: embedder.in_flight == 2)
        model.gate.set()
        assert await asyncio.to_thread(model.decodes.wait, 30)
        try:
            yield embedder, model
        finally:
            model.decoding.set()


async def test_results_are_published_when_the_next_batch_is_in_the_model() -> None:
    """Publishing the former results does not slow down a worker that decodes."""
    async with _decoding_the_next(Timing(max_defer_seconds=60.0)) as (embedder, model):
        await asyncio.sleep(0.05)
        assert embedder.in_flight == 2
        model.decoding.set()
        (held,) = await embedder.vectors(1)
        assert held.slip.correlation_id == "q-held"
        # The second image is in the model, and waits for the gate.
        await embedder.until(lambda: embedder.in_flight == 1)
        model.gate.set()
        await embedder.vectors(1)


async def test_no_result_waits_long_for_an_image_that_is_slow() -> None:
    """The first result is published while the second image is still being decoded."""
    async with _decoding_the_next(DEFAULT_TIMING) as (embedder, model):
        (held,) = await embedder.vectors(1)
        assert held.slip.correlation_id == "q-held"
        assert not model.decoding.is_set()
        model.decoding.set()
        model.gate.set()
        await embedder.vectors(1)


async def test_interactive_overtakes_bulk(embedder: RunningEmbedder) -> None:
    """Interactive images are embedded before bulk ones that came earlier; bulk fills a batch."""
    await embedder.hold()
    await embedder.ask(*[pictures.plain_jpeg(BLUE)] * 4, queue=topology.EMBED_BULK)
    await embedder.ask(*[pictures.plain_jpeg(GREEN)] * 3)
    await embedder.wait_decoded(7)
    embedder.model.gate.set()
    order = [item.slip.correlation_id for item in await embedder.vectors(8)]
    assert set(order[1:5]) >= {"q4", "q5", "q6"}
    assert embedder.model.batches[-3:] == [1, 4, 3]


async def test_one_message_per_next_queue(embedder: RunningEmbedder) -> None:
    """The results of a batch go to each next queue as one message."""
    other = await embedder.broker.consume(Queue(name="other", exclusive=True), prefetch=10)
    await embedder.hold()
    await embedder.ask(*[pictures.plain_jpeg(BLUE)] * 3)
    await embedder.ask(pictures.plain_jpeg(GREEN), reply_to="other")
    await embedder.wait_decoded(4)
    embedder.model.gate.set()
    assert [len(message.items) for message in await embedder.messages(4)] == [1, 3]
    (delivery,) = await other.take(10)
    message = codec.decode(delivery.type, delivery.body)
    assert isinstance(message, Embeddings)
    assert [item.slip.correlation_id for item in message.items] == ["q3"]


async def test_lists_are_bounded() -> None:
    """The results of a batch above the contract's limit are published in several messages."""
    async with running_embedder(max_batch_size=64) as embedder:
        await embedder.hold()
        await embedder.ask(*[pictures.plain_jpeg(BLUE)] * (MAX_ITEMS + 8))
        await embedder.wait_decoded(MAX_ITEMS + 8)
        embedder.model.gate.set()
        messages = await embedder.messages(MAX_ITEMS + 9)
        assert [len(message.items) for message in messages] == [1, MAX_ITEMS, 8]
