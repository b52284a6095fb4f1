"""Images that are slow, break the model, or kill embedders do not disturb other images."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

import pytest

from services.embedder.batcher import BatchPolicy
from services.embedder.decoding import Decoder
from services.embedder.models.model import Pixels
from services.embedder.results import Timing
from services.embedder.work_queue import WorkQueue
from services.embedder.worker import Worker, WorkerThreads
from services.shared.contracts import Box, EmbedRequest, codec
from services.shared.errors import DecoderCrashed, Overloaded, StageDied
from services.shared.imaging import Probe
from services.shared.messaging import topology
from services.shared.messaging.broker import Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.quarantine import Record
from tests.support import pictures
from tests.support.embedder_parts import instruments, job, published_by
from tests.support.fake_model import BLUE, GREEN, LIMITS, RED, WHITE, FakeModel
from tests.support.running_embedder import CALLER, NEXT, request, running_embedder

SLOW: Final = pictures.plain_jpeg(BLUE, (64, 64))


class SlowModel(FakeModel):
    """Blocks on the decoding of one image."""

    def __init__(self) -> None:
        super().__init__()
        self.decoding = threading.Event()

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        """Block on the slow image until `decoding` is set."""
        if image == SLOW:
            assert self.decoding.wait(60)
        return super().prepare(image, box, known=known)


APART_OR_BY_WORKERS: Final = pytest.mark.parametrize("decode_threads", [2, None])
"""Runs a test with threads that only decode, and with a worker that decodes for itself."""


@APART_OR_BY_WORKERS
async def test_an_image_that_takes_too_long_is_answered_and_quarantined(
    decode_threads: int | None,
) -> None:
    """The slow image gets its own failure; images behind it get their vectors meanwhile."""
    model = SlowModel()
    async with running_embedder(
        model, decode_threads=decode_threads, decode_timeout_seconds=0.5, max_batch_size=1
    ) as embedder:
        await embedder.ask(SLOW, *[pictures.plain_jpeg(GREEN)] * 4)
        assert (await embedder.failures(1))["q0"].code == "decoding_too_slow"
        assert len(await embedder.vectors(4)) == 4
        record = await embedder.record()
        assert (record.reason, record.correlation_id) == ("decoding_too_slow", "q0")
        assert (record.format, record.size_bytes, record.deaths) == ("JPEG", len(SLOW), 0)
        assert embedder.count("stuck_decode_threads") == 1
        model.decoding.set()
        await embedder.until(lambda: embedder.count("stuck_decode_threads") == 0)
        await embedder.ask(pictures.plain_jpeg(GREEN))
        assert len(await embedder.vectors(1)) == 1


class CrashingModel(FakeModel):
    """Raises for one image as if its decoding process had ended."""

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        """Raise as the pool of decoding processes does."""
        if image == SLOW:
            message = "the process that decoded the image ended with -11"
            raise DecoderCrashed(message)
        return super().prepare(image, box, known=known)


async def test_an_image_that_ends_its_decoding_process_is_answered_and_quarantined() -> None:
    """The image gets its own failure and goes into quarantine; no other image is affected."""
    async with running_embedder(CrashingModel()) as embedder:
        await embedder.ask(SLOW, *[pictures.plain_jpeg(GREEN)] * 4)
        assert (await embedder.failures(1))["q0"].code == "decoder_crashed"
        assert len(await embedder.vectors(4)) == 4
        record = await embedder.record()
        assert (record.reason, record.correlation_id) == ("decoder_crashed", "q0")
        assert embedder.count("stuck_decode_threads") == 0


async def test_as_many_spare_threads_as_threads_then_the_embedder_ends() -> None:
    """Two stuck threads of two are replaced; the third ends the embedder."""
    model = SlowModel()
    async with running_embedder(model, decode_timeout_seconds=0.02) as embedder:
        await embedder.ask(SLOW, SLOW)
        await embedder.failures(2)
        await embedder.ask(pictures.plain_jpeg(GREEN))
        await embedder.vectors(1)
        await embedder.ask(SLOW)
        with pytest.raises(StageDied, match="stuck"):
            await embedder.running
        # The third image waits for another embedder.
        assert await embedder.broker.depth(topology.EMBED.name) == 1
        model.decoding.set()


class _Counting(FakeModel):
    """Counts the images that are being decoded; each waits for its release."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.max = 0
        self.lock, self.decoding = threading.Lock(), threading.Semaphore(0)

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        with self.lock:
            self.now += 1
            self.max = max(self.max, self.now)
        assert self.decoding.acquire(timeout=30)
        with self.lock:
            self.now -= 1
        return super().prepare(image, box, known=known)


async def test_large_images_are_decoded_one_at_a_time() -> None:
    """Two threads never decode two large images at the same time."""
    model, observed = _Counting(), instruments()
    policy = BatchPolicy(max_images=4, max_wait_seconds=0, workers=1, chunk_images=4)
    queue = WorkQueue(policy, observed.decoding, workers_decode=False)
    decoder = Decoder(model, LIMITS, queue, observed.metrics, small_bytes=0)
    async with published_by(Timing()) as published:
        threads = WorkerThreads(
            queue,
            decoder,
            published.publisher,
            observed,
            decode_threads=2,
            decode_timeout_seconds=60,
        )
        await threads.start([Worker(model, observed.metrics, observed.model)])
        for number in range(4):
            queue.put(job(f"q{number}", pictures.plain_jpeg(RED)))
        model.decoding.release(4)
        await published.wait(4)
        queue.close()
    assert model.max == 1


