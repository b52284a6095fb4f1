"""Notices stages that stand still: first unready, later not live."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.shared.telemetry.health import Health


@dataclass(frozen=True, slots=True)
class StallThresholds:
    """How long a stage may stand still: before it is unready, and before it is not live."""

    unready_seconds: float
    dead_seconds: float

    def watch(self, health: Health, what: str, stalled: Callable[[float], str | None]) -> None:
        """Add both checks. stalled: the reason, when it stands still for longer than so long."""
        health.ready_when(what, lambda: stalled(self.unready_seconds))
        health.live_when(what, lambda: stalled(self.dead_seconds))


class Watchdog:
    """Knows since when each piece of work of a stage runs."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`what` names the work for the operator."""
        self.what = what
        self._clock = clock
        self._numbers = itertools.count()
        self._since: dict[int, float] = {}
        self.ended = clock()
        """When a piece of work ended last."""

    def begin(self) -> int:
        """Begin a piece of work, in any thread; the number to `end` it by."""
        number = next(self._numbers)
        self._since[number] = self._clock()
        return number

    def end(self, number: int) -> None:
        """End a piece of work, in any thread."""
        del self._since[number]
        self.ended = self._clock()

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Around one piece of work; waiting for work is none."""
        number = self.begin()
        try:
            yield
        finally:
            self.end(number)

    def stalled(self, limit_seconds: float) -> str | None:
        """The reason when the oldest work runs longer than the limit."""
        oldest = min(list(self._since.values()), default=None)
        if oldest is None or self._clock() - oldest <= limit_seconds:
            return None
        return f"{self.what} runs for {self._clock() - oldest:.0f} s"


class ProgressWatch:
    """Knows whether what is in hand moves: it may be lost between stages that all seem well."""

    def __init__(
        self, stages: Sequence[Watchdog], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """stages: each end of their work is a move."""
        self._stages = stages
        self._clock = clock
        self._moved = clock()
        self.in_hand = 0

    def taken(self) -> None:
        """One more."""
        if self.in_hand == 0:
            self._moved = self._clock()
        self.in_hand += 1

    def settled(self, count: int) -> None:
        """So many fewer."""
        self.in_hand -= count
        self._moved = self._clock()

    def stalled(self, limit_seconds: float) -> str | None:
        """The reason when something is in hand and nothing has moved for longer than the limit."""
        still = self._clock() - max(self._moved, *(stage.ended for stage in self._stages))
        if self.in_hand == 0 or still <= limit_seconds:
            return None
        return f"{self.in_hand} in hand, and none has moved for {still:.0f} s"
