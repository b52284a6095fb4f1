"""Notices work in a thread that doesn't end: first unready, later not live."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator

from services.shared.telemetry.health import Health


class Watchdog:
    """Knows since when each piece of blocking work runs."""

    def __init__(
        self,
        what: str,
        *,
        unready_seconds: float,
        dead_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`what` names the work for the operator."""
        self._what = what
        self._unready_seconds = unready_seconds
        self._dead_seconds = dead_seconds
        self._clock = clock
        self._numbers = itertools.count()
        self._since: dict[int, float] = {}

    def register(self, health: Health) -> None:
        """Add both checks."""
        health.ready_when(self._what, lambda: self.stalled(self._unready_seconds))
        health.live_when(self._what, lambda: self.stalled(self._dead_seconds))

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Around one piece of work, in any thread."""
        number = next(self._numbers)
        self._since[number] = self._clock()
        try:
            yield
        finally:
            del self._since[number]

    def stalled(self, limit_seconds: float) -> str | None:
        """The reason when the oldest work runs longer than the limit."""
        oldest = min(list(self._since.values()), default=None)
        if oldest is None or self._clock() - oldest <= limit_seconds:
            return None
        return f"{self._what} runs for {self._clock() - oldest:.0f} s"
