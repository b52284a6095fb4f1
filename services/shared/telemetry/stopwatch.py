"""Splits the time that one item takes into stages; clocks of one process only."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final, NamedTuple

clock: Final = time.perf_counter
"""Seconds. What a `Delivery` was `received` by is of it, too."""


class Lap(NamedTuple):
    """A stage, from when to when, by `clock`."""

    stage: str
    began: float
    ended: float


class Stopwatch:
    """Runs from `began`; each lap ends one stage and begins the next, so that none is left out."""

    __slots__ = ("began", "laps", "last")

    def __init__(self, began: float) -> None:
        self.began = began
        self.last = began
        self.laps: list[Lap] = []

    def lap(self, stage: str, ended: float | None = None) -> float:
        """End a stage, now or then; its seconds. One that comes again goes on, or adds up."""
        now = clock() if ended is None else max(ended, self.last)
        began, self.last = self.last, now
        before = self.laps[-1] if self.laps else None
        if before is not None and before.stage == stage and before.ended == began:
            self.laps[-1] = Lap(stage, before.began, now)
        else:
            self.laps.append(Lap(stage, began, now))
        return now - began

    def skip(self, ended: float) -> float:
        """Leave out the time until then, which is another's to tell; how much that was."""
        began, self.last = self.last, max(ended, self.last)
        return self.last - began

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage, in their order."""
        return self.sums(self.laps)

    @staticmethod
    def sums(laps: Iterable[Lap]) -> dict[str, float]:
        """Seconds by stage of these laps, in their order."""
        stages: dict[str, float] = {}
        for stage, began, ended in laps:
            stages[stage] = stages.get(stage, 0.0) + ended - began
        return stages
