"""Runs the services of `simile up --processes` as child processes, and restarts them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from services.shared.environment import unknown_variables
from services.shared.errors import InvalidSettings, StageDied
from services.shared.lifecycle import ExitCode, cancel
from services.shared.listening import (
    ADMIN_PORT,
    UPLOAD_PORT,
    base_url,
    free_port,
    is_free,
    require_free,
)
from services.shared.settings import SharedSettings
from services.upload.settings import UploadSettings

_log = structlog.get_logger(__name__)

_RESTART_SECONDS: Final = 1.0
_CHUNK_BYTES: Final = 65_536
_MAX_LINE_BYTES: Final = 1_048_576
_MAX_PORT: Final = 65_535


@dataclass(frozen=True, slots=True, eq=False)
class Child:
    """Describes a process: its service, its replica's name, and its environment."""

    service: str
    replica: str
    environment: Mapping[str, str]


class ChildProcesses:
    """Manages one upload, some embedders and some searchers, connected by RabbitMQ."""

    def __init__(
        self, shared: SharedSettings, upload: UploadSettings, counts: Mapping[str, int]
    ) -> None:
        """Describe the processes. Raises InvalidSettings without RabbitMQ.

        Args:
            shared: the settings of all processes.
            upload: the settings of upload.
            counts: the number of embedders and searchers.
        """
        if shared.amqp_url is None:
            message = "--processes needs RabbitMQ: give --amqp-url, or leave --processes out"
            raise InvalidSettings(message)
        self._shared = shared
        self._upload = upload
        self._counts = {"upload": 1, **counts}
        self._port = upload.port or free_port(upload.host)
        self._children = self._described()
        self._processes: dict[Child, asyncio.subprocess.Process] = {}
        self._restarters: list[asyncio.Task[None]] = []
        self._outputs: set[asyncio.Task[None]] = set()

    @property
    def admin_urls(self) -> Sequence[str]:
        """Return the admin addresses of all children."""
        host = self._shared.admin_host
        ports = (int(child.environment["SIMILE_ADMIN_PORT"]) for child in self._children)
        return [base_url("http", host, port) for port in ports]

    async def start(self) -> str:
        """Start every child, and return the base URL of upload, which answers a little later.

        Raises InvalidSettings when a port is taken, which each restart would report again.
        """
        for host, port, setting in (
            (self._upload.host, self._port, UPLOAD_PORT),
            (self._shared.admin_host, self._shared.admin_port, ADMIN_PORT),
        ):
            require_free(host, port, setting)
        for child in self._children:
            await self._spawn(child)
            self._restarters.append(asyncio.create_task(self._restart(child), name=child.replica))
        scheme = "https" if self._upload.tls_cert_file else "http"
        return base_url(scheme, self._upload.host, self._port)

    async def watch(self) -> None:
        """Wait until a child can't be restarted, and raise the reason."""
        done, _ = await asyncio.wait(self._restarters, return_when=asyncio.FIRST_COMPLETED)
        for restarter in done:
            await restarter

    async def stop(self) -> None:
        """Drain the services in order, upload first; kill children that outlive their drain."""
        await cancel(*self._restarters)
        try:
            for service in self._counts:
                ending = [p for child, p in self._processes.items() if child.service == service]
                await asyncio.gather(*(self._end(process) for process in ending))
        except asyncio.CancelledError:
            # A second signal ends the drain; no child may outlive this process.
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

    async def _restart(self, child: Child) -> None:
        while True:
            code = await self._processes[child].wait()
            if code == ExitCode.INVALID_SETTINGS:
                message = f"{child.replica} does not accept its settings; its log line says which"
                raise StageDied(message)
            _log.warning("restarting", action="child_ended", child=child.replica, exit_code=code)
            await asyncio.sleep(_RESTART_SECONDS)
            await self._spawn(child)

    async def _spawn(self, child: Child) -> None:
        # In a session of its own, so that Ctrl-C reaches only this process, which drains in order.
        # Processes that share an output cut each other's lines: this process writes whole lines.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"services.{child.service}",
            env={**inherited_environment(), **child.environment}, start_new_session=True,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT if sys.stdout.isatty() else None,
        )  # fmt: skip
        self._processes[child] = process
        if process.stdout is not None:
            passing = asyncio.create_task(pass_on(process.stdout), name=f"{child.replica} output")
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
            # A child sees a pipe in place of the terminal: see `_spawn`.
            "SIMILE_LOG_FORMAT": "pretty" if pretty else shared.log_format,
            "SIMILE_UPLOAD_HOST": upload.host,
            "SIMILE_UPLOAD_PORT": str(self._port),
            "SIMILE_UPLOAD_DEFAULT_COLLECTION": upload.default_collection or "",
            "SIMILE_UPLOAD_HIDDEN_COLLECTIONS": upload.hidden_collections,
        }
        ports = admin_ports(shared.admin_host, shared.admin_port)
        children = []
        for service, count in self._counts.items():
            for number in range(1, count + 1):
                replica = f"{service}-{number}"
                own = {"SIMILE_REPLICA": replica, "SIMILE_ADMIN_PORT": str(next(ports))}
                children.append(Child(service, replica, {**environment, **own}))
        return children


def inherited_environment() -> dict[str, str]:
    """Return this process's environment without what is no setting, which it has named itself."""
    return {
        name: value
        for name, value in os.environ.items()
        if not any(True for _ in unknown_variables({name: value}))
    }


def admin_ports(host: str, first: int) -> Iterator[int]:
    """Yield upload's admin port, then the free ports after it: the same ones at each start."""
    yield first
    yield from (port for port in range(first + 1, _MAX_PORT + 1) if is_free(host, port))
    while True:
        yield free_port(host)


async def pass_on(output: asyncio.StreamReader) -> None:
    """Write a child's output to stdout, which a bar on a terminal shares, by whole lines."""
    rest = b""
    while chunk := await output.read(_CHUNK_BYTES):
        lines, newline, rest = (rest + chunk).rpartition(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            lines, newline, rest = lines + newline + rest, b"\n", b""
        _write(lines + newline)
    if rest:
        _write(rest + b"\n")


def _write(lines: bytes) -> None:
    sys.stdout.write(lines.decode(errors="replace"))
    sys.stdout.flush()
