"""Checks that upgrades, rotated passwords and a change of model disturb no query.

Each release is a set of upload, embedder and searcher on a virtual host and a folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.local.sample import draw_sample
from tests.support.rabbitmq import Node
from tests.support.running import Process, free_port, start, wait_until
from tools.chart.manifests import CHART

SERVICES = ("upload", "embedder", "searcher")

# Two networks are exported, each by a process that loads torch: minutes on a slow machine.
pytestmark = pytest.mark.timeout(900)


class Release:
    """Runs a release's replicas, named `<service>-<number>`, each with its own environment."""

    def __init__(self, folder: Path, root: Path, model: str) -> None:
        self.folder = folder
        self.environment = {
            "SIMILE_ROOT": str(root),
            "SIMILE_LOG_FORMAT": "json",
            "SIMILE_UPLOAD_DEADLINE_SECONDS": "30",
            "SIMILE_EMBEDDER_MODEL": model,
            "SIMILE_EMBEDDER_WORKERS": "1",
            # Choosing the fastest runtime takes a while, and does not matter here.
            "SIMILE_EMBEDDER_RUNTIME": "onnxruntime",
        }
        self.processes: dict[str, Process] = {}
        self.urls: dict[str, str] = {}

    def start(self, name: str, amqp_url: str) -> None:
        """Start a replica without waiting until it is ready."""
        port = free_port()
        environment = {**self.environment, "SIMILE_REPLICA": name, "SIMILE_AMQP_URL": amqp_url,
                       "SIMILE_UPLOAD_PORT": str(port)}  # fmt: skip
        service = name.partition("-")[0]
        log = self.folder / f"{name}.log"
        self.processes[name] = start(name, ["-m", f"services.{service}"], log, environment)
        self.urls[name] = f"http://127.0.0.1:{port}"

    async def ready(self, name: str) -> None:
        """Wait until the replica reports that it is ready."""
        process = self.processes[name]
        await asyncio.to_thread(wait_until, process.ready, "ready", process)

    async def stop(self, name: str) -> int:
        """Send SIGTERM, as Kubernetes does; return the exit code."""
        return await asyncio.to_thread(self.processes[name].stop)

    async def build(self, images: Path, amqp_url: str) -> None:
        """Build the index as the chart's job does."""
        log = self.folder / "build.log"
        arguments = ["-m", "services", "index", "build", str(images)]
        environment = {**self.environment, "SIMILE_AMQP_URL": amqp_url}
        process = start("index build", arguments, log, environment)
        code = await asyncio.to_thread(process.popen.wait, 600)
        assert code == 0, log.read_text()

    def close(self) -> None:
        """End the processes that still run."""
        for process in self.processes.values():
            process.stop()


def address(node: Node, user: str, vhost: str) -> str:
    """Return the AMQP URL of that user and virtual host."""
    return f"amqp://{user}:{user}@127.0.0.1:{node.port}/{vhost}"


def add_user(node: Node, user: str, vhost: str) -> None:
    """Add a user of that virtual host; the password equals the name."""
    node.ctl("add_user", user, user)
    node.ctl("set_permissions", "-p", vhost, user, ".*", ".*", ".*")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a small collection."""
    folder = tmp_path_factory.mktemp("images") / "sample"
    draw_sample(folder, per_class=3)
    return folder


@pytest.fixture(scope="module")
def image(images: Path) -> bytes:
    """Return an image of the collection, for queries."""
    return min(images.rglob("*.jpg")).read_bytes()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the volume that both releases share."""
    return tmp_path_factory.mktemp("volume")


@pytest.fixture(scope="module")
def release(
    rabbitmq: Node, root: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Release]:
    """Yield a release of one replica each, as user `old`, with an index."""
    rabbitmq.ctl("add_vhost", "release")
    add_user(rabbitmq, "old", "release")
    url = address(rabbitmq, "old", "release")
    running = Release(tmp_path_factory.mktemp("release"), root, "efficientnet_lite0")

    async def install() -> None:
        for service in SERVICES:
            running.start(f"{service}-1", url)
        await running.build(images, url)
        for service in SERVICES:
            await running.ready(f"{service}-1")

    try:
        asyncio.run(install())
        yield running
    finally:
        running.close()


