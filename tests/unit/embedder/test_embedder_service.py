"""An embedder on the broker in memory produces its results, with a model without a network."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import numpy as np
import pytest
from PIL import Image

from services.embedder.models.model import Pixels, Vectors
from services.embedder.results import Timing
from services.shared.contracts import Box, Question, Replies
from services.shared.errors import StageDied
from services.shared.messaging import topology
from services.shared.messaging.broker import Message, Queue
from services.shared.messaging.memory import MemoryBroker
from tests.support import pictures
from tests.support.fake_model import BLACK, BLUE, GREEN, RED, WHITE, FakeModel
from tests.support.running_embedder import (
    CALLER,
    NEXT,
    CountingBroker,
    RunningEmbedder,
    running_embedder,
)

AT_ONCE: Final = Timing(retry_seconds=0.0)


async def test_an_image_becomes_a_unit_vector(embedder: RunningEmbedder) -> None:
    """The vector has length 1 and goes to `reply_to` with the slip and the time of each stage."""
    await embedder.ask(pictures.plain_jpeg(GREEN), question=Question(collection="shop", k=7))
    (message,) = await embedder.messages(1)
    assert (message.model_id, message.dimension) == ("fake@0/mean/3", 3)
    (item,) = message.items
    assert (item.slip.correlation_id, item.slip.question.collection) == ("q0", "shop")
    assert np.frombuffer(item.vector, "<f4").tolist() == [0, 1, 0]
    assert list(item.stages) == ["embed_queue", "decode", "batch_wait", "model"]
    assert item.batch_images == 1


async def test_only_the_box_is_embedded(embedder: RunningEmbedder) -> None:
    """A slip with a box gets the vector of that part; a box that is too small fails alone."""
    picture = Image.new("RGB", (64, 32), RED)
    picture.paste(BLUE, (32, 0, 64, 32))
    image = pictures.encoded(picture, "PNG")
    await embedder.ask(image, box=Box(0.5, 0, 0.5, 1))
    (item,) = await embedder.vectors(1)
    assert np.frombuffer(item.vector, "<f4").tolist() == [0, 0, 1]
    await embedder.ask(image, box=Box(0, 0, 0.1, 1))
    assert (await embedder.failures(1))["q1"].code == "box_too_small"


async def test_a_message_is_acked_only_after_its_result_is_sent(embedder: RunningEmbedder) -> None:
    """An image that is in the model when the connection breaks is delivered again."""
    await embedder.hold()
    embedder.broker.sever()
    embedder.model.gate.set()
    await embedder.until(lambda: embedder.count("redelivered_total") == 1)


class _HoldingBroker(MemoryBroker):
    """Never confirms a publish to one queue."""

    def __init__(self, held: Queue) -> None:
        super().__init__()
        self.publishing = asyncio.Event()
        self._held = held

    async def publish(self, queue: str, message: Message) -> None:
        """Hold the publish where the queue is the held one."""
        if queue == self._held.name:
            self.publishing.set()
            await asyncio.Event().wait()
        await super().publish(queue, message)


@pytest.mark.parametrize("queue", [topology.EMBED, topology.EMBED_BULK], ids=["one", "bulk"])
@pytest.mark.parametrize(
    ("image", "held"),
    [
        pytest.param(pictures.plain_jpeg(GREEN), NEXT, id="vector"),
        pytest.param(b"no image", CALLER, id="failure"),
        pytest.param(pictures.plain_jpeg(WHITE), topology.QUARANTINE, id="quarantined image"),
    ],
)
async def test_no_message_is_acked_before_its_result_is_confirmed(
    queue: Queue, image: bytes, held: Queue
) -> None:
    """An embedder that ends while it publishes a result leaves the image in its queue."""
    broker = _HoldingBroker(held)
    async with running_embedder(broker=broker, drain_timeout_seconds=0.01) as embedder:
        await embedder.ask(image, queue=queue)
        await broker.publishing.wait()
        embedder.stop.set()
        await embedder.running
        assert await broker.depth(queue.name) == 1


@pytest.mark.parametrize("message", [Message("simile.v1.EmbedRequest", b"\xff"), Message("?", b"")])
async def test_an_undecodable_message_is_acked_only_after_its_record_is_confirmed(
    message: Message,
) -> None:
    """An embedder that ends while it publishes a record leaves the message in its queue."""
    broker = _HoldingBroker(topology.QUARANTINE)
    async with running_embedder(broker=broker, drain_timeout_seconds=0.01) as embedder:
        await broker.publish(topology.EMBED.name, message)
        await broker.publishing.wait()
        embedder.stop.set()
        await embedder.running
        assert await broker.depth(topology.EMBED.name) == 1


async def test_a_suspect_is_acked_only_after_its_queue_has_confirmed_it() -> None:
    """An embedder that ends while it moves a redelivered image leaves it in its queue."""
    broker = _HoldingBroker(topology.EMBED_SUSPECTS)
    async with running_embedder(broker=broker, drain_timeout_seconds=0.01) as embedder:
        await embedder.hold()
        broker.sever()
        await broker.publishing.wait()
        embedder.model.gate.set()
        embedder.stop.set()
        await embedder.running
        assert await broker.depth(topology.EMBED.name) == 1


@pytest.mark.parametrize(
    ("image", "code", "reach_the_model"),
    [
        (b"no image", "unsupported_format", 2),
        (b"", "empty_image", 2),
        (pictures.plain_jpeg(RED, (200, 200))[:-200], "undecodable_image", 2),
        (pictures.plain_jpeg(WHITE), "internal", 3),
        (pictures.plain_jpeg(BLACK), "invalid_vector", 3),
    ],
)
async def test_a_bad_image_fails_alone(
    embedder: RunningEmbedder, image: bytes, code: str, reach_the_model: int
) -> None:
    """The caller gets the reason; the other images in the batch get their vectors."""
    await embedder.hold()
    good = pictures.plain_jpeg(GREEN)
    await embedder.ask(good, image, good)
    await embedder.wait_decoded(reach_the_model)
    embedder.model.gate.set()
    failures = await embedder.failures(1)
    assert {name: failure.code for name, failure in failures.items()} == {"q1": code}
    assert {item.slip.correlation_id for item in await embedder.vectors(3)} == {
        "q-held",
        "q0",
        "q2",
    }
    await embedder.until(lambda: embedder.in_flight == 0)
    assert embedder.count("images_total", intake="interactive", code=code) == 1
    assert embedder.count("images_total", intake="interactive", code="ok") == 3


async def test_an_image_that_breaks_the_model_is_found_by_halves(embedder: RunningEmbedder) -> None:
    """When the model fails on one of four images, few of the others are computed again."""
    await embedder.hold()
    good, bad = pictures.plain_jpeg(GREEN), pictures.plain_jpeg(WHITE)
    await embedder.ask(good, bad, good, good)
    await embedder.wait_decoded(4)
    embedder.model.gate.set()
    assert set(await embedder.failures(1)) == {"q1"}
    await embedder.vectors(4)
    # The image may be in either half, since two threads decode in any order.
    assert embedder.model.batches[-5:] in ([4, 2, 1, 1, 2], [4, 2, 2, 1, 1])
    assert embedder.count("model_faults_total") == 3


async def test_a_model_that_fails_on_everything_ends_the_embedder() -> None:
    """A broken device fails every image, so the process ends and can be started again."""

    class Broken(FakeModel):
        def embed(self, batch: Pixels) -> Vectors:
            if batch.any():
                message = "the device is lost"
                raise RuntimeError(message)
            return super().embed(batch)

    async with running_embedder(Broken(), max_batch_size=8) as embedder:
        await embedder.ask(*[pictures.plain_jpeg(RED)] * 40)
        with pytest.raises(StageDied, match="the device is lost"):
            await embedder.running
        # The images that the embedder held wait for another embedder.
        assert await embedder.broker.depth(topology.EMBED.name) > 0


async def test_expired_images_are_dropped_undecoded(embedder: RunningEmbedder) -> None:
    """An image past its deadline is counted, and causes no work and no answer."""
    past = time.time_ns() // 1_000_000 - 1
    await embedder.ask(b"would fail if it were decoded", deadline_unix_ms=past)
    await embedder.ask(pictures.plain_jpeg(RED))
    assert [item.slip.correlation_id for item in await embedder.vectors(1)] == ["q1"]
    assert embedder.count("expired_total", before="decode") == 1


async def test_images_that_expire_in_the_queue_skip_the_model(
    embedder: RunningEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that expires after it was decoded costs no model time."""
    await embedder.hold()
    deadline = time.time_ns() // 1_000_000 + 60_000
    await embedder.ask(pictures.plain_jpeg(GREEN), deadline_unix_ms=deadline)
    await embedder.wait_decoded(1)
    monkeypatch.setattr(time, "time_ns", lambda: (deadline + 1) * 1_000_000)
    batches = len(embedder.model.batches)
    embedder.model.gate.set()
    await embedder.until(lambda: embedder.count("expired_total", before="model") == 1)
    await embedder.until(lambda: embedder.in_flight == 0)
    assert len(embedder.model.batches) == batches


