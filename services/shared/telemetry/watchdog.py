"""Detects stalled stages, which make a process first unready and later not live."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.shared.telemetry.health import Health


@dataclass(frozen=True, slots=True)
class StallThresholds:
    """Holds how long a stage may stall.

    Attributes:
        unready_seconds: after which the process is not ready.
        dead_seconds: after which the process is not live.
    """

    unready_seconds: float
    dead_seconds: float

    def watch(self, health: Health, what: str, stalled: Callable[[float], str | None]) -> None:
        """Add the checks of readiness and liveness of a stage.

        Args:
            health: gets the checks.
            what: the name of the checks.
            stalled: gets a limit in seconds; returns the reason when the stage stalls for longer.
        """
        health.ready_when(what, lambda: stalled(self.unready_seconds))
        health.live_when(what, lambda: stalled(self.dead_seconds))


class Watchdog:
    """Records since when each piece of a stage's work has been running."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without work; `what` names it for the operator."""
        self.what = what
        self._clock = clock
        self._numbers = itertools.count()
        self._since: dict[int, float] = {}
        self.ended = clock()
        """The time when work ended last."""

    def begin(self) -> int:
        """Begin a piece of work, in any thread; return its number for `end`."""
        number = next(self._numbers)
        self._since[number] = self._clock()
        return number

    def end(self, number: int) -> None:
        """End a piece of work, in any thread."""
        del self._since[number]
        self.ended = self._clock()

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Run a piece of work inside; waiting for work does not count."""
        number = self.begin()
        try:
            yield
        finally:
            self.end(number)

    def stalled(self, limit_seconds: float) -> str | None:
        """Return the reason when the oldest work has been running for longer than the limit."""
        oldest = min(list(self._since.values()), default=None)
        if oldest is None or self._clock() - oldest <= limit_seconds:
            return None
        return f"{self.what} runs for {self._clock() - oldest:.0f} s"


class ProgressWatch:
    """Detects that work in flight makes no progress, although no stage is stalled.

    Work may be lost between two stages.
    """

    def __init__(
        self, stages: Sequence[Watchdog], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: stages, of which each end of work is progress."""
        self._stages = stages
        self._clock = clock
        self._moved = clock()
        self.in_flight = 0

    def taken(self) -> None:
        """Count one more item in flight."""
        if self.in_flight == 0:
            self._moved = self._clock()
        self.in_flight += 1

    def settled(self, count: int) -> None:
        """Count `count` items that are finished."""
        self.in_flight -= count
        self._moved = self._clock()

    def stalled(self, limit_seconds: float) -> str | None:
        """Return the reason when work is in flight without progress for longer than the limit."""
        still = self._clock() - max(self._moved, *(stage.ended for stage in self._stages))
        if self.in_flight == 0 or still <= limit_seconds:
            return None
        return f"{self.in_flight} in flight, without progress for {still:.0f} s"
