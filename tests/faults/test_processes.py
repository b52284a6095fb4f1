"""Tests services that are killed, stopped, short of memory, or with a wrong clock."""

from __future__ import annotations

import asyncio
import io
import json
import re
import resource
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from PIL import Image

from services.local.sample import draw_sample
from tests.support.checker import CONNECTION, Load
from tests.support.light_embedder import CLOCK
from tests.support.rabbitmq import Node
from tests.support.running import Process
from tests.support.system import BUILD_SECONDS, System

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("service", ["embedder", "searcher"])
async def test_a_worker_killed_with_queries_in_flight_loses_no_answer(
    system: System, load: Callable[..., Load], seen: Callable[..., None], service: str
) -> None:
    """After kill -9 during a batch its images are redelivered, and another embedder answers."""
    asked = load()
    both = (f"{service}-1", f"{service}-2")
    async with asked.running():
        await asked.answered()
        system.pause(*both)  # messages are in flight in both
        try:
            await asked.until(lambda: asked.waiting >= 6)
            await asyncio.to_thread(system.processes[both[0]].kill)
        finally:
            system.resume(both[1])
        system.start(both[0])
        await asked.answered()
    codes = asked.judge()
    seen(
        f"kill -9 of a {service}",
        f"slowest {max(one.seconds for one in asked.outcomes):.2f} s",
        codes,
    )


async def test_a_killed_upload_breaks_its_connections(
    system: System, load: Callable[..., Load], seen: Callable[..., None]
) -> None:
    """Callers see the connection break at once; after its restart it answers correctly."""
    asked = load()
    async with asked.running():
        await asked.answered()
        system.pause("embedder-1", "embedder-2")
        await asked.until(lambda: asked.waiting >= 6)
        await asyncio.to_thread(system.processes["upload-1"].kill)
        moment = time.monotonic()
        system.resume("embedder-1", "embedder-2")
        await asked.until(lambda: asked.settled(moment))
        system.start("upload-1")
        await asked.answered()
    # Before its first connection to the broker, it reports that.
    codes = asked.judge(CONNECTION, "broker_unavailable")
    assert codes[CONNECTION] >= 6
    seen("kill -9 of upload", codes)


def _embedded(process: Process) -> float:
    """Return how many images of builds this embedder has answered."""
    counted = re.findall(r"simile_embedder_images_total\{.*bulk.*\} ([0-9.e+]+)", process.metrics())
    return sum(map(float, counted))


def _listed(system: System, name: str) -> dict[str, Any] | None:
    """Return the collection as upload lists it, or None."""
    with urllib.request.urlopen(f"{system.url}/v1/collections", timeout=10) as answer:
        listed: list[dict[str, Any]] = json.load(answer)["collections"]
    return next((one for one in listed if one["name"] == name), None)


async def test_a_build_survives_the_death_of_all_processes(
    system: System, node: Node, seen: Callable[..., None], tmp_path: Path
) -> None:
    """Embedder, broker and builder are killed during a build; the next run completes it."""
    images = tmp_path / "many"
    await asyncio.to_thread(draw_sample, images, per_class=20)
    before = _embedded(system.processes["embedder-1"])
    build = system.start_build(images, "many")
    # Upload reads the progress of a build in another process from the volume.
    await _until(lambda: _listed(system, "many") is not None)
    first = await asyncio.to_thread(_listed, system, "many")
    assert first is not None
    assert (first["count"], first["index_version"]) == (0, None)
    assert first["building"]["stage"]
    await _until(lambda: _embedded(system.processes["embedder-1"]) >= before + 10)
    await asyncio.to_thread(system.processes["embedder-2"].kill)
    system.start("embedder-2")
    await asyncio.to_thread(node.kill)
    await asyncio.to_thread(node.start)
    assert build.alive, build.log.read_text()
    await asyncio.to_thread(build.kill)
    again = system.start_build(images, "many")
    code = await asyncio.to_thread(again.popen.wait, BUILD_SECONDS)
    assert code == 0, again.log.read_text()
    manifest = system.volume.manifest("many", system.volume.active("many"))
    assert manifest.count == len(list(images.rglob("*.jpg")))
    last = await asyncio.to_thread(_listed, system, "many")
    assert last is not None
    assert (last["count"], last["building"]) == (manifest.count, None)
    seen("embedder, broker, builder killed in a build", again.log.read_text().splitlines()[-1])