async def test_an_undecodable_message_is_quarantined(embedder: RunningEmbedder) -> None:
    """A body that does not match its type goes into quarantine; the next message is served."""
    rubbish = Message("simile.v1.EmbedRequest", b"\xff\xff\xff")
    await embedder.broker.publish(topology.EMBED.name, rubbish)
    record = await embedder.record()
    assert (record.reason, record.queue) == ("undecodable_message", "simile.embed")
    assert "parse" in record.detail
    assert record.size_bytes == len(rubbish.body)
    await embedder.ask(pictures.plain_jpeg(RED))
    await embedder.vectors(1)
    assert embedder.count("undecodable_total") == 1


async def test_a_message_of_another_kind_is_quarantined(embedder: RunningEmbedder) -> None:
    """A valid message of the wrong type goes into quarantine, also from the bulk queue."""
    await embedder.broker.publish(topology.EMBED_BULK.name, Message.of(Replies(())))
    record = await embedder.record()
    assert record.queue == "simile.embed.bulk"
    assert "Replies" in record.detail


async def test_a_caller_that_is_gone_stops_nothing(embedder: RunningEmbedder) -> None:
    """A failure without a queue to receive it is counted; the next image is served."""
    await embedder.ask(b"no image", final_reply_to="gone")
    await embedder.ask(pictures.plain_jpeg(RED), reply_to="gone too")
    await embedder.ask(pictures.plain_jpeg(RED))
    assert [item.slip.correlation_id for item in await embedder.vectors(1)] == ["q2"]
    await embedder.until(lambda: embedder.count("unanswerable_total") == 2)
    await embedder.until(lambda: embedder.in_flight == 0)


