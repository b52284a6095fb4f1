"""Tests health of real processes over RabbitMQ: canaries, a wedged model, signals under load."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from services.local.sample import draw_sample
from services.shared.contracts import EmbedRequest, Slip
from services.shared.lifecycle import ExitCode
from services.shared.messaging import topology
from services.shared.messaging.broker import Message
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from tests.support.pictures import plain_jpeg
from tests.support.rabbitmq import Node
from tests.support.running import START_SECONDS, Process, log_lines, start, wait_until
from tests.support.system import System, every_service_at

SERVICES: Final = ("upload", "embedder", "searcher")


def _canaries(system: System, service: str, asked_by: str, code: str) -> float:
    """Count the canaries of a service that ended with that code."""
    name = f"simile_{service}_canary_total"
    return system.processes[service].total(name, asked_by=asked_by, code=code)


async def _until(system: System, there: Callable[[], bool], what: str, service: str) -> None:
    """Poll until the condition holds; `what` names it in the failure."""
    await asyncio.to_thread(wait_until, there, what, system.processes[service])


def _failing(process: Process, path: str) -> dict[str, str]:
    try:
        with urllib.request.urlopen(f"{process.admin}{path}", timeout=5) as answer:
            reply = json.load(answer)
    except urllib.error.HTTPError as error:
        reply = json.load(error)
    failing: dict[str, str] = reply["failing"]
    return failing


@pytest.fixture(scope="module")
def system(rabbitmq: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Yield the running system with its index built."""
    folder = tmp_path_factory.mktemp("health")
    draw_sample(folder / "sample", per_class=4)
    environment = {"SIMILE_CANARY_SECONDS": "1", "SIMILE_EMBEDDER_WORKERS": "1"}
    running = System(
        folder, folder / "sample", every_service_at(rabbitmq.url), environment=environment
    )
    try:
        running.start(*SERVICES)
        running.build()
        yield running
    finally:
        running.stop()


WEDGES: Final = """
import threading
from services.embedder.service import run_with
from services.embedder.settings import EmbedderSettings
from services.shared.process import run_service
from services.shared.settings import SharedSettings, load
from tests.support.fake_model import FakeModel

class Wedging(FakeModel):
    def embed(self, batch):
        if batch.any():
            threading.Event().wait()
        return super().embed(batch)

settings, shared = load(EmbedderSettings), load(SharedSettings)

async def run(broker, stop, telemetry):
    await run_with(
        lambda *_: [Wedging()], settings, shared, broker, stop=stop, telemetry=telemetry
    )

run_service("embedder", shared, run)
"""


async def test_a_wedged_model_thread_is_detected_and_does_not_delay_shutdown(
    rabbitmq: Node, tmp_path: Path
) -> None:
    """The process becomes unready, then not live; SIGTERM still ends it, its image is requeued."""
    # Runs before the tests that start the system, whose embedder would take the image.
    environment = {
        "SIMILE_AMQP_URL": rabbitmq.url,
        "SIMILE_EMBEDDER_UNREADY_AFTER_SECONDS": "0.5",
        "SIMILE_EMBEDDER_DEAD_AFTER_SECONDS": "2",
        "SIMILE_DRAIN_TIMEOUT_SECONDS": "1",
    }
    process = start("embedder", ["-c", WEDGES], tmp_path / "embedder.log", environment)
    broker = AmqpBroker(rabbitmq.url, name="test")
    try:
        wait_until(process.ready, "ready", process)
        await broker.start(topology.ALL)
        slip = Slip(correlation_id="wedge", reply_to="nowhere", final_reply_to="nowhere")
        image = plain_jpeg((250, 0, 0))
        await broker.publish(topology.EMBED.name, Message.of(EmbedRequest(slip, image)))
        await asyncio.to_thread(
            wait_until, lambda: "model" in _failing(process, "/readyz"), "unready", process
        )
        await asyncio.to_thread(
            wait_until, lambda: "model" in _failing(process, "/livez"), "not live", process
        )
        process.popen.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.popen.wait, START_SECONDS) == ExitCode.DRAINED
        consumer = await broker.consume(topology.EMBED, prefetch=1)
        (delivery,) = await consumer.take(1)
        assert delivery.redelivered
        delivery.ack()
        await consumer.close()
    finally:
        process.kill()
        await broker.close()


async def test_canaries_fail_with_the_embedder_and_recover_with_it(system: System) -> None:
    """Without an embedder upload's canaries fail; upload stays ready, as all replicas are alike."""
    await _until(system, lambda: _canaries(system, "upload", "image", "ok") >= 2, "tried", "upload")
    await _until(
        system, lambda: _canaries(system, "searcher", "vector", "ok") >= 2, "tried", "searcher"
    )
    assert system.processes["embedder"].stop() == 0
    late = "deadline_exceeded"
    await _until(
        system, lambda: _canaries(system, "upload", "image", late) >= 4, "failing", "upload"
    )
    upload = system.processes["upload"]
    assert _failing(upload, "/readyz") == {}
    assert _failing(system.processes["searcher"], "/readyz") == {}
    async with aiohttp.ClientSession() as session:
        assert (await session.get(f"{system.url}/v1/collections")).status == 200
        image = next(system.images.rglob("*.jpg")).read_bytes()
        async with session.post(f"{system.url}/v1/search", data=image) as answer:
            code = (await answer.json(content_type=None))["code"]
            assert (answer.status, code) == (503, "no_embedder")
            assert answer.headers["Retry-After"] == "5"
    before = _canaries(system, "upload", "image", "ok")
    system.start("embedder")
    await _until(
        system, lambda: _canaries(system, "upload", "image", "ok") > before, "well", "upload"
    )
    assert (
        upload.total("simile_upload_requests_total", route="/v1/search", status="200", code="ok")
        == 0
    )
    codes = [line["code"] for line in log_lines(upload.log) if line.get("action") == "canary"]
    assert codes[-2:] == [late, "ok"]
    embedder = system.processes["embedder"]
    assert embedder.total("simile_embedder_images_total", code="ok", intake="canary") > 0


async def test_a_second_signal_ends_upload_at_once(system: System) -> None:
    """A second signal ends the process without a drain, though a body is still arriving."""
    process = system.processes["upload"]
    host, _, port = system.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, port)
    writer.write(
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n\xff\xd8"
    )
    await writer.drain()
    arriving = "simile_upload_arriving_bodies"
    await _until(system, lambda: process.total(arriving) == 1, "asked", "upload")
    process.popen.send_signal(signal.SIGTERM)
    await _until(system, lambda: "draining" in _failing(process, "/readyz"), "draining", "upload")
    assert process.alive
    process.popen.send_signal(signal.SIGTERM)
    # Shorter than the drain's timeout of 20 s.
    assert await asyncio.to_thread(process.popen.wait, 15) == ExitCode.ENDED_AT_ONCE
    writer.close()
