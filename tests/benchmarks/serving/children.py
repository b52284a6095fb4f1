"""Starts the processes of a system, counts their CPU time, and ends them with their children."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

_END_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.02
_SETTLE_SECONDS: Final = 0.5
_SETTLE_MAX_SECONDS: Final = 10.0
_SETTLED_CORES: Final = 0.08
_LOG_CHARACTERS: Final = 3000
_ROOT: Final = Path(__file__).resolve().parents[3]


class NotServing(Exception):
    """A system did not start; its log has the reason."""


@dataclass(slots=True)
class Children:
    """The processes of a system, with their logs in a folder."""

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    adopted: list[int] = field(default_factory=list)

    @property
    def pids(self) -> Sequence[int]:
        """Return the roots of the trees."""
        return [*(one.pid for one in self.started), *self.adopted]

    def spawn(
        self, name: str, arguments: Sequence[object], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a process, its output in `<name>.log`; SIMILE_* comes from `environment` alone."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith("SIMILE_")
        }
        with (self.folder / f"{name}.log").open("ab") as output:
            child = subprocess.Popen(
                [str(argument) for argument in arguments],
                cwd=_ROOT, stdout=output, stderr=output, start_new_session=True,
                env={**inherited, "PYTHONPATH": str(_ROOT), **environment},
            )  # fmt: skip
        self.started.append(child)
        return child

    def log(self, name: str) -> str:
        """Return the end of its log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-_LOG_CHARACTERS:]

    def check(self) -> None:
        """Raise NotServing when a process has ended."""
        for child in self.started:
            if child.poll() is not None:
                logs = "\n".join(
                    f"{path.name}:\n{self.log(path.stem)}" for path in self.folder.glob("*.log")
                )
                message = f"{child.args!r} ended with {child.returncode}\n{logs}"
                raise NotServing(message)

    def end(self) -> None:
        """Send SIGTERM in reverse order of the starts, then SIGKILL to survivors."""
        trees = [one for child in self.started for one in tree(child.pid)]
        for child in reversed(self.started):
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_END_SECONDS)
        for process in trees:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for child in self.started:
            child.wait()


@contextlib.contextmanager
def children(folder: Path) -> Iterator[Children]:
    """Yield an empty system; end its processes at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    system = Children(folder)
    try:
        yield system
    finally:
        system.end()


def tree(pid: int) -> Sequence[psutil.Process]:
    """Return the process and its descendants that still run."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the user and system time of the trees so far, including ended processes."""
    seconds = 0.0
    for pid in pids:
        for process in tree(pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system
                seconds += times.children_user + times.children_system
    return seconds


def main_thread_seconds(pid: int) -> float:
    """Return the CPU seconds of the process' main thread so far, to the nanosecond."""
    ran_nanoseconds, *_ = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
    return int(ran_nanoseconds) / 1e9


def settle(pids: Sequence[int]) -> None:
    """Wait until they are idle, so that deferred work of a start is not measured."""
    deadline = time.monotonic() + _SETTLE_MAX_SECONDS
    before = cpu_seconds(pids)
    while time.monotonic() < deadline:
        time.sleep(_SETTLE_SECONDS)
        now = cpu_seconds(pids)
        if now - before < _SETTLED_CORES * _SETTLE_SECONDS:
            return
        before = now


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def poll() -> None:
    """Pause between two checks of something that starts."""
    time.sleep(_POLL_SECONDS)