async def test_a_full_search_queue_is_reported_to_the_caller(embedder: RunningEmbedder) -> None:
    """An interactive caller gets `overloaded` at once when the search queue is full."""
    full = Queue(name="full", max_length=0)
    await embedder.broker.start([full])
    await embedder.ask(pictures.plain_jpeg(RED), reply_to="full")
    assert (await embedder.failures(1))["q0"].code == "overloaded"


async def test_bulk_waits_for_a_full_queue() -> None:
    """The vectors of a build are published when the queue has room; images are embedded once."""
    async with running_embedder(timing=AT_ONCE) as embedder:
        await embedder.broker.start([Queue(name="small", max_length=1)])
        await embedder.broker.publish("small", Message.of(Replies(())))
        await embedder.wait_consuming()
        warmed = len(embedder.model.batches)
        await embedder.ask(pictures.plain_jpeg(RED), reply_to="small", queue=topology.EMBED_BULK)
        await embedder.until(lambda: len(embedder.model.batches) == warmed + 1)
        small = await embedder.broker.consume(Queue(name="small", max_length=1), prefetch=10)
        found: list[str] = []
        while len(found) < 2:
            found += [delivery.type for delivery in await small.take(10)]
        assert found == ["simile.v1.Replies", "simile.v1.Embeddings"]
        assert len(embedder.model.batches) == warmed + 1


@pytest.mark.parametrize("queue", [topology.EMBED, topology.EMBED_BULK])
async def test_a_blocked_broker_loses_and_repeats_nothing(queue: Queue) -> None:
    """Results wait while the broker is blocked: not embedded again, not dead-lettered."""
    broker = CountingBroker()
    async with running_embedder(broker=broker, timing=AT_ONCE) as embedder:
        await embedder.wait_consuming()
        warmed = len(embedder.model.batches)
        await embedder.ask(pictures.plain_jpeg(RED), queue=queue)
        broker.block()
        await embedder.until(lambda: broker.refused >= 10)
        broker.unblock()
        await embedder.vectors(1)
        await embedder.until(lambda: embedder.in_flight == 0)
        assert len(embedder.model.batches) == warmed + 1
        for name in (topology.QUARANTINE.name, topology.EMBED_BULK_DEAD.name):
            assert await broker.depth(name) == 0


async def test_a_lost_connection_is_consumed_again(embedder: RunningEmbedder) -> None:
    """The embedder consumes again by itself after its connection broke."""
    await embedder.ask(pictures.plain_jpeg(RED))
    await embedder.vectors(1)
    embedder.broker.sever()
    await embedder.ask(pictures.plain_jpeg(GREEN))
    assert [item.slip.correlation_id for item in await embedder.vectors(1)] == ["q1"]


async def test_a_canary_is_counted_apart(embedder: RunningEmbedder) -> None:
    """A canary is embedded like any image, and is not counted among the interactive ones."""
    await embedder.ask(pictures.plain_jpeg(RED), canary=True)
    await embedder.vectors(1)
    await embedder.until(lambda: embedder.count("images_total", intake="canary", code="ok") == 1)
    assert embedder.count("images_total", intake="interactive", code="ok") == 0
    assert embedder.count("stage_seconds_count", stage="model") == 0
