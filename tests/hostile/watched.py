"""Runs a decoding process, and returns the cost of each file."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Child:
    """The decoding process."""

    def __init__(self, max_pixels: int) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.decoding_process", str(max_pixels)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def decode(self, path: Path, target: int = 0) -> dict[str, Any]:
        """Decode the file; return the cost. Fails if the process dies."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(f"{target} {path}\n")
        self.popen.stdin.flush()
        line = self.popen.stdout.readline()
        assert line, f"the process died of {path.name}: {self.popen.wait(30)}"
        cost: dict[str, Any] = json.loads(line)
        return cost


@contextlib.contextmanager
def child(max_pixels: int) -> Iterator[Child]:
    """Run a decoding process within the context."""
    running = Child(max_pixels)
    try:
        yield running
    finally:
        running.popen.kill()
        running.popen.communicate()
