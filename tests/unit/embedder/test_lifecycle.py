"""Tests the start, health, drain and death of an embedder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from services.embedder import service
from services.embedder.models.model import Model, Pixels
from services.embedder.settings import EmbedderSettings
from services.shared.contracts import Box
from services.shared.errors import StageDied
from services.shared.imaging import Probe
from services.shared.messaging import topology
from services.shared.messaging.memory import MemoryBroker
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from tests.support import pictures
from tests.support.fake_model import BLUE, GREEN, RED, FakeModel
from tests.support.running_embedder import CountingBroker, running_embedder


async def test_ready_when_warm_and_consuming() -> None:
    """The embedder is ready once the model is warm, and live all the time."""
    model = FakeModel()
    model.gate.clear()
    async with running_embedder(model) as embedder:
        await embedder.wait_entered()
        assert "model" in embedder.telemetry.health.not_ready()
        assert not embedder.telemetry.health.not_live()
        model.gate.set()
        await embedder.until(lambda: not embedder.telemetry.health.not_ready())


async def test_a_stuck_model_is_seen() -> None:
    """A batch that doesn't end makes the embedder unready, then not live, until the batch ends."""
    async with running_embedder(unready_after_seconds=0.01, dead_after_seconds=0.02) as embedder:
        await embedder.hold()
        await embedder.until(lambda: "model" in embedder.telemetry.health.not_live())
        assert "model" in embedder.telemetry.health.not_ready()
        await embedder.until(lambda: "images" in embedder.telemetry.health.not_live())
        embedder.model.gate.set()
        await embedder.until(lambda: not embedder.telemetry.health.not_ready())


async def test_stop_finishes_what_was_taken() -> None:
    """After `stop` the images in flight are answered, no more are taken, and `run` returns."""
    async with running_embedder() as embedder:
        await embedder.hold()
        await embedder.ask(pictures.plain_jpeg(GREEN))
        await embedder.wait_decoded(1)
        embedder.stop.set()
        await embedder.wait_consuming(consuming=False)
        await embedder.ask(pictures.plain_jpeg(BLUE), correlation_id="too late")
        embedder.model.gate.set()
        names = {item.slip.correlation_id for item in await embedder.vectors(2)}
        assert names == {"q-held", "q0"}
        await embedder.running
        assert await embedder.broker.depth(topology.EMBED.name) == 1


async def test_stop_gives_back_what_was_not_begun() -> None:
    """Images that no thread decodes yet go back at once, since another embedder is quicker."""
    gate, entered = threading.Event(), threading.Semaphore(0)

    class Decoding(FakeModel):
        def prepare(
            self, image: bytes, box: Box | None = None, *, known: Probe | None = None
        ) -> Pixels:
            entered.release()
            assert gate.wait(30), "the test never opened the gate"
            return super().prepare(image, box, known=known)

    async with running_embedder(Decoding()) as embedder:
        await embedder.ask(*[pictures.plain_jpeg(GREEN)] * 5)
        for _ in range(2):
            assert await asyncio.to_thread(entered.acquire, timeout=30)
        await embedder.until(lambda: embedder.in_flight == 5)
        embedder.stop.set()
        await embedder.until(lambda: embedder.in_flight == 2)
        assert await embedder.broker.depth(topology.EMBED.name) == 3
        gate.set()
        names = {item.slip.correlation_id for item in await embedder.vectors(2)}
        assert names == {"q0", "q1"}
        await embedder.running


async def test_a_drain_that_takes_too_long_ends() -> None:
    """A stuck model does not delay the end; its images go back to the queue."""
    async with running_embedder(drain_timeout_seconds=0.01) as embedder:
        await embedder.hold()
        embedder.stop.set()
        await embedder.running
        assert await embedder.broker.depth(topology.EMBED.name) == 1


class _Dead(BaseException):
    """Ends a thread in a test."""


async def test_a_dead_worker_ends_the_embedder() -> None:
    """A worker's thread that ends by an error ends the process."""

    class Dying(FakeModel):
        def embed(self, batch: Any) -> Any:
            if batch.any():
                raise _Dead
            return super().embed(batch)

    async with running_embedder(Dying()) as embedder:
        await embedder.ask(pictures.plain_jpeg(RED))
        with pytest.raises(StageDied, match="stage threads ended"):
            await embedder.running


