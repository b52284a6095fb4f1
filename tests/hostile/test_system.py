"""Tests bombs and broken images over HTTP beside good ones, on the whole system."""

from __future__ import annotations

import asyncio
import io
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiohttp
import psutil
import pytest

from services.embedder.decoding import SMALL_BYTES
from services.local.sample import draw_sample
from services.shared.errors import by_code
from tests.hostile.bombs import BOMBS, REFUSED, SLOW_TO_MAKE, bomb
from tests.hostile.containers import KINDS, variants
from tests.hostile.mutations import mutated
from tests.support import pictures
from tests.support.rabbitmq import Node
from tests.support.running import Process
from tests.support.system import LIGHT, System, every_service_at

SEED: Final = 20260401
BROKEN: Final = 100
CONCURRENCY: Final = 4
THREADS: Final = 2
MOST_PIXELS: Final = 64_000_000
SLACK: Final = 256 * 2**20
"""Allows for the bodies in flight, copies of them, and memory that the allocator keeps."""


@pytest.fixture(scope="module")
def system(rabbitmq: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Yield one replica of each service over RabbitMQ, with an index of the sample."""
    folder = tmp_path_factory.mktemp("hostile")
    draw_sample(folder / "sample", per_class=2)
    environment = {
        "SIMILE_UPLOAD_DEADLINE_SECONDS": "60",
        "SIMILE_EMBEDDER_DECODE_TIMEOUT_SECONDS": "60",
        "SIMILE_EMBEDDER_UNREADY_AFTER_SECONDS": "60",
        "SIMILE_EMBEDDER_DECODE_THREADS": str(THREADS),
    }
    running = System(
        folder,
        folder / "sample",
        every_service_at(rabbitmq.url),
        embedder=LIGHT,
        environment=environment,
    )
    try:
        running.start("upload-1", "embedder-1", "searcher-1")
        running.build()
        yield running
    finally:
        running.stop()


def _memory(process: Process, name: str) -> int:
    """Return VmRSS or VmHWM of the process in bytes."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found is not None
    return 1024 * int(found[1])


def _peak_forgotten(process: Process) -> int:
    """Reset VmHWM, and return VmRSS."""
    Path(f"/proc/{process.popen.pid}/clear_refs").write_text("5")
    return _memory(process, "VmRSS")


@pytest.mark.timeout(1200)
async def test_hostile_images_get_4xx_or_an_answer_and_disturb_nobody(system: System) -> None:
    """Beside each a good one: no answer is a 5xx, no process dies, memory stays in its bounds."""
    good = next(system.images.rglob("*.jpg")).read_bytes()
    bombs = {name: bomb(name) for name in sorted({*BOMBS} - SLOW_TO_MAKE)}
    broken = {f"broken {number}": image for number, image in enumerate(mutated(BROKEN, SEED))}
    containers = {
        f"{kind} {number}": image for kind in KINDS for number, image in enumerate(variants(kind))
    }
    before = {name: _peak_forgotten(process) for name, process in system.processes.items()}
    statuses: dict[str, int] = {}
    gate = asyncio.Semaphore(CONCURRENCY)

    async def ask(session: aiohttp.ClientSession, name: str, image: bytes) -> None:
        body = io.BytesIO(image)
        async with gate, session.post(f"{system.url}/v1/search", data=body) as answer:
            statuses[name] = answer.status
            await answer.read()

    timeout = aiohttp.ClientTimeout(total=1100)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        asked = []
        for name, image in {**bombs, **containers, **broken}.items():
            asked += [ask(session, name, image), ask(session, f"good beside {name}", good)]
        await asyncio.gather(*asked)
    beside = {name: status for name, status in statuses.items() if name.startswith("good")}
    assert set(beside.values()) == {200}
    assert {name: status for name, status in statuses.items() if status >= 500} == {}
    refused = {name: by_code()[code].status for name, code in REFUSED.items() if name in bombs}
    assert {name: statuses[name] for name in refused} == refused
    assert {statuses[name] for name in containers} <= {413, 422}
    assert {statuses[name] for name in bombs if name not in REFUSED} == {200}
    await system.ready()
    embedder, upload = system.processes["embedder-1"], system.processes["upload-1"]
    foreseen = THREADS * SMALL_BYTES + 16 * MOST_PIXELS
    assert _memory(embedder, "VmHWM") - before["embedder-1"] <= foreseen + SLACK
    assert _memory(upload, "VmHWM") - before["upload-1"] <= SLACK
    assert embedder.total("simile_embedder_quarantined_total") == 0


async def test_a_crash_of_a_decoding_process_ends_nothing_else(system: System) -> None:
    """Each HEIC is answered, and each JPEG beside it found, by the same embedder throughout."""
    embedder = psutil.Process(system.processes["embedder-1"].popen.pid)
    crashes = 0
    async with aiohttp.ClientSession() as session:
        for number in range(8):
            # Each round sends other images: upload caches the vectors of bytes sent before.
            asked = [
                asyncio.create_task(_status(session, system, _picture(name, 8 * number + other)))
                for name in ("HEIF", "JPEG")
                for other in range(4)
            ]
            while not all(task.done() for task in asked):
                for decoder in embedder.children():
                    decoder.send_signal(signal.SIGSEGV)
                    crashes += 1
                await asyncio.sleep(0.05)
            assert {task.result() for task in asked[:4]} <= {200, 422}
            assert {task.result() for task in asked[4:]} == {200}
        assert crashes
        assert await _status(session, system, _picture("HEIF", 1000)) == 200
    assert system.processes["embedder-1"].alive
    await system.ready()


def _picture(name: str, number: int) -> bytes:
    return pictures.encoded(pictures.scene(200 + number, 200), name)


async def _status(session: aiohttp.ClientSession, system: System, image: bytes) -> int:
    async with session.post(f"{system.url}/v1/search", data=image) as answer:
        await answer.read()
        return answer.status
