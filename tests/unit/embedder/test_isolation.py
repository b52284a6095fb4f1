"""One image must not spoil it for others: what is slow, what breaks the model, what kills."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

import pytest

from services.embedder import decoding
from services.embedder.models.model import Pixels
from services.shared.contracts import Box, EmbedRequest, codec
from services.shared.errors import DecoderCrashed, Overloaded, StageDied
from services.shared.messaging import topology
from services.shared.messaging.broker import Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.quarantine import Record
from tests.support import pictures
from tests.support.embedder_house import ASKER, NEXT, embedder_house, request
from tests.support.fake_model import BLUE, GREEN, RED, WHITE, FakeModel

SLOW: Final = pictures.plain_jpeg(BLUE, (64, 64))


class SlowModel(FakeModel):
    """Takes for ever to decode one image."""

    def __init__(self) -> None:
        super().__init__()
        self.decoding = threading.Event()

    def prepare(self, image: bytes, box: Box | None = None) -> Pixels:
        """Wait where the image is the slow one."""
        if image == SLOW:
            assert self.decoding.wait(60)
        return super().prepare(image, box)


APART_OR_BY_WORKERS: Final = pytest.mark.parametrize("decode_threads", [2, None])
"""Threads that only decode, or the worker decodes for itself."""


@APART_OR_BY_WORKERS
async def test_an_image_that_takes_too_long_is_answered_and_set_aside(
    decode_threads: int | None,
) -> None:
    """It gets its own failure; images behind it get their vectors all the while."""
    model = SlowModel()
    async with embedder_house(
        model, decode_threads=decode_threads, decode_timeout_seconds=0.5, max_batch_size=1
    ) as house:
        await house.ask(SLOW, *[pictures.plain_jpeg(GREEN)] * 4)
        assert (await house.failures(1))["q0"].code == "decoding_too_slow"
        assert len(await house.vectors(4)) == 4
        record = await house.record()
        assert (record.reason, record.correlation_id) == ("decoding_too_slow", "q0")
        assert (record.format, record.size_bytes, record.deaths) == ("JPEG", len(SLOW), 0)
        assert house.count("stuck_decode_threads") == 1
        model.decoding.set()
        await house.until(lambda: house.count("stuck_decode_threads") == 0)
        await house.ask(pictures.plain_jpeg(GREEN))
        assert len(await house.vectors(1)) == 1


class CrashingModel(FakeModel):
    """Meets one image that ends its decoding process."""

    def prepare(self, image: bytes, box: Box | None = None) -> Pixels:
        """Fail as the pool of decoding processes does."""
        if image == SLOW:
            message = "the process that decoded the image ended with -11"
            raise DecoderCrashed(message)
        return super().prepare(image, box)


async def test_an_image_that_ends_its_decoding_process_is_answered_and_set_aside() -> None:
    """It gets its own failure, and is in quarantine; the embedder and its neighbours live on."""
    async with embedder_house(CrashingModel()) as house:
        await house.ask(SLOW, *[pictures.plain_jpeg(GREEN)] * 4)
        assert (await house.failures(1))["q0"].code == "decoder_crashed"
        assert len(await house.vectors(4)) == 4
        record = await house.record()
        assert (record.reason, record.correlation_id) == ("decoder_crashed", "q0")
        assert house.count("stuck_decode_threads") == 0


async def test_as_many_spare_threads_as_threads_then_the_embedder_ends() -> None:
    """Two of two may be stuck and others are decoded; with the third nothing is left."""
    model = SlowModel()
    async with embedder_house(model, decode_timeout_seconds=0.02) as house:
        await house.ask(SLOW, SLOW)
        await house.failures(2)
        await house.ask(pictures.plain_jpeg(GREEN))
        await house.vectors(1)
        await house.ask(SLOW)
        with pytest.raises(StageDied, match="stuck"):
            await house.running
        # What it died of waits for another embedder.
        assert await house.broker.depth(topology.EMBED.name) == 1
        model.decoding.set()


async def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads never hold two large images at once; small ones pass them."""
    at_once, most, lock = 0, 0, threading.Lock()
    gate = threading.Semaphore(0)

    class Counting(FakeModel):
        def prepare(self, image: bytes, box: Box | None = None) -> Pixels:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            assert gate.acquire(timeout=30)
            with lock:
                at_once -= 1
            return super().prepare(image, box)

    monkeypatch.setattr(decoding, "SMALL_BYTES", 0)
    async with embedder_house(Counting()) as house:
        await house.ask(*[pictures.plain_jpeg(RED)] * 4)
        gate.release(4)
        await house.vectors(4)
    assert most == 1


