"""The embedder on the broker in memory, with a model that needs no network."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.embedder import holding, results, service
from services.embedder.models.model import Model, Pixels, Vectors
from services.embedder.pipeline import Pipeline
from services.embedder.settings import EmbedderSettings
from services.shared.contracts import (
    MAX_ITEMS,
    Box,
    Embedding,
    Embeddings,
    EmbedRequest,
    Failure,
    Question,
    Replies,
    Slip,
    codec,
)
from services.shared.errors import BrokerUnavailable, StageDied
from services.shared.messaging import topology
from services.shared.messaging.broker import Consumer, Message, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.quarantine import Record
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from tests.support import pictures
from tests.support.fake_model import BLACK, BLUE, GREEN, RED, WHITE, FakeModel

ASKER = Queue(name="asker", exclusive=True)
NEXT = Queue(name="next", exclusive=True)


@dataclass
class House:
    """A running embedder with a queue behind it and one for who asked."""

    broker: MemoryBroker
    model: FakeModel
    telemetry: Telemetry
    stop: asyncio.Event
    running: asyncio.Task[None]
    asker: Consumer
    next: Consumer
    pipelines: list[Pipeline]
    asked: list[str] = field(default_factory=list)

    async def ask(self, *images: bytes, queue: Queue = topology.EMBED, **slip: Any) -> None:
        """Publish the images; a slip's fields can be set."""
        for image in images:
            fields: dict[str, Any] = {"reply_to": NEXT.name, "final_reply_to": ASKER.name, **slip}
            fields.setdefault("correlation_id", f"q{len(self.asked)}")
            self.asked.append(fields["correlation_id"])
            request = EmbedRequest(Slip(**fields), image)
            await self.broker.publish(queue.name, Message.of(request))

    async def vectors(self, count: int) -> list[Embedding]:
        """So many embeddings, as they arrive."""
        return [item for message in await self.messages(count) for item in message.items]

    async def messages(self, count: int) -> list[Embeddings]:
        """The messages with so many embeddings in all."""
        found: list[Embeddings] = []
        while sum(len(message.items) for message in found) < count:
            for delivery in await self.next.take(1):
                message = codec.decode(delivery.type, delivery.body)
                assert isinstance(message, Embeddings)
                found.append(message)
                delivery.ack()
        return found

    async def failures(self, count: int) -> dict[str, Failure]:
        """So many failures by correlation id."""
        found: dict[str, Failure] = {}
        while len(found) < count:
            for delivery in await self.asker.take(1):
                message = codec.decode(delivery.type, delivery.body)
                assert isinstance(message, Replies)
                for reply in message.items:
                    assert isinstance(reply.outcome, Failure)
                    found[reply.correlation_id] = reply.outcome
                delivery.ack()
        return found

    async def record(self) -> Record:
        """The one record in quarantine."""
        consumer = await self.broker.consume(topology.QUARANTINE, prefetch=10)
        (delivery,) = await consumer.take(10)
        return Record.of(delivery.headers)

    async def hold(self) -> None:
        """Keep the only worker busy with one image, `q-held`, until the gate opens."""
        await self.until(lambda: self.consumes)
        while self.model.entered.acquire(blocking=False):
            pass
        self.model.gate.clear()
        await self.ask(pictures.plain_jpeg(RED), correlation_id="q-held")
        self.asked.clear()
        assert await asyncio.to_thread(self.model.entered.acquire, timeout=30)

    async def until(self, there: Callable[[], bool]) -> None:
        """Let the house go on until it is so."""
        async with asyncio.timeout(30):
            while not there():
                await asyncio.sleep(0.001)

    @property
    def waiting(self) -> int:
        """Images that are decoded and wait for the worker."""
        return self.pipelines[0]._crew._batcher._waiting

    @property
    def consumes(self) -> bool:
        """Whether the embedder takes interactive images: it is warm."""
        return bool(self.broker._stores[topology.EMBED.name].consumers)

    def count(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.telemetry.registry.get_sample_value(f"simile_embedder_{name}", labels) or 0.0


@asynccontextmanager
async def _house(
    model: FakeModel | None = None,
    *,
    max_batch_size: int = 4,
    drain_timeout_seconds: float = 20.0,
    **tuned: Any,
) -> AsyncIterator[House]:
    model, broker = model or FakeModel(), MemoryBroker()
    await broker.start(topology.ALL)
    stop, telemetry = asyncio.Event(), Telemetry()
    settings = EmbedderSettings(**{"max_batch_size": max_batch_size, "decode_threads": 2, **tuned})
    shared = SharedSettings(drain_timeout_seconds=drain_timeout_seconds)
    pipelines: list[Pipeline] = []

    class Seen(Pipeline):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            pipelines.append(self)

    def load(*_: object) -> Sequence[Model]:
        return [model]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "Pipeline", Seen)
        running = asyncio.create_task(
            service.run_with(load, settings, shared, broker, stop=stop, telemetry=telemetry)
        )
        asker = await broker.consume(ASKER, prefetch=100)
        following = await broker.consume(NEXT, prefetch=100)
        house = House(broker, model, telemetry, stop, running, asker, following, pipelines)
        try:
            async with asyncio.timeout(60):
                yield house
        finally:
            model.gate.set()
            stop.set()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A running embedder with one worker and batches of up to four."""
    async with _house() as house:
        yield house
        house.model.gate.set()
        house.stop.set()
        await house.running


async def test_an_image_becomes_a_unit_vector(house: House) -> None:
    """The vector has length 1 and goes to `reply_to` with the slip and the time of each stage."""
    await house.ask(pictures.plain_jpeg(GREEN), question=Question(collection="shop", k=7))
    (message,) = await house.messages(1)
    assert (message.model_id, message.dimension) == ("fake@0/mean/3", 3)
    (item,) = message.items
    assert (item.slip.correlation_id, item.slip.question.collection) == ("q0", "shop")
    assert np.frombuffer(item.vector, "<f4").tolist() == [0, 1, 0]
    assert list(item.stages) == ["embed_queue", "decode", "batch_wait", "model"]
    assert item.batch_images == 1


async def test_only_the_box_is_embedded(house: House) -> None:
    """A slip with a box gets the vector of that part; a box too small fails alone, by name."""
    picture = Image.new("RGB", (64, 32), RED)
    picture.paste(BLUE, (32, 0, 64, 32))
    image = pictures.encoded(picture, "PNG")
    await house.ask(image, box=Box(0.5, 0, 0.5, 1))
    (item,) = await house.vectors(1)
    assert np.frombuffer(item.vector, "<f4").tolist() == [0, 0, 1]
    await house.ask(image, box=Box(0, 0, 0.1, 1))
    assert (await house.failures(1))["q1"].code == "box_too_small"


async def test_a_message_is_acked_only_after_its_result_is_sent(house: House) -> None:
    """What is in the model when the connection breaks comes again."""
    await house.hold()
    house.broker.sever()
    house.model.gate.set()
    await house.until(lambda: house.count("redelivered_total") == 1)


async def test_batches_form_while_the_worker_is_busy(house: House) -> None:
    """An idle worker starts with one image; what came meanwhile goes together."""
    await house.hold()
    await house.ask(*[pictures.plain_jpeg(BLUE)] * 4)
    await house.until(lambda: house.count("in_hand_images") == 5)
    await house.until(lambda: house.waiting == 4)
    house.model.gate.set()
    await house.vectors(5)
    assert house.model.batches[-2:] == [1, 4]


async def test_a_worker_on_a_cpu_decodes_for_itself() -> None:
    """What came while it was busy it decodes, then runs together."""
    async with _house(decode_threads=None) as house:
        await house.hold()
        await house.ask(*[pictures.plain_jpeg(BLUE)] * 4)
        await house.until(lambda: house.count("in_hand_images") == 5)
        assert house.waiting == 0
        house.model.gate.set()
        await house.vectors(5)
        assert house.model.batches[-2:] == [1, 4]
        assert house.count("decode_threads") == 1


async def test_a_worker_that_decodes_is_busy() -> None:
    """Else an embedder that has large photographs to decode would seem to idle."""

    class Slow(FakeModel):
        def prepare(self, image: bytes, box: Box | None = None) -> Pixels:
            time.sleep(0.2)
            return super().prepare(image, box)

    async with _house(Slow(), decode_threads=None) as house:
        await house.ask(pictures.plain_jpeg(BLUE))
        await house.vectors(1)
        assert house.count("worker_busy_seconds_total") >= 0.2


class _OneByOne(FakeModel):
    """Its gate closes behind each batch, and so does another before each image after the first."""

    def __init__(self) -> None:
        super().__init__()
        self.decoding, self.decodes, self.prepared = threading.Event(), threading.Event(), 0

    def prepare(self, image: bytes, box: Box | None = None) -> Pixels:
        self.prepared += 1
        if self.prepared > 1:
            self.decodes.set()
            assert self.decoding.wait(30), "the test never opened the gate"
        return super().prepare(image, box)

    def embed(self, batch: Pixels) -> Vectors:
        vectors = super().embed(batch)
        if self.prepared:  # not when it gets warm
            self.gate.clear()
        return vectors


@asynccontextmanager
async def _decoding_the_next() -> AsyncIterator[tuple[House, _OneByOne]]:
    """An embedder whose only worker has run one image, and is at the pixels of another."""
    model = _OneByOne()
    async with _house(model, decode_threads=None) as house:
        await house.hold()
        await house.ask(pictures.plain_jpeg(BLUE))
        await house.until(lambda: house.count("in_hand_images") == 2)
        model.gate.set()
        assert await asyncio.to_thread(model.decodes.wait, 30)
        try:
            yield house, model
        finally:
            model.decoding.set()


async def test_results_go_when_the_next_batch_is_in_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that decodes is not held up by the sending of what it made before."""
    monkeypatch.setattr(holding, "_LONGEST_SECONDS", 60.0)
    async with _decoding_the_next() as (house, model):
        await asyncio.sleep(0.05)
        assert house.count("in_hand_images") == 2
        model.decoding.set()
        (held,) = await house.vectors(1)
        assert held.slip.correlation_id == "q-held"
        # The other is in the model, behind its gate.
        await house.until(lambda: house.count("in_hand_images") == 1)
        model.gate.set()
        await house.vectors(1)


