"""Runs a process under a pty, and shows the contents of its screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from typing import Final

import pyte

from tests.support.running import MODELS_DIR, START_SECONDS

COLUMNS: Final = 100
LINES: Final = 40
_STEP_SECONDS: Final = 0.2
_CHUNK_BYTES: Final = 65_536


class Terminal:
    """Runs a process whose input and output are a terminal of 100 columns and 40 lines."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SIMILE_") or name == MODELS_DIR
        }
        self.popen = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
            env={**inherited, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        os.close(inner)
        self._screen = pyte.HistoryScreen(COLUMNS, LINES, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self.received = 0

    @property
    def text(self) -> str:
        """Return the lines of the screen that are not blank."""
        return "\n".join(line.rstrip() for line in self._screen.display if line.strip())

    def read(self, seconds: float) -> bool:
        """Feed the screen for that time; return False once the terminal is closed."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._fd], [], [], min(left, _STEP_SECONDS))[0]:
                continue
            try:
                chunk = os.read(self._fd, _CHUNK_BYTES)
            except OSError:  # Linux reports a closed terminal so
                return False
            self.received += len(chunk)
            self._stream.feed(chunk)
        return True

    def wait_for(self, text: str) -> None:
        """Read until the screen shows the text; fail when the process ends or takes long."""
        deadline = time.monotonic() + START_SECONDS
        while text not in self.text:
            goes_on = self.read(_STEP_SECONDS)
            if text not in self.text and (not goes_on or time.monotonic() > deadline):
                message = f"the screen never showed {text!r}:\n{self.text}"
                raise AssertionError(message)

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        self.popen.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Read until the process ends, and return its exit code."""
        while self.popen.poll() is None and self.read(_STEP_SECONDS):
            pass
        return self.popen.wait(START_SECONDS)

    def close(self) -> None:
        """End the process, if it still runs, and close the terminal."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(30)
        self.popen.kill()
        self.popen.wait()
        os.close(self._fd)


@contextlib.contextmanager
def up_on_terminal(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Run `simile up ARGUMENTS` on a terminal and a free port."""
    terminal = Terminal(["-m", "services", "up", "--port", "0", *arguments], environment or {})
    try:
        yield terminal
    finally:
        terminal.close()
