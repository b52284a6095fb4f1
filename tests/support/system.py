"""Every service as processes of their own over RabbitMQ, with an index of a folder of images."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from services.shared.volume.items import ITEMS, ItemCatalog
from services.shared.volume.volume import Volume
from tests.support.running import Process, free_port, start, wait_until

LIGHT: Final = "tests.support.light_embedder"
"""Instead of services.embedder: loads no network, and is there in a second."""

COLLECTION: Final = "sample"
BUILD_SECONDS: Final = 240


class System:
    """Replicas named `<service>-<number>`; each finds the broker at its service's URL."""

    def __init__(
        self,
        folder: Path,
        images: Path,
        amqp_urls: Mapping[str, str],
        *,
        embedder: str = "services.embedder",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`amqp_urls` by service: upload, embedder, searcher, and the builder's as `index`."""
        self.folder = folder
        self.images = images
        self.volume = Volume(folder / "root")
        self.processes: dict[str, Process] = {}
        self._amqp_urls = amqp_urls
        self._modules = {"embedder": embedder}
        self._ports: dict[str, int] = {}
        self._environment = {
            "SIMILE_ROOT": str(folder / "root"),
            "SIMILE_LOG_FORMAT": "json",
            **(environment or {}),
        }

    @property
    def urls(self) -> Sequence[str]:
        """Where the uploads answer."""
        return [f"http://127.0.0.1:{port}" for port in self._ports.values()]

    @property
    def url(self) -> str:
        """Where the first upload answers."""
        return self.urls[0]

    def start(self, *names: str, **environment: str) -> None:
        """Start replicas, or start them again; a replica of upload keeps its port."""
        for name in names:
            service = name.partition("-")[0]
            given = {**self._environment_of(service), "SIMILE_REPLICA": name, **environment}
            if service == "upload":
                port = self._ports.setdefault(name, free_port())
                given["SIMILE_UPLOAD_PORT"] = str(port)
            module = self._modules.get(service, f"services.{service}")
            log = self.folder / f"{name}.log"
            self.processes[name] = start(name, ["-m", module], log, given)

    def start_build(self, images: Path | None = None, collection: str = COLLECTION) -> Process:
        """Begin to build an index of a folder, by default of the system's own."""
        arguments = ["-m", "services", "index", "build", str(images or self.images)]
        log = self.folder / f"build-{collection}.log"
        return start(
            "index build", [*arguments, "--collection", collection], log,
            self._environment_of("index"),
        )  # fmt: skip

    def build(self) -> None:
        """Build the index, and wait until every replica is ready."""
        process = self.start_build()
        assert process.popen.wait(timeout=BUILD_SECONDS) == 0, process.log.read_text()
        self.wait_ready()

    def wait_ready(self, *names: str) -> None:
        """Wait until these replicas, or all of them, are ready."""
        for name in names or self.processes:
            process = self.processes[name]
            wait_until(process.ready, "ready", process)

    async def ready(self, *names: str) -> None:
        """`wait_ready`, while the event loop goes on."""
        await asyncio.to_thread(self.wait_ready, *names)

    async def kill(self, name: str) -> None:
        """End a replica as a crash would, and start it again."""
        await asyncio.to_thread(self.processes[name].kill)
        self.start(name)

    def pause(self, *names: str) -> None:
        """Stop the processes where they are; SIGSTOP."""
        for name in names:
            self.processes[name].popen.send_signal(signal.SIGSTOP)

    def resume(self, *names: str) -> None:
        """Let them go on; SIGCONT."""
        for name in names:
            self.processes[name].popen.send_signal(signal.SIGCONT)

    def known(self) -> Mapping[Path, str]:
        """The item id of each file in the active version."""
        directory = self.volume.directory(COLLECTION, self.volume.active(COLLECTION))
        catalog = ItemCatalog(directory / ITEMS)
        return {self.images / item.path: item.item_id for item in catalog}

    def stop(self) -> dict[str, int]:
        """Each process's exit code after SIGTERM."""
        return {name: process.stop() for name, process in self.processes.items()}

    def _environment_of(self, service: str) -> dict[str, str]:
        return {**self._environment, "SIMILE_AMQP_URL": self._amqp_urls[service]}
