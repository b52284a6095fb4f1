"""Starts real Simile processes for tests, which the test that started them also ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.shared.telemetry.samples import Samples

START_SECONDS = 120.0
"""Allows a busy machine to import torch; a process that needs longer hangs."""


MODELS_DIR: Final = "SIMILE_EMBEDDER_MODELS_DIR"


@dataclass(frozen=True, slots=True)
class Process:
    """Holds a process with its log file and its admin address."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    admin: str

    @property
    def alive(self) -> bool:
        """Return whether the process runs."""
        return self.popen.poll() is None

    def kill(self) -> None:
        """Kill the process with SIGKILL, as a crash would."""
        self.popen.kill()
        self.popen.wait()

    def stop(self, timeout: float = 30.0) -> int:
        """Send SIGTERM, or SIGKILL after the timeout in seconds, and return the exit code."""
        if self.alive:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.popen.wait()

    def metrics(self) -> str:
        """Return the text of /metrics."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def total(self, metric: str, **labels: str) -> float:
        """Return the sum of a metric's series with these labels, or 0 where no series has them."""
        return Samples.parsed(self.metrics()).total(metric, **labels)

    def ready(self) -> bool:
        """Return whether /readyz answers 200."""
        try:
            with urllib.request.urlopen(f"{self.admin}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def start(name: str, arguments: list[str], log: Path, environment: Mapping[str, str]) -> Process:
    """Start `python ARGUMENTS` with its output in `log`.

    The process gets SIMILE_* variables from `environment` alone, apart from the session's folder
    of exported models.
    """
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("SIMILE_") or key == MODELS_DIR
    }
    port = free_port()
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**inherited, "SIMILE_ADMIN_PORT": str(port), **environment},
        )
    return Process(name, popen, log, f"http://127.0.0.1:{port}")


def wait_until(condition: Callable[[], bool], what: str, process: Process) -> None:
    """Poll until the condition holds; fail with the process's log when it ends or takes long."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if not process.alive or time.monotonic() > deadline:
            state = "runs" if process.alive else f"ended with {process.popen.returncode}"
            message = f"{process.name} {state}, not yet {what}:\n{process.log.read_text()[-4000:]}"
            raise AssertionError(message)
        time.sleep(0.05)


@contextlib.contextmanager
def simile_up(
    log: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, Process]]:
    """Run `simile up ARGUMENTS` on free ports, and yield its URL when it is ready."""
    process = start(
        "simile up", ["-m", "services", "up", "--port", "0", *arguments], log, environment or {}
    )
    try:
        wait_until(lambda: ready_url(log) is not None, "ready", process)
        yield str(ready_url(log)), process
    finally:
        process.stop()


def ready_url(log: Path) -> str | None:
    """Return the URL of the `ready` line, or None before that line is printed."""
    for line in log.read_text().splitlines():
        if line.startswith("ready "):
            return line.removeprefix("ready ").strip()
    return None


def log_lines(log: Path) -> list[dict[str, Any]]:
    """Return the JSON log lines of a process."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
