"""Starts every service as a process over RabbitMQ, with an index of a folder of images."""

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
"""The module that replaces services.embedder: it loads no network and starts within a second."""

COLLECTION: Final = "sample"
BUILD_SECONDS: Final = 240


def every_service_at(amqp_url: str) -> Mapping[str, str]:
    """Return the URLs of a system whose services all connect to that broker directly."""
    return dict.fromkeys(("upload", "embedder", "searcher", "index"), amqp_url)


class System:
    """Runs replicas named `<service>-<number>`, which connect to the broker of their service."""

    def __init__(
        self,
        folder: Path,
        images: Path,
        amqp_urls: Mapping[str, str],
        *,
        embedder: str = "services.embedder",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Set up a system that has no processes yet.

        Args:
            folder: Holds the volume and the logs.
            images: The folder to index.
            amqp_urls: The broker's URL for upload, embedder, searcher, and the builder (`index`).
            embedder: The module that runs as the embedder.
            environment: Further variables of every process.
        """
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
        """Return the base URL of each upload."""
        return [f"http://127.0.0.1:{port}" for port in self._ports.values()]

    @property
    def url(self) -> str:
        """Return the base URL of the first upload."""
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
        """Start to build an index of a folder, by default of the system's own images."""
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
        """Run `wait_ready` in a thread, so that the event loop continues."""
        await asyncio.to_thread(self.wait_ready, *names)

    async def kill(self, name: str) -> None:
        """Kill a replica with SIGKILL, and start it again."""
        await asyncio.to_thread(self.processes[name].kill)
        self.start(name)

    def pause(self, *names: str) -> None:
        """Suspend the processes with SIGSTOP."""
        for name in names:
            self.processes[name].popen.send_signal(signal.SIGSTOP)

    def resume(self, *names: str) -> None:
        """Continue suspended processes with SIGCONT."""
        for name in names:
            self.processes[name].popen.send_signal(signal.SIGCONT)

    def known(self) -> Mapping[Path, str]:
        """Return the item id of each file in the active version."""
        directory = self.volume.directory(COLLECTION, self.volume.active(COLLECTION))
        catalog = ItemCatalog(directory / ITEMS)
        return {self.images / item.path: item.item_id for item in catalog}

    def stop(self) -> dict[str, int]:
        """End every process with SIGTERM, and return the exit codes."""
        return {name: process.stop() for name, process in self.processes.items()}

    def _environment_of(self, service: str) -> dict[str, str]:
        return {**self._environment, "SIMILE_AMQP_URL": self._amqp_urls[service]}