async def test_no_result_waits_long_for_an_image_that_is_slow() -> None:
    """The other is still being decoded."""
    async with _decoding_the_next() as (house, model):
        (held,) = await house.vectors(1)
        assert held.slip.correlation_id == "q-held"
        assert not model.decoding.is_set()
        model.decoding.set()
        model.gate.set()
        await house.vectors(1)


async def test_interactive_overtakes_bulk(house: House) -> None:
    """Bulk images that came first are embedded after interactive ones, or fill their batch."""
    await house.hold()
    await house.ask(*[pictures.plain_jpeg(BLUE)] * 4, queue=topology.EMBED_BULK)
    await house.ask(*[pictures.plain_jpeg(GREEN)] * 3)
    await house.until(lambda: house.waiting == 7)
    house.model.gate.set()
    order = [item.slip.correlation_id for item in await house.vectors(8)]
    assert set(order[1:5]) >= {"q4", "q5", "q6"}
    assert house.model.batches[-3:] == [1, 4, 3]


async def test_one_message_per_next_queue(house: House) -> None:
    """A batch's results go to each next queue as one list."""
    other = await house.broker.consume(Queue(name="other", exclusive=True), prefetch=10)
    await house.hold()
    await house.ask(*[pictures.plain_jpeg(BLUE)] * 3)
    await house.ask(pictures.plain_jpeg(GREEN), reply_to="other")
    await house.until(lambda: house.waiting == 4)
    house.model.gate.set()
    assert [len(message.items) for message in await house.messages(4)] == [1, 3]
    (delivery,) = await other.take(10)
    message = codec.decode(delivery.type, delivery.body)
    assert isinstance(message, Embeddings)
    assert [item.slip.correlation_id for item in message.items] == ["q3"]


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
    house: House, image: bytes, code: str, reach_the_model: int
) -> None:
    """Who sent it is told why; its neighbours in the batch get their vectors."""
    await house.hold()
    good = pictures.plain_jpeg(GREEN)
    await house.ask(good, image, good)
    await house.until(lambda: house.waiting == reach_the_model)
    house.model.gate.set()
    failures = await house.failures(1)
    assert {name: failure.code for name, failure in failures.items()} == {"q1": code}
    assert {item.slip.correlation_id for item in await house.vectors(3)} == {"q-held", "q0", "q2"}
    await house.until(lambda: house.count("in_hand_images") == 0)
    assert house.count("images_total", intake="interactive", code=code) == 1
    assert house.count("images_total", intake="interactive", code="ok") == 3


