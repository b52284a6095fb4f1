"""A signal ends a process at any time, whatever the process waits for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from services.shared.lifecycle import ExitCode
from tests.support.running import Process, start, wait_until

NOWHERE = "amqp://guest:guest@127.0.0.1:1/"
PATIENCE_SECONDS = 60.0
SERVICES = ("upload", "embedder", "searcher")
COMMANDS = [
    *(["-m", f"services.{service}"] for service in SERVICES),
    *(["-m", "services", service] for service in SERVICES),
    ["-m", "services", "up"],
    ["-m", "services", "up", "--processes"],
]
HEAVY = {"aiohttp", "click", "numpy", "prometheus_client", "pydantic", "structlog", "torch"}


def _named(command: Sequence[str]) -> str:
    return " ".join(command)


def _catches(pid: int, number: signal.Signals) -> bool:
    """Return whether the process has a handler for the signal, according to the kernel."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = (line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.fixture
def begin() -> Iterator[list[Process]]:
    """Return a list of the test's processes, and kill them at the end."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.kill()


def _start(command: list[str], folder: Path, begun: list[Process]) -> Process:
    environment = {
        "SIMILE_AMQP_URL": NOWHERE,
        "SIMILE_ROOT": str(folder / "root"),
        "SIMILE_UPLOAD_PORT": "0",
        "SIMILE_LOG_FORMAT": "json",
    }
    process = start(_named(command), command, folder / "log", environment)
    begun.append(process)
    return process


@pytest.mark.parametrize("command", COMMANDS, ids=_named)
def test_a_signal_ends_a_process_that_has_just_started(
    command: list[str], tmp_path: Path, begin: list[Process]
) -> None:
    """The handler is set before libraries load, since PID 1 of a container has no default."""
    process = _start(command, tmp_path, begin)
    deadline = time.monotonic() + PATIENCE_SECONDS
    # The loop polls without a pause, since that moment is short.
    while not _catches(process.popen.pid, signal.SIGTERM):
        assert time.monotonic() < deadline
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(PATIENCE_SECONDS) == ExitCode.DRAINED
    assert process.log.read_text() == ""


@pytest.mark.parametrize(
    ("command", "number"),
    [
        (["-m", "services.upload"], signal.SIGTERM),
        (["-m", "services", "up"], signal.SIGINT),
        (["-m", "services", "up", "--processes"], signal.SIGTERM),
    ],
    ids=["upload", "up", "up with processes"],
)
def test_a_signal_ends_a_process_while_the_broker_is_away(
    command: list[str], number: signal.Signals, tmp_path: Path, begin: list[Process]
) -> None:
    """A process that waits for RabbitMQ has taken no work, and ends at once."""
    images = ["--images", str(tmp_path)] if "up" in command else []
    process = _start([*command, *images], tmp_path, begin)
    wait_until(lambda: "broker_away" in process.log.read_text(), "waiting", process)
    process.popen.send_signal(number)
    assert process.popen.wait(PATIENCE_SECONDS) == ExitCode.DRAINED
    assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize("module", ["__main__", *(f"{service}.__main__" for service in SERVICES)])
def test_an_entry_point_imports_nothing_that_takes_long(module: str) -> None:
    """Signal handlers are set after the imports, so these must be quick."""
    code = f"import sys, services.{module}; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & {name.partition(".")[0] for name in ended.stdout.split()}


def test_the_command_of_a_release_is_the_entry_point_with_signal_handlers() -> None:
    """An image starts the command `simile upload`."""
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert 'simile = "services.__main__:main"' in project


_FIRST_PROCESS = """
import os, signal, sys
from services.shared import signals
os.getpid = lambda: 1
signals.end_command_on_signals(sys.argv[1:])
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["upload"], 0), (["index", "build", "folder"], 143), (["query", "file"], 143), ([], 143)],
)
def test_a_command_that_is_interrupted_has_not_succeeded(arguments: list[str], code: int) -> None:
    """An interrupted Job must be tried again, while a service that is ended has succeeded."""
    script = [sys.executable, "-c", _FIRST_PROCESS, *arguments]
    assert subprocess.run(script, check=False).returncode == code


def test_ctrl_c_in_a_command_raises_keyboard_interrupt() -> None:
    """The default handlers of SIGINT and SIGTERM stay in place."""
    code = (
        "import signal, sys\nfrom services.shared import signals\n"
        "signals.end_command_on_signals(['query'])\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["True", "True"]
