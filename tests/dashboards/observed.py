"""Runs Simile with RabbitMQ and Prometheus, and a load that shows up in every panel."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import aiormq

from services.local.sample import draw_sample
from services.shared.messaging import topology
from services.shared.volume.manifest import MANIFEST, VECTORS
from tests.support.light_embedder import SECONDS as LIGHT_SECONDS
from tests.support.prometheus import Prometheus, Target
from tests.support.rabbitmq import Node
from tests.support.running import free_port, wait_until
from tests.support.system import COLLECTION, System, every_service_at

RULES: Final = Path(__file__).resolve().parents[2] / "helm" / "simile" / "rules" / "simile.yaml"
REPLICAS: Final = ("upload-1", "embedder-1", "embedder-2", "searcher-1", "searcher-2")
MAX_IN_FLIGHT: Final = 48
REFUSED_SECONDS: Final = 3.0
"""The seconds that the broken version is active: several scrapes."""

_LABELS: Final = {"namespace": "photos", "release": "simile"}


@dataclass(frozen=True, slots=True)
class Observed:
    """A running system and the Prometheus that scrapes it."""

    system: System
    prometheus: Prometheus
    amqp_url: str

    async def load(self, seconds: float, *, clients: int, copies: int) -> None:
        """Send queries in waves, now and then a bad image, and cause all that dashboards show.

        A third of the seconds passes before the events, and a third after. clients: the maximum
        that ask at once, except in the rush. copies: of each picture, in the second version.
        """
        over = asyncio.Event()
        async with aiohttp.ClientSession() as session:
            asking = [
                asyncio.create_task(self._ask(session, number, clients, seconds, over))
                for number in range(clients)
            ]
            await asyncio.sleep(seconds / 3)
            await asyncio.to_thread(self._build_again, copies)
            await asyncio.to_thread(self._publish_broken)
            await self._publish_undecodable()
            await self._rush(session)
            await asyncio.sleep(seconds / 3)
            over.set()
            await asyncio.gather(*asking)

    async def _rush(self, session: aiohttp.ClientSession) -> None:
        """Send more queries at once than are admitted: some are refused."""
        image = min(self.system.images.rglob("*.jpg")).read_bytes()
        queries = (
            self._post(session, f"{self.system.url}/v1/search", image + number.to_bytes(2))
            for number in range(MAX_IN_FLIGHT + 20)
        )
        await asyncio.gather(*queries)

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        number: int,
        clients: int,
        seconds: float,
        over: asyncio.Event,
    ) -> None:
        """Run a client that is active while the wave is at least as high as its number."""
        images = sorted(self.system.images.rglob("*.jpg"))
        chance = random.Random(number)  # noqa: S311 (which image comes next)
        begun = time.monotonic()
        while not over.is_set():
            wave = 0.55 - 0.45 * math.cos(4 * math.pi * (time.monotonic() - begun) / seconds)
            if number >= max(1, wave * clients):
                await asyncio.sleep(0.1)
                continue
            image = chance.choice(images).read_bytes()
            await self._one(session, chance.random(), image + bytes([chance.randrange(256)] * 4))

    async def _one(self, session: aiohttp.ClientSession, kind: float, image: bytes) -> None:
        """Send a request of a random kind; mostly a search by an image not seen before."""
        url = self.system.url
        if kind < 0.02:
            await self._post(session, f"{url}/v1/search", image[: len(image) // 2])
        elif kind < 0.04:
            await self._post(session, f"{url}/v1/search", b"not an image")
        elif kind < 0.07:
            await self._post(session, f"{url}/v1/embed", image)
        elif kind < 0.15:
            await self._post(session, f"{url}/v1/search", image[:-4])
        else:
            await self._post(session, f"{url}/v1/search", image)

    async def _post(self, session: aiohttp.ClientSession, url: str, body: bytes) -> None:
        async with session.post(url, data=body) as answer:
            found = await answer.json(content_type=None)
        for neighbor in found.get("neighbors", [])[:1]:
            item = f"{self.system.url}/v1/items/{found['collection']}/{neighbor['item_id']}"
            for of_it in ("thumbnail", "similar"):
                async with session.get(f"{item}/{of_it}") as answer:
                    await answer.read()

    async def _publish_undecodable(self) -> None:
        """Publish a message that can't be decoded, to embedders and to searchers."""
        connection = await aiormq.connect(self.amqp_url)
        channel = await connection.channel()
        for queue in (topology.EMBED, topology.SEARCH):
            await channel.basic_publish(b"nonsense", routing_key=queue.name)
        await connection.close()

    def _build_again(self, copies: int) -> None:
        """Index more pictures, with a broken one among them."""
        more = self.system.images / "more"
        more.mkdir()
        known = sorted(self.system.images.rglob("*.jpg"))
        for number, file in enumerate(copies * known):
            (more / f"{number}.jpg").write_bytes(file.read_bytes() + bytes(number + 1))
        (more / "broken.jpg").write_bytes(file.read_bytes()[:500])
        process = self.system.start_build()
        assert process.popen.wait(timeout=600) == 0, process.log.read_text()
        version = f'index_version="{self.system.volume.active(COLLECTION)}"'
        searchers = [self.system.processes[name] for name in ("searcher-1", "searcher-2")]
        wait_until(
            lambda: all(version in one.metrics() for one in searchers), "swapped", searchers[0]
        )

    def _publish_broken(self) -> None:
        """Activate a broken version until a searcher has refused it."""
        volume = self.system.volume
        good = volume.active(COLLECTION)
        broken = f"{good.partition('-')[0]}-00000000"
        shutil.copytree(volume.directory(COLLECTION, good), volume.directory(COLLECTION, broken))
        home = volume.directory(COLLECTION, broken)
        for file in (home / MANIFEST, home / VECTORS):
            file.chmod(0o600)
        manifest = (home / MANIFEST).read_text()
        (home / MANIFEST).write_text(manifest.replace(good, broken))
        (home / VECTORS).write_bytes(b"no vectors")
        volume.activate(COLLECTION, broken)
        searcher = self.system.processes["searcher-1"]
        refused = "simile_searcher_refused_versions_total"
        wait_until(lambda: searcher.total(refused) > 0, "refusing", searcher)
        time.sleep(REFUSED_SECONDS)
        volume.activate(COLLECTION, good)


