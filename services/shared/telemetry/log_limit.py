"""Limits the log lines of frequent events."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_SECONDS: Final = 10.0


class LogLimit:
    """Allows one log line every few seconds, and counts the events in between."""

    def __init__(
        self, seconds: float = _SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create a limit of one line in `seconds`."""
        self._seconds = seconds
        self._clock = clock
        self._quiet_until = float("-inf")
        self._left_out = 0

    def left_out(self) -> int | None:
        """Return how many events had no line since the last one; None where this one has none."""
        now = self._clock()
        if now < self._quiet_until:
            self._left_out += 1
            return None
        self._quiet_until = now + self._seconds
        left_out, self._left_out = self._left_out, 0
        return left_out
