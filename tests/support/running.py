"""Real Simile processes for tests: started, watched, and ended by the test that started them."""

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
"""A starved machine takes long to import torch; a hang takes longer than this."""


MODELS_DIR: Final = "SIMILE_EMBEDDER_MODELS_DIR"


@dataclass(frozen=True, slots=True)
class Process:
    """One process with its log file and its admin address."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    admin: str

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.popen.poll() is None

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        self.popen.kill()
        self.popen.wait()

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM, wait, and its exit code; SIGKILL when it does not end."""
        if self.alive:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.popen.wait()

    def metrics(self) -> str:
        """The text of /metrics."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def total(self, metric: str, **labels: str) -> float:
        """The sum of a metric's series with these labels; 0 of none."""
        return Samples.parsed(self.metrics()).total(metric, **labels)

    def ready(self) -> bool:
        """Whether /readyz answers 200."""
        try:
            with urllib.request.urlopen(f"{self.admin}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def start(name: str, arguments: list[str], log: Path, environment: Mapping[str, str]) -> Process:
    """Start `python ARGUMENTS` with its output in `log`.

    SIMILE_* comes from `environment`; only the folder of exported models is the session's.
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
    """`simile up ARGUMENTS` on free ports: its URL once it says ready; stopped at the end."""
    process = start(
        "simile up", ["-m", "services", "up", "--port", "0", *arguments], log, environment or {}
    )
    try:
        wait_until(lambda: ready_url(log) is not None, "ready", process)
        yield str(ready_url(log)), process
    finally:
        process.stop()


def ready_url(log: Path) -> str | None:
    """The URL of the `ready` line, if it has been printed."""
    for line in log.read_text().splitlines():
        if line.startswith("ready "):
            return line.removeprefix("ready ").strip()
    return None


def log_lines(log: Path) -> list[dict[str, Any]]:
    """The JSON log lines of a process."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
