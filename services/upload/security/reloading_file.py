"""Reads files that others replace while the process runs: at the start, and after changes.

A mounted Secret is replaced by swapping a link, cert-manager renews a pair: rotation needs no
restart. A change is read when the files are stable: a file written in place is incomplete for a
moment, and a replaced file may be absent for a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from services.shared.errors import InvalidSettings

_log = structlog.get_logger(__name__)

_Stamp = tuple[str, int, int, int, int]


@dataclass(frozen=True, slots=True)
class ReloadTimes:
    """The times of reading changed files.

    Attributes:
        poll_seconds: the interval of checks.
        rest_seconds: how long changed files must be stable before they are read.
        max_unrest_seconds: files that change or are missing for longer are read as they are.
    """

    poll_seconds: float = 1.0
    rest_seconds: float = 0.25
    max_unrest_seconds: float = 2.0


_TIMES: Final = ReloadTimes()


class ReloadingFile:
    """A group of files that are read together."""

    def __init__(
        self,
        what: str,
        files: Sequence[Path],
        read: Callable[[], None],
        count: Callable[[str, str], None] = lambda _what, _result: None,
        *,
        otherwise: str = "those before stay in use",
        times: ReloadTimes = _TIMES,
    ) -> None:
        """Read the files now.

        Args:
            what: the name of the files in logs and metrics.
            files: the files.
            read: raises OSError, ValueError or InvalidSettings for unreadable files.
            count: gets `what`, and ok or refused, at each later reading.
            otherwise: the state after a failed reading, for the log.
            times: when changed files are read.

        Raises:
            InvalidSettings: the files can't be read.
        """
        self.what = what
        self._files = tuple(files)
        self._read = read
        self._count = count
        self._otherwise = otherwise
        self._times = times
        self._good: tuple[_Stamp | None, ...] | None = self._stamps()
        self._bad: tuple[_Stamp | None, ...] | None = None
        try:
            read()
        except (OSError, ValueError, InvalidSettings) as error:
            message = f"the {what} can't be read from {self._named}: {error}"
            raise InvalidSettings(message) from None

    def changed(self) -> bool:
        """Return True if a file changed since the last reading."""
        return self._stamps() != self._good

    def refresh(self) -> None:
        """Read again, if a file has changed."""
        # Before the reading: later changes are seen the next time.
        stamps = self._stamps()
        if stamps == self._good:
            return
        try:
            self._read()
        except (OSError, ValueError, InvalidSettings) as error:
            if stamps != self._bad:
                _log.error(
                    f"the {self.what} can't all be read from {self._named}; {self._otherwise}",
                    action="reload_refused",
                    what=self.what,
                    why=str(error),
                )
                self._count(self.what, "refused")
            # The previous files count as changed, should they come back.
            self._good, self._bad = None, stamps
            return
        self._good, self._bad = stamps, None
        _log.info(f"the {self.what} changed", action="reloaded", what=self.what)
        self._count(self.what, "ok")

    async def watch(self) -> None:
        """Check every second until cancelled."""
        while True:
            await asyncio.sleep(self._times.poll_seconds)
            if await asyncio.to_thread(self.changed):
                await self._rest()
                # In this thread: a TLS context must not change during another thread's handshake.
                self.refresh()

    async def _rest(self) -> None:
        """Wait until the files exist and are stable, for a bounded time."""
        seen, began = self._stamps(), time.monotonic()
        while time.monotonic() - began < self._times.max_unrest_seconds:
            await asyncio.sleep(self._times.rest_seconds)
            before, seen = seen, await asyncio.to_thread(self._stamps)
            if seen == before and all(stamp is not None and stamp[-1] for stamp in seen):
                return

    @property
    def _named(self) -> str:
        return ", ".join(map(str, self._files))

    def _stamps(self) -> tuple[_Stamp | None, ...]:
        return tuple(map(_stamp, self._files))


def _stamp(file: Path) -> _Stamp | None:
    real = file.resolve()
    try:
        seen = real.stat()
    except OSError:
        return None
    # Tools can reset mtime, but not ctime.
    return str(real), seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size