async def test_a_culprit_is_found_by_halves(house: House) -> None:
    """Of eight images one breaks the model: few of its neighbours are computed again."""
    await house.hold()
    good, bad = pictures.plain_jpeg(GREEN), pictures.plain_jpeg(WHITE)
    await house.ask(good, bad, good, good)
    await house.until(lambda: house.waiting == 4)
    house.model.gate.set()
    assert set(await house.failures(1)) == {"q1"}
    await house.vectors(4)
    # Whichever half it is in: two threads decode, in any order.
    assert house.model.batches[-5:] in ([4, 2, 1, 1, 2], [4, 2, 2, 1, 1])
    assert house.count("model_faults_total") == 3


async def test_a_model_that_fails_on_everything_ends_the_embedder() -> None:
    """A broken device would fail every image for ever: a new process may find it mended."""

    class Broken(FakeModel):
        def embed(self, batch: Pixels) -> Vectors:
            if batch.any():
                message = "the device is lost"
                raise RuntimeError(message)
            return super().embed(batch)

    async with _house(Broken(), max_batch_size=8) as house:
        await house.ask(*[pictures.plain_jpeg(RED)] * 40)
        with pytest.raises(StageDied, match="the device is lost"):
            await house.running
        # What it held when it ended waits for another embedder.
        assert await house.broker.depth(topology.EMBED.name) > 0


