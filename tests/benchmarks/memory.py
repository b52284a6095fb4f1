"""Measures the memory of a process, or of a tree of processes; from /proc, so Linux alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_SAMPLE_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Ran:
    """A child process that exited with 0.

    peak_anonymous_bytes: the maximum that it and its children held at once (RssAnon, sampled).
    peak_resident_bytes: the maximum of any of them with mapped files (VmHWM; as ru_maxrss, but
    without counting the parent that it was forked from).
    """

    output: str
    seconds: float
    peak_anonymous_bytes: int
    peak_resident_bytes: int


def status_bytes(field: str, pid: int | str = "self") -> int:
    """Return a field of /proc/<pid>/status in bytes: RssAnon, VmHWM, ...; 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * 1024
    return 0


def mapped_file_bytes(root: Path) -> int:
    """Return the bytes of this process that map files below that folder, removed ones too."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(root) in line:
            first, _, last = line.split()[0].partition("-")
            total += int(last, 16) - int(first, 16)
    return total


def open_files() -> int:
    """Return the number of file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (no Path of each is needed)


def run_sampled(module: str, *arguments: object) -> Ran:
    """Run `python -m module arguments` to its end, sampling its memory. Raises RuntimeError."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )
    anonymous = resident = 0
    while child.poll() is None:
        pids = _tree(child.pid)
        anonymous = max(anonymous, sum(status_bytes("RssAnon", pid) for pid in pids))
        resident = max([resident, *(status_bytes("VmHWM", pid) for pid in pids)])
        time.sleep(_SAMPLE_SECONDS)
    seconds = time.perf_counter() - started
    output = child.stdout.read() if child.stdout else ""
    if child.returncode:
        message = f"{module} {' '.join(map(str, arguments))} ended with {child.returncode}"
        raise RuntimeError(message)
    return Ran(output, seconds, anonymous, resident)


def _tree(pid: int) -> Sequence[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []
