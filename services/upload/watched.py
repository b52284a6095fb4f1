"""Files that others replace while the process runs: read at the start, and again when they change.

A mounted Secret is replaced by swapping a link, cert-manager renews a pair: rotation needs no
restart. What can't be read leaves everything as it was, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from services.shared.errors import InvalidSettings

_log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 1.0

_Stamp = tuple[str, int, int, int]


class Watched:
    """Some files that are read together."""

    def __init__(
        self,
        what: str,
        files: Sequence[Path],
        read: Callable[[], None],
        count: Callable[[str, str], None] = lambda _what, _result: None,
    ) -> None:
        """Read them now.

        read: raises OSError, ValueError or InvalidSettings and then has changed nothing.
        count: gets `what`, and ok or refused, at each later reading. Raises InvalidSettings.
        """
        self._what = what
        self._files = tuple(files)
        self._read = read
        self._count = count
        self._good = self._stamps()
        self._bad: tuple[_Stamp | None, ...] = ()
        try:
            read()
        except (OSError, ValueError, InvalidSettings) as error:
            message = f"the {what} can't be read from {self._named}: {error}"
            raise InvalidSettings(message) from None

    def changed(self) -> bool:
        """Whether a file is another than the one that was read last."""
        return self._stamps() != self._good

    def refresh(self) -> None:
        """Read again, if a file has changed."""
        # Before the reading: what changes meanwhile is seen the next time.
        stamps = self._stamps()
        if stamps == self._good:
            return
        try:
            self._read()
        except (OSError, ValueError, InvalidSettings) as error:
            if stamps != self._bad:
                _log.error(
                    f"the {self._what} can't be read from {self._named}; those before stay in use",
                    action="reload_refused",
                    what=self._what,
                    why=str(error),
                )
                self._count(self._what, "refused")
            self._bad = stamps
            return
        self._good, self._bad = stamps, ()
        _log.info(f"the {self._what} changed", action="reloaded", what=self._what)
        self._count(self._what, "ok")

    async def watch(self) -> None:
        """Look every second, for ever."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if await asyncio.to_thread(self.changed):
                # Here, since a TLS context must not change under another thread's handshake.
                self.refresh()

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
    return str(real), seen.st_ino, seen.st_mtime_ns, seen.st_size