@contextlib.contextmanager
def observed(
    node: Node,
    folder: Path,
    *,
    per_class: int,
    scrape_interval: str,
    embedder: str = "services.embedder",
) -> Iterator[Observed]:
    """Run a system with its index, each process scraped under the labels of a cluster."""
    draw_sample(folder / COLLECTION, per_class=per_class)
    build_port = free_port()
    system = System(
        folder,
        folder / COLLECTION,
        every_service_at(node.url),
        embedder=embedder,
        environment={
            "SIMILE_EMBEDDER_WORKERS": "1",
            "SIMILE_INDEX_ADMIN_PORT": str(build_port),
            "SIMILE_UPLOAD_MAX_IN_FLIGHT": str(MAX_IN_FLIGHT),
            "SIMILE_CANARY_SECONDS": "2",
            "SIMILE_SEARCHER_LIVE_RECALL_SHARE": "0.2",
            LIGHT_SECONDS: "0.04",
        },
    )
    system.start(*REPLICAS)
    addresses = {name: one.admin.removeprefix("http://") for name, one in system.processes.items()}
    addresses["index-build"] = f"127.0.0.1:{build_port}"
    (folder / "prometheus").mkdir()
    prometheus = Prometheus(
        folder / "prometheus",
        [
            Target(address, {**_LABELS, "pod": f"simile-{name}"})
            for name, address in addresses.items()
        ],
        rules=[RULES],
        scrape_interval=scrape_interval,
    )
    try:
        prometheus.start()
        system.build()
        yield Observed(system, prometheus, node.url)
    finally:
        prometheus.stop()
        system.stop()