async def test_expired_images_are_dropped_undecoded(house: House) -> None:
    """Nobody waits: no work, no answer, but a count."""
    past = time.time_ns() // 1_000_000 - 1
    await house.ask(b"would fail if it were decoded", deadline_unix_ms=past)
    await house.ask(pictures.plain_jpeg(RED))
    assert [item.slip.correlation_id for item in await house.vectors(1)] == ["q1"]
    assert house.count("expired_total", before="decode") == 1


async def test_images_that_expire_in_the_queue_skip_the_model(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decoded in time and expired while it waited costs no model time."""
    await house.hold()
    deadline = time.time_ns() // 1_000_000 + 60_000
    await house.ask(pictures.plain_jpeg(GREEN), deadline_unix_ms=deadline)
    await house.until(lambda: house.waiting == 1)
    monkeypatch.setattr(time, "time_ns", lambda: (deadline + 1) * 1_000_000)
    batches = len(house.model.batches)
    house.model.gate.set()
    await house.until(lambda: house.count("expired_total", before="model") == 1)
    await house.until(lambda: house.count("in_hand_images") == 0)
    assert len(house.model.batches) == batches


async def test_an_undecodable_message_is_set_aside(house: House) -> None:
    """A body that isn't what it says goes to quarantine, and the next one is served."""
    rubbish = Message("simile.v1.EmbedRequest", b"\xff\xff\xff")
    await house.broker.publish(topology.EMBED.name, rubbish)
    record = await house.record()
    assert (record.reason, record.queue) == ("undecodable_message", "simile.embed")
    assert "parse" in record.detail
    assert record.size_bytes == len(rubbish.body)
    await house.ask(pictures.plain_jpeg(RED))
    await house.vectors(1)
    assert house.count("undecodable_total") == 1


async def test_a_message_of_another_kind_is_set_aside(house: House) -> None:
    """So is a good message on the wrong queue, on bulk as well."""
    await house.broker.publish(topology.EMBED_BULK.name, Message.of(Replies(())))
    record = await house.record()
    assert record.queue == "simile.embed.bulk"
    assert "Replies" in record.detail


async def test_an_asker_who_is_gone_stops_nothing(house: House) -> None:
    """A failure that nobody can receive is counted, and the next image is served."""
    await house.ask(b"no image", final_reply_to="gone")
    await house.ask(pictures.plain_jpeg(RED), reply_to="gone too")
    await house.ask(pictures.plain_jpeg(RED))
    assert [item.slip.correlation_id for item in await house.vectors(1)] == ["q2"]
    await house.until(lambda: house.count("unanswerable_total") == 2)
    await house.until(lambda: house.count("in_hand_images") == 0)


async def test_a_full_search_queue_is_told_to_who_waits(house: House) -> None:
    """A person gets `overloaded` at once instead of silence."""
    full = Queue(name="full", max_length=0)
    await house.broker.start([full])
    await house.ask(pictures.plain_jpeg(RED), reply_to="full")
    assert (await house.failures(1))["q0"].code == "overloaded"


async def test_bulk_waits_for_a_full_queue(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build's vectors are sent when there is room again, embedded once."""
    monkeypatch.setattr(results, "_RETRY_SECONDS", 0.0)
    await house.broker.start([Queue(name="small", max_length=1)])
    await house.broker.publish("small", Message.of(Replies(())))
    await house.until(lambda: house.consumes)
    warmed = len(house.model.batches)
    await house.ask(pictures.plain_jpeg(RED), reply_to="small", queue=topology.EMBED_BULK)
    await house.until(lambda: len(house.model.batches) == warmed + 1)
    small = await house.broker.consume(Queue(name="small", max_length=1), prefetch=10)
    found: list[str] = []
    while len(found) < 2:
        found += [delivery.type for delivery in await small.take(10)]
    assert found == ["simile.v1.Replies", "simile.v1.Embeddings"]
    assert len(house.model.batches) == warmed + 1


@pytest.mark.parametrize("queue", [topology.EMBED, topology.EMBED_BULK])
async def test_a_blocked_broker_loses_and_repeats_nothing(
    house: House, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the broker takes nothing the result waits: not embedded again, not dead-lettered."""
    monkeypatch.setattr(results, "_RETRY_SECONDS", 0.0)
    refused = asyncio.Event()
    publish = house.broker.publish
    tries = 0

    async def count(name: str, message: Message) -> None:
        nonlocal tries
        try:
            await publish(name, message)
        except BrokerUnavailable:
            tries += 1
            if tries == 10:
                refused.set()
            raise

    monkeypatch.setattr(house.broker, "publish", count)
    await house.until(lambda: house.consumes)
    warmed = len(house.model.batches)
    await house.ask(pictures.plain_jpeg(RED), queue=queue)
    house.broker.block()
    await refused.wait()
    house.broker.unblock()
    await house.vectors(1)
    await house.until(lambda: house.count("in_hand_images") == 0)
    assert len(house.model.batches) == warmed + 1
    for name in (topology.QUARANTINE.name, topology.EMBED_BULK_DEAD.name):
        assert await house.broker.depth(name) == 0


async def test_a_lost_connection_is_consumed_again(house: House) -> None:
    """After the connection broke the embedder goes on by itself."""
    await house.ask(pictures.plain_jpeg(RED))
    await house.vectors(1)
    house.broker.sever()
    house.next = await house.broker.consume(NEXT, prefetch=100)
    await house.ask(pictures.plain_jpeg(GREEN))
    assert [item.slip.correlation_id for item in await house.vectors(1)] == ["q1"]


async def test_ready_when_warm_and_consuming() -> None:
    """Not ready before the model is warm; ready after; live all the time."""
    model = FakeModel()
    model.gate.clear()
    async with _house(model) as house:
        assert await asyncio.to_thread(model.entered.acquire, timeout=30)
        assert "model" in house.telemetry.health.not_ready()
        assert not house.telemetry.health.not_live()
        model.gate.set()
        await house.until(lambda: not house.telemetry.health.not_ready())


async def test_a_stuck_model_is_seen() -> None:
    """A batch that doesn't end makes the embedder unready, then not live; it can recover."""
    async with _house(unready_after_seconds=0.01, dead_after_seconds=0.02) as house:
        await house.hold()
        await house.until(lambda: "model" in house.telemetry.health.not_live())
        assert "model" in house.telemetry.health.not_ready()
        await house.until(lambda: "images" in house.telemetry.health.not_live())
        house.model.gate.set()
        await house.until(lambda: not house.telemetry.health.not_ready())


async def test_stop_finishes_what_was_taken() -> None:
    """What is in hand when `stop` comes is answered; nothing more is taken; `run` returns."""
    async with _house() as house:
        await house.hold()
        await house.ask(pictures.plain_jpeg(GREEN))
        await house.until(lambda: house.waiting == 1)
        house.stop.set()
        await house.until(lambda: not house.consumes)
        await house.ask(pictures.plain_jpeg(BLUE), correlation_id="too late")
        house.model.gate.set()
        names = {item.slip.correlation_id for item in await house.vectors(2)}
        assert names == {"q-held", "q0"}
        await house.running
        assert await house.broker.depth(topology.EMBED.name) == 1


async def test_stop_gives_back_what_was_not_begun() -> None:
    """Images that no decoder has taken go back at once: another embedder is quicker."""
    gate, entered = threading.Event(), threading.Semaphore(0)

    class Decoding(FakeModel):
        def prepare(self, image: bytes, box: Box | None = None) -> Pixels:
            entered.release()
            assert gate.wait(30), "the test never opened the gate"
            return super().prepare(image, box)

    async with _house(Decoding()) as house:
        await house.ask(*[pictures.plain_jpeg(GREEN)] * 5)
        for _ in range(2):
            assert await asyncio.to_thread(entered.acquire, timeout=30)
        await house.until(lambda: house.count("in_hand_images") == 5)
        house.stop.set()
        await house.until(lambda: house.count("in_hand_images") == 2)
        assert await house.broker.depth(topology.EMBED.name) == 3
        gate.set()
        names = {item.slip.correlation_id for item in await house.vectors(2)}
        assert names == {"q0", "q1"}
        await house.running


async def test_a_drain_that_takes_too_long_ends() -> None:
    """A stuck model doesn't hold up the end: what it holds goes back to the queue."""
    async with _house(drain_timeout_seconds=0.01) as house:
        await house.hold()
        house.stop.set()
        await house.running
        assert await house.broker.depth(topology.EMBED.name) == 1


class _Dead(BaseException):
    """What a thread can die of."""


async def test_a_dead_worker_ends_the_embedder() -> None:
    """A worker that dies of what no image can cause takes the process with it."""

    class Dying(FakeModel):
        def embed(self, batch: Any) -> Any:
            if batch.any():
                raise _Dead
            return super().embed(batch)

    async with _house(Dying()) as house:
        await house.ask(pictures.plain_jpeg(RED))
        with pytest.raises(StageDied, match="stage threads ended"):
            await house.running


@pytest.mark.parametrize("decode_threads", [2, None])
async def test_a_dead_decoder_ends_the_embedder(decode_threads: int | None) -> None:
    """So does a thread that decodes; its image goes back to the queue."""

    class Dying(FakeModel):
        def prepare(self, image: bytes, box: Box | None = None) -> Pixels:
            if image:
                raise _Dead
            return super().prepare(image, box)

    async with _house(Dying(), decode_threads=decode_threads) as house:
        await house.ask(pictures.plain_jpeg(RED))
        with pytest.raises(StageDied, match="stage threads ended"):
            await house.running
        assert await house.broker.depth(topology.EMBED.name) == 1


async def test_a_start_that_fails_ends_the_embedder() -> None:
    """What can't run once will not run later."""

    class Dead(FakeModel):
        def embed(self, batch: Any) -> Any:
            message = f"no device for {len(batch)} images"
            raise RuntimeError(message)

    async with _house(Dead()) as house:
        with pytest.raises(RuntimeError, match="no device"):
            await house.running


async def test_a_defect_in_sending_ends_the_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that can't be sent for no known reason are no reason to go on half dead."""
    async with _house() as house:
        await house.ask(pictures.plain_jpeg(RED))
        await house.vectors(1)

        async def broken(*_: object) -> None:
            message = "a defect"
            raise RuntimeError(message)

        await house.ask(pictures.plain_jpeg(RED))
        monkeypatch.setattr(house.broker, "publish", broken)
        with pytest.raises(StageDied, match="a defect"):
            await house.running


async def test_a_wedged_decoder_is_seen() -> None:
    """Decoding is watched as the model is."""
    gate = threading.Event()

    class Decoding(FakeModel):
        def prepare(self, image: bytes, box: Box | None = None) -> Pixels:
            assert gate.wait(30), "the test never opened the gate"
            return super().prepare(image, box)

    async with _house(Decoding(), unready_after_seconds=0.05, dead_after_seconds=0.1) as house:
        await house.ask(pictures.plain_jpeg(RED))
        await house.until(lambda: "decode" in house.telemetry.health.not_live())
        gate.set()
        await house.vectors(1)
        assert not house.telemetry.health.not_live()


async def test_results_that_get_stuck_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A publish that neither succeeds nor fails is a stage that stands still."""
    async with _house(
        drain_timeout_seconds=0.01, unready_after_seconds=0.05, dead_after_seconds=0.1
    ) as house:
        await house.ask(pictures.plain_jpeg(RED))

        async def stuck(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(house.broker, "publish", stuck)
        await house.until(lambda: "results" in house.telemetry.health.not_live())


async def test_a_broker_that_is_away_is_no_stall() -> None:
    """Results that wait for the broker are tried again and again: a restart would lose them."""
    async with _house(unready_after_seconds=0.5, dead_after_seconds=0.5) as house:
        await house.until(lambda: house.consumes)
        await house.ask(pictures.plain_jpeg(RED))
        house.broker.block()
        await asyncio.sleep(1.0)
        assert not house.telemetry.health.not_live()
        house.broker.unblock()
        await house.vectors(1)


async def test_an_intake_that_gets_no_queue_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a broker there and no consumer for long, a restart helps; without one it does not."""
    async with _house(dead_after_seconds=0.05) as house:
        await house.until(lambda: house.consumes)
        health, ready = house.telemetry.health, True
        monkeypatch.setattr(MemoryBroker, "ready", property(lambda _: ready))

        async def never(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(house.broker, "consume", never)
        house.broker.sever()
        name = f"intake {topology.EMBED.name}"
        await house.until(lambda: name in health.not_live())
        ready = False
        assert name not in health.not_live()
        assert name in health.not_ready()


async def test_a_canary_is_counted_apart(house: House) -> None:
    """It is embedded like any image, and is none of people's."""
    await house.ask(pictures.plain_jpeg(RED), canary=True)
    await house.vectors(1)
    await house.until(lambda: house.count("images_total", intake="canary", code="ok") == 1)
    assert house.count("images_total", intake="interactive", code="ok") == 0
    assert house.count("stage_seconds_count", stage="model") == 0


async def test_a_stop_while_the_model_loads_ends_the_embedder() -> None:
    """A signal does not wait for weights, an export, or a download."""
    loading, gate, stop = threading.Event(), threading.Event(), asyncio.Event()

    def load(*_: object) -> Sequence[Model]:
        loading.set()
        gate.wait(30)
        return [FakeModel()]

    broker = MemoryBroker()
    await broker.start(topology.ALL)
    running = asyncio.create_task(
        service.run_with(
            load, EmbedderSettings(), SharedSettings(), broker, stop=stop, telemetry=Telemetry()
        )
    )
    assert await asyncio.to_thread(loading.wait, 30)
    stop.set()
    async with asyncio.timeout(20):
        await running
    gate.set()


async def test_lists_are_bounded() -> None:
    """A batch above the contract's bound leaves in several messages."""
    async with _house(max_batch_size=64) as house:
        await house.hold()
        await house.ask(*[pictures.plain_jpeg(BLUE)] * (MAX_ITEMS + 8))
        await house.until(lambda: house.waiting == MAX_ITEMS + 8)
        house.model.gate.set()
        messages = await house.messages(MAX_ITEMS + 9)
        assert [len(message.items) for message in messages] == [1, MAX_ITEMS, 8]