class Callers:
    """Sends queries continuously; notes each answer's model, or the failure."""

    def __init__(self, url: str, image: bytes) -> None:
        self.url = url
        self.models: list[str] = []
        self.failures: list[str] = []
        self._image = image

    async def ask(self, session: aiohttp.ClientSession) -> None:
        """Send queries one after another, to the current address."""
        while True:
            await asyncio.sleep(0.1)  # builds need CPU time
            try:
                async with session.post(f"{self.url}/v1/search", data=self._image) as answer:
                    body: dict[str, Any] = await answer.json()
                if answer.status == 200:
                    self.models.append(body["model_id"])
                else:
                    self.failures.append(f"{answer.status} {body}")
            except aiohttp.ClientError as error:
                self.failures.append(repr(error))

    async def answered(self, count: int) -> None:
        """Wait until `count` more answers have arrived."""
        goal = len(self.models) + count
        async with asyncio.timeout(60):
            while len(self.models) < goal:
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def callers(url: str, image: bytes) -> AsyncIterator[Callers]:
    """Run two callers inside the context."""
    asking = Callers(url, image)
    # Without keep-alive: a query must not meet an upload that has just ended.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        tasks = [asyncio.create_task(asking.ask(session)) for _ in range(2)]
        try:
            await asking.answered(4)
            yield asking
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _run_search_test(url: str, wait_seconds: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHART / "files" / "search.py"],
        env={"PATH": os.environ["PATH"], "URL": url, "WAIT_SECONDS": str(wait_seconds)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_helm_test_sends_a_real_query(release: Release) -> None:
    """The chart's test finds an image of the collection; without an upload it fails."""
    done = _run_search_test(release.urls["upload-1"], 60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sample: found ")
    assert _run_search_test(f"http://127.0.0.1:{free_port()}", 0).returncode == 1


async def test_another_model_is_built_in_parallel_and_then_takes_over(
    release: Release, rabbitmq: Node, root: Path, images: Path, image: bytes, tmp_path: Path
) -> None:
    """The first release answers with its model all along; then the second answers with its own."""
    rabbitmq.ctl("add_vhost", "next")
    add_user(rabbitmq, "next", "next")
    url = address(rabbitmq, "next", "next")
    beside = Release(tmp_path, root / "lite1", "efficientnet_lite1")
    try:
        async with callers(release.urls["upload-1"], image) as asking:
            for service in SERVICES:
                beside.start(f"{service}-1", url)
            await beside.build(images, url)
            for service in SERVICES:
                await beside.ready(f"{service}-1")
            await asking.answered(4)
            before = set(asking.models)
            asking.url = beside.urls["upload-1"]
            await asking.answered(8)
            after = asking.models[-1]
            asking.url = release.urls["upload-1"]
            await asking.answered(8)
            back = asking.models[-1]
        assert asking.failures == []
        assert [model.partition("@")[0] for model in (*before, after, back)] == [
            "efficientnet_lite0",
            "efficientnet_lite1",
            "efficientnet_lite0",
        ]
    finally:
        beside.close()


async def test_a_rotated_password_and_new_pods_lose_nothing(
    release: Release, rabbitmq: Node, image: bytes
) -> None:
    """New replicas start as a new user beside the old ones, which drain; then the old user goes."""
    add_user(rabbitmq, "new", "release")
    url = address(rabbitmq, "new", "release")
    async with callers(release.urls["upload-1"], image) as asking:
        for service in ("searcher", "embedder", "upload"):
            release.start(f"{service}-2", url)
            await release.ready(f"{service}-2")
            if service == "upload":
                # Kubernetes removes a terminating pod from the Service before it ends.
                asking.url = release.urls["upload-2"]
                await asking.answered(8)
            assert await release.stop(f"{service}-1") == 0
            await asking.answered(8)
        rabbitmq.ctl("delete_user", "old")
        await asking.answered(8)
    assert asking.failures == []