async def test_what_breaks_the_model_alone_is_set_aside() -> None:
    """Its record says what is known; its bytes are not kept unless somebody wants that."""
    bad = pictures.plain_jpeg(WHITE)
    async with embedder_house() as house:
        await house.ask(pictures.plain_jpeg(GREEN), bad)
        assert set(await house.failures(1)) == {"q1"}
        await house.vectors(1)
        delivery = await house.set_aside()
        record = Record.of(delivery.headers)
        assert (record.reason, record.correlation_id) == ("internal", "q1")
        assert (record.queue, record.model_id) == ("simile.embed", "fake@0/mean/3")
        assert (record.size_bytes, delivery.body) == (len(bad), b"")
        assert house.count("quarantined_total", code="internal") == 1


async def test_bytes_are_kept_where_that_is_wanted() -> None:
    """The whole request is in the record, to look at and to try again."""
    bad = pictures.plain_jpeg(WHITE)
    async with embedder_house(quarantine_images=True) as house:
        await house.ask(bad)
        await house.failures(1)
        delivery = await house.set_aside()
        kept = codec.decode(delivery.type, delivery.body)
        assert isinstance(kept, EmbedRequest)
        assert kept.image == bad


async def test_an_ordinary_bad_image_is_not_set_aside() -> None:
    """It is answered, and that is all."""
    async with embedder_house() as house:
        await house.ask(b"no image", pictures.plain_jpeg(RED, (200, 200))[:-200])
        await house.failures(2)
        assert await house.broker.depth(topology.QUARANTINE.name) == 0


async def test_what_came_back_is_tried_alone_and_the_innocent_are_answered() -> None:
    """After a lost connection each image goes through the suspects' queue and gets its vector."""
    async with embedder_house() as house:
        await house.until_entered()  # the warm-up
        house.model.gate.clear()
        await house.ask(*[pictures.plain_jpeg(GREEN)] * 4)
        await house.until_entered()
        await house.until(lambda: house.count("in_hand_images") == 4)
        house.broker.sever()
        await house.until(lambda: house.count("suspects_total") == 4)
        house.model.gate.set()
        names = [item.slip.correlation_id for item in await house.vectors(8)]
        assert set(names) == {"q0", "q1", "q2", "q3"}
        assert house.model.batches[-4:] == [1, 1, 1, 1]
        await house.until(lambda: house.count("in_hand_images") == 0)
        assert await house.broker.depth(topology.EMBED_SUSPECTS.name) == 0
        assert await house.broker.depth(topology.QUARANTINE.name) == 0


async def test_a_suspect_that_cannot_be_handed_over_is_tried_alone_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the suspects' queue takes nothing, the image still gets its vector."""
    broker = MemoryBroker()
    await _died_with(broker, topology.EMBED, 1)
    publish = broker.publish

    async def full(queue: str, message: Message) -> None:
        if queue == topology.EMBED_SUSPECTS.name:
            raise Overloaded(queue)
        await publish(queue, message)

    monkeypatch.setattr(broker, "publish", full)
    async with embedder_house(broker=broker) as house:
        assert [item.slip.correlation_id for item in await house.vectors(1)] == ["poison"]
        assert house.count("suspects_total") == 0


@pytest.mark.parametrize("origin", [topology.EMBED, topology.EMBED_BULK], ids=["one", "bulk"])
async def test_what_embedders_die_with_is_not_tried_again(origin: Queue) -> None:
    """At the third death the image is answered, set aside, and not even decoded."""
    broker = MemoryBroker()
    await _died_with(broker, topology.EMBED_SUSPECTS, 2, {"queue": origin.name})
    async with embedder_house(broker=broker) as house:
        assert (await house.failures(1))["poison"].code == "image_quarantined"
        record = await house.record()
        assert (record.reason, record.deaths) == ("image_quarantined", 3)
        assert record.queue == origin.name
        assert house.model.batches == [1]  # the warm-up
        await house.until(lambda: house.count("in_hand_images") == 0)
        assert await broker.depth(topology.EMBED_SUSPECTS.name) == 0


async def test_what_embedders_died_with_twice_gets_another_chance() -> None:
    """A killed embedder may have been killed by anything."""
    broker = MemoryBroker()
    await _died_with(broker, topology.EMBED_SUSPECTS, 1)
    async with embedder_house(broker=broker) as house:
        assert [item.slip.correlation_id for item in await house.vectors(1)] == ["poison"]


async def _died_with(
    broker: MemoryBroker, queue: Queue, times: int, headers: Mapping[str, str] | None = None
) -> None:
    """An image that so many consumers of the queue ended with in hand."""
    await broker.start([*topology.ALL, ASKER, NEXT])
    type_name, body = codec.encode(request(pictures.plain_jpeg(RED), "poison"))
    await broker.publish(queue.name, Message(type_name, body, headers=headers or {}))
    for _ in range(times):
        consumer = await broker.consume(queue, prefetch=1)
        assert len(await consumer.take(1)) == 1
        await consumer.close()
