"""The services as child processes, each restarted when it ends: `simile up --processes`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from services.shared.errors import InvalidSettings, StageDied
from services.shared.lifecycle import ExitCode, cancel
from services.shared.settings import SharedSettings
from services.upload.settings import UploadSettings

_log = structlog.get_logger(__name__)

_RESTART_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Child:
    """One process: the service's name, its replica's name, and its own environment."""

    service: str
    replica: str
    environment: Mapping[str, str]


class ChildProcesses:
    """One upload, some embedders and some searchers, joined by RabbitMQ."""

    def __init__(
        self, shared: SharedSettings, upload: UploadSettings, *, embedders: int, searchers: int
    ) -> None:
        if shared.amqp_url is None:
            message = "--processes needs RabbitMQ: give --amqp-url, or leave --processes out"
            raise InvalidSettings(message)
        self._shared = shared
        self._upload = upload
        self._counts = {"upload": 1, "embedder": embedders, "searcher": searchers}
        self._processes: dict[Child, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> str:
        """Start every child; the base URL of upload, which answers a little later."""
        port = self._upload.port or _free_port(self._upload.host)
        for child in self._children(port):
            await self._spawn(child)
            self._keepers.append(asyncio.create_task(self._keep(child), name=child.replica))
        scheme = "https" if self._upload.tls_cert_file else "http"
        return f"{scheme}://{self._upload.host}:{port}"

    async def watch(self) -> None:
        """Wait for a child that can't be kept running."""
        done, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_COMPLETED)
        for keeper in done:
            await keeper

    async def stop(self) -> None:
        """SIGTERM service by service, upload first, and wait; SIGKILL what outlives its drain."""
        await cancel(*self._keepers)
        try:
            for service in self._counts:
                ending = [p for child, p in self._processes.items() if child.service == service]
                await asyncio.gather(*(self._end(process) for process in ending))
        except asyncio.CancelledError:
            # Told twice to end: nobody waits for a drain, and no child may outlive this process.
            for process in self._processes.values():
                if process.returncode is None:
                    process.kill()
            raise

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._shared.drain_timeout_seconds + 5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _keep(self, child: Child) -> None:
        while True:
            code = await self._processes[child].wait()
            if code == ExitCode.INVALID_SETTINGS:
                message = f"{child.replica} does not accept its settings; its log line says which"
                raise StageDied(message)
            _log.warning("restarting", action="child_ended", child=child.replica, exit_code=code)
            await asyncio.sleep(_RESTART_SECONDS)
            await self._spawn(child)

    async def _spawn(self, child: Child) -> None:
        # A session of its own: Ctrl-C reaches this process alone, which then drains in order.
        self._processes[child] = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"services.{child.service}",
            env={**os.environ, **child.environment}, start_new_session=True,
        )  # fmt: skip

    def _children(self, port: int) -> Sequence[Child]:
        url = self._shared.amqp_url
        environment = {
            "SIMILE_AMQP_URL": url.get_secret_value() if url else "",
            "SIMILE_ROOT": str(self._shared.root),
            "SIMILE_UPLOAD_HOST": self._upload.host,
            "SIMILE_UPLOAD_PORT": str(port),
        }
        children = []
        for service, count in self._counts.items():
            for number in range(1, count + 1):
                replica = f"{service}-{number}"
                # Only the front keeps the admin port that was asked for; the others take any.
                admin = self._shared.admin_port if service == "upload" else 0
                own = {"SIMILE_REPLICA": replica, "SIMILE_ADMIN_PORT": str(admin)}
                children.append(Child(service, replica, {**environment, **own}))
        return children


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listening:
        port: int = listening.getsockname()[1]
    return port