async def test_an_image_that_breaks_the_model_alone_is_quarantined() -> None:
    """The record describes the image; the bytes of the image are not kept by default."""
    bad = pictures.plain_jpeg(WHITE)
    async with running_embedder() as embedder:
        await embedder.ask(pictures.plain_jpeg(GREEN), bad)
        assert set(await embedder.failures(1)) == {"q1"}
        await embedder.vectors(1)
        delivery = await embedder.quarantined()
        record = Record.of(delivery.headers)
        assert (record.reason, record.correlation_id) == ("internal", "q1")
        assert (record.queue, record.model_id) == ("simile.embed", "fake@0/mean/3")
        assert (record.size_bytes, delivery.body) == (len(bad), b"")
        assert embedder.count("quarantined_total", code="internal") == 1


async def test_bytes_are_kept_where_a_setting_says_so() -> None:
    """The record holds the whole request when `quarantine_images` is set."""
    bad = pictures.plain_jpeg(WHITE)
    async with running_embedder(quarantine_images=True) as embedder:
        await embedder.ask(bad)
        await embedder.failures(1)
        delivery = await embedder.quarantined()
        kept = codec.decode(delivery.type, delivery.body)
        assert isinstance(kept, EmbedRequest)
        assert kept.image == bad


async def test_an_ordinary_bad_image_is_not_quarantined() -> None:
    """A broken image is answered and does not go into quarantine."""
    async with running_embedder() as embedder:
        await embedder.ask(b"no image", pictures.plain_jpeg(RED, (200, 200))[:-200])
        await embedder.failures(2)
        assert await embedder.broker.depth(topology.QUARANTINE.name) == 0


async def test_redelivered_images_are_tried_alone_and_answered() -> None:
    """After a lost connection each image goes through the suspects' queue and gets its vector."""
    async with running_embedder() as embedder:
        await embedder.wait_entered()  # the warm-up
        embedder.model.gate.clear()
        await embedder.ask(*[pictures.plain_jpeg(GREEN)] * 4)
        await embedder.wait_entered()
        await embedder.until(lambda: embedder.in_flight == 4)
        embedder.broker.sever()
        await embedder.until(lambda: embedder.count("suspects_total") == 4)
        embedder.model.gate.set()
        names = [item.slip.correlation_id for item in await embedder.vectors(8)]
        assert set(names) == {"q0", "q1", "q2", "q3"}
        assert embedder.model.batches[-4:] == [1, 1, 1, 1]
        await embedder.until(lambda: embedder.in_flight == 0)
        assert await embedder.broker.depth(topology.EMBED_SUSPECTS.name) == 0
        assert await embedder.broker.depth(topology.QUARANTINE.name) == 0


async def test_a_suspect_that_cannot_be_moved_is_tried_alone_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image gets its vector here when the suspects' queue is full."""
    broker = MemoryBroker()
    await _died_with(broker, topology.EMBED, 1)
    publish = broker.publish

    async def full(queue: str, message: Message) -> None:
        if queue == topology.EMBED_SUSPECTS.name:
            raise Overloaded(queue)
        await publish(queue, message)

    monkeypatch.setattr(broker, "publish", full)
    async with running_embedder(broker=broker) as embedder:
        assert [item.slip.correlation_id for item in await embedder.vectors(1)] == ["poison"]
        assert embedder.count("suspects_total") == 0


@pytest.mark.parametrize("origin", [topology.EMBED, topology.EMBED_BULK], ids=["one", "bulk"])
async def test_an_image_that_crashed_three_embedders_is_not_tried_again(origin: Queue) -> None:
    """At the third crash the image is answered and quarantined, and not decoded."""
    broker = MemoryBroker()
    await _died_with(broker, topology.EMBED_SUSPECTS, 2, {"queue": origin.name})
    async with running_embedder(broker=broker) as embedder:
        assert (await embedder.failures(1))["poison"].code == "image_quarantined"
        record = await embedder.record()
        assert (record.reason, record.deaths) == ("image_quarantined", 3)
        assert record.queue == origin.name
        assert embedder.model.batches == [1]  # the warm-up
        await embedder.until(lambda: embedder.in_flight == 0)
        assert await broker.depth(topology.EMBED_SUSPECTS.name) == 0


async def test_an_image_that_crashed_two_embedders_is_tried_again() -> None:
    """An image with two crashes is tried once more."""
    broker = MemoryBroker()
    await _died_with(broker, topology.EMBED_SUSPECTS, 1)
    async with running_embedder(broker=broker) as embedder:
        assert [item.slip.correlation_id for item in await embedder.vectors(1)] == ["poison"]


async def _died_with(
    broker: MemoryBroker, queue: Queue, times: int, headers: Mapping[str, str] | None = None
) -> None:
    """Publish an image that `times` consumers of the queue ended with."""
    await broker.start([*topology.ALL, CALLER, NEXT])
    type_name, body = codec.encode(request(pictures.plain_jpeg(RED), "poison"))
    await broker.publish(queue.name, Message(type_name, body, headers=headers or {}))
    for _ in range(times):
        consumer = await broker.consume(queue, prefetch=1)
        assert len(await consumer.take(1)) == 1
        await consumer.close()