@pytest.mark.parametrize("decode_threads", [2, None])
async def test_a_dead_decoder_ends_the_embedder(decode_threads: int | None) -> None:
    """A decoding thread that ends by an error ends the process; its image goes back."""

    class Dying(FakeModel):
        def prepare(
            self, image: bytes, box: Box | None = None, *, known: Probe | None = None
        ) -> Pixels:
            if image:
                raise _Dead
            return super().prepare(image, box, known=known)

    async with running_embedder(Dying(), decode_threads=decode_threads) as embedder:
        await embedder.ask(pictures.plain_jpeg(RED))
        with pytest.raises(StageDied, match="stage threads ended"):
            await embedder.running
        assert await embedder.broker.depth(topology.EMBED.name) == 1


async def test_a_start_that_fails_ends_the_embedder() -> None:
    """A model that fails at its warm-up ends the process."""

    class Dead(FakeModel):
        def embed(self, batch: Any) -> Any:
            message = f"no device for {len(batch)} images"
            raise RuntimeError(message)

    async with running_embedder(Dead()) as embedder:
        with pytest.raises(RuntimeError, match="no device"):
            await embedder.running


async def test_a_defect_in_sending_ends_the_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown error while publishing ends the process."""
    async with running_embedder() as embedder:
        await embedder.ask(pictures.plain_jpeg(RED))
        await embedder.vectors(1)

        async def broken(*_: object) -> None:
            message = "a defect"
            raise RuntimeError(message)

        await embedder.ask(pictures.plain_jpeg(RED))
        monkeypatch.setattr(embedder.broker, "publish", broken)
        with pytest.raises(StageDied, match="a defect"):
            await embedder.running


async def test_a_wedged_decoder_is_seen() -> None:
    """A blocked decoder makes the embedder not live; the embedder can recover."""
    gate = threading.Event()

    class Decoding(FakeModel):
        def prepare(
            self, image: bytes, box: Box | None = None, *, known: Probe | None = None
        ) -> Pixels:
            assert gate.wait(30), "the test never opened the gate"
            return super().prepare(image, box, known=known)

    async with running_embedder(
        Decoding(), unready_after_seconds=0.05, dead_after_seconds=0.1
    ) as embedder:
        await embedder.ask(pictures.plain_jpeg(RED))
        await embedder.until(lambda: "decode" in embedder.telemetry.health.not_live())
        gate.set()
        await embedder.vectors(1)
        assert not embedder.telemetry.health.not_live()


async def test_results_that_get_stuck_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A publish that neither succeeds nor fails makes the embedder not live."""
    async with running_embedder(
        drain_timeout_seconds=0.01, unready_after_seconds=0.05, dead_after_seconds=0.1
    ) as embedder:
        await embedder.ask(pictures.plain_jpeg(RED))

        async def stuck(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(embedder.broker, "publish", stuck)
        await embedder.until(lambda: "results" in embedder.telemetry.health.not_live())


async def test_a_broker_that_is_away_is_no_stall() -> None:
    """While the broker is unavailable, the embedder publishes results repeatedly and stays live."""
    broker = CountingBroker()
    async with running_embedder(
        broker=broker, unready_after_seconds=0.5, dead_after_seconds=0.5
    ) as embedder:
        await embedder.wait_consuming()
        await embedder.ask(pictures.plain_jpeg(RED))
        broker.block()
        # Each attempt takes 0.2 s, so five take longer than the limits.
        await embedder.until(lambda: broker.refused == 5)
        assert not embedder.telemetry.health.not_live()
        broker.unblock()
        await embedder.vectors(1)


async def test_a_consumer_that_gets_no_queue_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing consumer makes the embedder not live only while the broker is connected."""
    async with running_embedder(dead_after_seconds=0.05) as embedder:
        await embedder.wait_consuming()
        health, ready = embedder.telemetry.health, True
        monkeypatch.setattr(MemoryBroker, "ready", property(lambda _: ready))

        async def never(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(embedder.broker, "consume", never)
        embedder.broker.sever()
        name = f"intake {topology.EMBED.name}"
        await embedder.until(lambda: name in health.not_live())
        ready = False
        assert name not in health.not_live()
        assert name in health.not_ready()


async def test_a_stop_while_the_model_loads_ends_the_embedder() -> None:
    """A stop does not wait for weights, an export, or a download."""
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