async def test_a_stopped_embedder_loses_its_work_to_others_and_recovers(
    system: System, node: Node, load: Callable[..., Load], seen: Callable[..., None]
) -> None:
    """Without heartbeats the broker redelivers its messages; once resumed it connects again."""
    asked = load()

    def connected() -> bool:
        return "embedder-1 consumes" in node.ctl(
            "list_connections", "--silent", "client_properties"
        )

    async with asked.running():
        await asked.answered()
        system.pause("embedder-1")
        try:
            async with asyncio.timeout(60):
                while await asyncio.to_thread(connected):
                    await asyncio.sleep(0.2)
            await asked.answered()
        finally:
            system.resume("embedder-1")
        await system.ready("embedder-1")
        await asked.answered()
    # Its first messages may have expired by then.
    codes = asked.judge("deadline_exceeded")
    seen("embedder stopped", codes)
    assert "consumer_lost" in system.processes["embedder-1"].log.read_text()


async def test_a_stopped_broker_is_reported_and_survived(
    node: Node, system: System, load: Callable[..., Load], seen: Callable[..., None]
) -> None:
    """A broker that hangs for four seconds: queries fail with a code, and then are answered."""
    del system
    asked = load()
    async with asked.running():
        await asked.answered()
        node.pause()
        try:
            await asyncio.sleep(4)
        finally:
            node.resume()
        resumed = time.monotonic()
        await asked.answered()
    codes = asked.judge("broker_unavailable", "reply_queue_lost", "deadline_exceeded")
    seen("broker stopped for 4 s", f"answered again after {asked.back_after(resumed):.2f} s", codes)


async def test_a_decoder_out_of_memory_fails_one_image(
    system: System, load: Callable[..., Load], seen: Callable[..., None]
) -> None:
    """An image that exceeds the memory limit fails with a code, and no other image fails."""
    out = io.BytesIO()
    Image.new("RGB", (7900, 7900), (9, 99, 199)).save(out, "PNG")
    embedders = [system.processes[name] for name in ("embedder-1", "embedder-2")]
    asked = load()
    async with asked.running():
        await asked.answered()
        for embedder in embedders:
            _limit_memory(
                embedder, psutil.Process(embedder.popen.pid).memory_info().vms + 64 * 2**20
            )
        try:
            async with aiohttp.ClientSession() as session:
                answer = await session.post(f"{system.url}/v1/search", data=out.getvalue())
                problem = await answer.json(content_type=None)
            await asked.answered()
        finally:
            for embedder in embedders:
                _limit_memory(embedder, resource.RLIM_INFINITY)
    asked.judge()
    seen("decoder out of memory", answer.status, problem["code"])
    assert answer.status >= 400
    assert all(embedder.alive for embedder in embedders)


def _limit_memory(process: Process, limit: int) -> None:
    resource.prlimit(process.popen.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    ("ahead_seconds", "answered"),
    [(300, True), (-300, True), (30, False)],
    ids=["minutes ahead", "minutes behind", "half a minute ahead"],
)
async def test_a_clock_that_differs_hangs_no_query(
    system: System,
    load: Callable[..., Load],
    seen: Callable[..., None],
    ahead_seconds: int,
    *,
    answered: bool,
) -> None:
    """A clock wrong by minutes drops nothing; a smaller error makes queries time out, counted."""
    embedders = ("embedder-1", "embedder-2")
    for name in embedders:
        await asyncio.to_thread(system.processes[name].stop)
        system.start(name, **{CLOCK: str(ahead_seconds)})
    await system.ready(*embedders)
    asked = load()
    async with asked.running():
        await asked.until(lambda: len(asked.outcomes) >= 20)
        expired = system.processes["embedder-1"].total(
            "simile_embedder_expired_total", before="decode"
        )
    for name in embedders:
        await asyncio.to_thread(system.processes[name].stop)
        system.start(name)
    codes = asked.judge() if answered else asked.judge("deadline_exceeded", "overloaded")
    seen(f"embedders' clocks {ahead_seconds} s ahead", codes)
    assert (codes["ok"] == 0) is not answered
    assert answered or expired > 0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)
