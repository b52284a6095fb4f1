"""Tests `simile up`: draws a sample, builds, answers, stops, and starts again fast."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import psutil
import pytest

from services.shared.lifecycle import ExitCode
from simile_client import AsyncSimile, Simile
from tests.support.rabbitmq import Node
from tests.support.running import START_SECONDS, Process, log_lines, simile_up, start
from tests.support.waiting import until

BUILT = "index_published"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a volume that the tests of this module share, in order."""
    return tmp_path_factory.mktemp("up")


async def test_up_without_images_draws_a_sample_and_answers(root: Path) -> None:
    """Without images `up` draws a sample, builds its index and answers with neighbours."""
    log = root / "first.log"
    with simile_up(log, "--root", str(root)) as (url, _):
        async with AsyncSimile(url) as simile:
            collections = await simile.collections()
            assert [entry.name for entry in collections.collections] == ["sample"]
            item = (await simile.sample("sample")).items[0]
            image = await simile.image("sample", item.item_id)
            answer = await simile.search(image)
            vector = (await simile.embed(image)).vector
            pages = [page async for page in simile.items_pages("sample", limit=50)]
            assert (await simile.search_vector(vector)).neighbors[0].item_id == item.item_id
    assert sum(len(page.items) for page in pages) == pages[0].matching
    assert answer.neighbors[0].item_id == item.item_id
    assert len(answer.neighbors) == 10
    assert any(line.get("action") == BUILT for line in log_lines(log))


async def test_up_again_reuses_the_index(root: Path) -> None:
    """A second start embeds no image and publishes no version."""
    versions = sorted(path.name for path in (root / "sample" / "versions").iterdir())
    with simile_up(root / "second.log", "--root", str(root)) as (url, process):
        with Simile(url) as simile:
            assert simile.collection("sample").index_version == versions[-1]
        code = process.stop()
    assert code == 0
    assert sorted(path.name for path in (root / "sample" / "versions").iterdir()) == versions


async def test_up_as_processes_restarts_a_killed_child(root: Path, rabbitmq: Node) -> None:
    """Over RabbitMQ a killed child is restarted, and stopping leaves no process behind."""
    arguments = ["--root", str(root), "--processes", "--amqp-url", rabbitmq.url]
    with simile_up(root / "processes.log", *arguments) as (url, process):
        children = psutil.Process(process.popen.pid).children()
        assert len(children) == 3
        victim = next(child for child in children if "services.searcher" in child.cmdline())
        victim.kill()
        await until(lambda: len(_services(process)) == 3 and victim.pid not in _services(process))
        async with aiohttp.ClientSession() as session:
            sample = await (await session.get(f"{url}/v1/collections/sample/sample")).json()
            similar = sample["items"][0]["image_url"].removesuffix("image") + "similar"
            async with asyncio.timeout(START_SECONDS):
                while (await session.get(f"{url}{similar}")).status != 200:
                    await asyncio.sleep(0.1)
        left = _services(process)
        assert process.stop() == 0
    assert not any(psutil.pid_exists(pid) for pid in left)


def _services(process: Process) -> set[int]:
    """Return the pids of the services that run as children."""
    return {
        child.pid
        for child in psutil.Process(process.popen.pid).children()
        if child.status() != psutil.STATUS_ZOMBIE
    }


def test_an_invalid_setting_is_named(tmp_path: Path) -> None:
    """A process with an invalid setting names it, and exits with the configuration exit code."""
    log = tmp_path / "embedder.log"
    wrong = {"SIMILE_EMBEDDER_MAX_BATCH_SIZE": "none"}
    process = start("embedder", ["-m", "services.embedder"], log, wrong)
    assert process.popen.wait(timeout=START_SECONDS) == ExitCode.INVALID_SETTINGS
    assert "SIMILE_EMBEDDER_MAX_BATCH_SIZE" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_processes_without_a_broker_are_refused(tmp_path: Path) -> None:
    """The error names the missing setting."""
    log = tmp_path / "up.log"
    process = start("up", ["-m", "services", "up", "--processes", "--root", str(tmp_path)], log, {})
    assert process.popen.wait(timeout=START_SECONDS) == ExitCode.INVALID_SETTINGS
    assert "--amqp-url" in log.read_text()
