"""The services as child processes, each restarted when it ends: `simile up --processes`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from services.shared.environment import unknown_variables
from services.shared.errors import InvalidSettings, StageDied
from services.shared.lifecycle import ExitCode, cancel
from services.shared.listening import ADMIN_PORT, UPLOAD_PORT, base_url, free_port, require_free
from services.shared.settings import SharedSettings
from services.upload.settings import UploadSettings

_log = structlog.get_logger(__name__)

_RESTART_SECONDS: Final = 1.0
_CHUNK_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Child:
    """One process: the service's name, its replica's name, and its own environment."""

    service: str
    replica: str
    environment: Mapping[str, str]


class ChildProcesses:
    """One upload, some embedders and some searchers, joined by RabbitMQ."""

    def __init__(
        self, shared: SharedSettings, upload: UploadSettings, counts: Mapping[str, int]
    ) -> None:
        """`counts`: how many embedders and searchers. Raises InvalidSettings without RabbitMQ."""
        if shared.amqp_url is None:
            message = "--processes needs RabbitMQ: give --amqp-url, or leave --processes out"
            raise InvalidSettings(message)
        self._shared = shared
        self._upload = upload
        self._counts = {"upload": 1, **counts}
        self._port = upload.port or free_port(upload.host)
        self._children = self._described()
        self._processes: dict[Child, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._outputs: set[asyncio.Task[None]] = set()

    @property
    def admin_urls(self) -> Sequence[str]:
        """Return the admin addresses of all children."""
        host = self._shared.admin_host
        ports = (int(child.environment["SIMILE_ADMIN_PORT"]) for child in self._children)
        return [base_url("http", host, port) for port in ports]

    async def start(self) -> str:
        """Start every child; the base URL of upload, which answers a little later.

        Raises InvalidSettings when upload's port is taken: said once, not by each restart.
        """
        for host, port, setting in (
            (self._upload.host, self._port, UPLOAD_PORT),
            (self._shared.admin_host, self._shared.admin_port, ADMIN_PORT),
        ):
            require_free(host, port, setting)
        for child in self._children:
            await self._spawn(child)
            self._keepers.append(asyncio.create_task(self._keep(child), name=child.replica))
        scheme = "https" if self._upload.tls_cert_file else "http"
        return base_url(scheme, self._upload.host, self._port)

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
        terminal = sys.stdout.isatty()
        # A session of its own: Ctrl-C reaches this process alone, which then drains in order.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"services.{child.service}",
            env={**_inherited(), **child.environment}, start_new_session=True,
            stdout=asyncio.subprocess.PIPE if terminal else None,
            stderr=asyncio.subprocess.STDOUT if terminal else None,
        )  # fmt: skip
        self._processes[child] = process
        if process.stdout is not None:
            passing = asyncio.create_task(_pass_on(process.stdout), name=f"{child.replica} output")
            self._outputs.add(passing)
            passing.add_done_callback(self._outputs.discard)

    def _described(self) -> Sequence[Child]:
        shared, upload = self._shared, self._upload
        url = shared.amqp_url
        pretty = shared.log_format == "auto" and sys.stdout.isatty()
        environment = {
            "SIMILE_AMQP_URL": url.get_secret_value() if url else "",
            "SIMILE_ROOT": str(shared.root),
            "SIMILE_LOG_LEVEL": shared.log_level,
            # Their output goes through this process where it is a terminal: see `_spawn`.
            "SIMILE_LOG_FORMAT": "pretty" if pretty else shared.log_format,
            "SIMILE_UPLOAD_HOST": upload.host,
            "SIMILE_UPLOAD_PORT": str(self._port),
            "SIMILE_UPLOAD_DEFAULT_COLLECTION": upload.default_collection or "",
            "SIMILE_UPLOAD_HIDDEN_COLLECTIONS": upload.hidden_collections,
        }
        children = []
        for service, count in self._counts.items():
            for number in range(1, count + 1):
                replica = f"{service}-{number}"
                # Only the front keeps the admin port that was asked for; the others take any.
                front = service == "upload"
                admin = shared.admin_port if front else free_port(shared.admin_host)
                own = {"SIMILE_REPLICA": replica, "SIMILE_ADMIN_PORT": str(admin)}
                children.append(Child(service, replica, {**environment, **own}))
        return children


def _inherited() -> dict[str, str]:
    """Return this process's environment without what is no setting, which it has named itself."""
    return {
        name: value
        for name, value in os.environ.items()
        if not any(True for _ in unknown_variables({name: value}))
    }


async def _pass_on(output: asyncio.StreamReader) -> None:
    """Write a child's output where a bar that is on the terminal makes way for it."""
    while chunk := await output.read(_CHUNK_BYTES):
        sys.stdout.write(chunk.decode(errors="replace"))
        sys.stdout.flush()
