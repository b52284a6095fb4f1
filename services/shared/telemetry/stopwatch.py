"""Splits the time of one item into stages, by the clock of one process."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

clock: Final = time.perf_counter
"""The clock of all stages, in seconds; `Delivery.received` is a time of it."""

QueryStage = Literal[
    "receive", "sniff", "lookup", "publish", "embed_queue", "decode", "batch_wait", "model",
    "search_queue", "search", "rerank", "messaging", "reply",
]  # fmt: skip
"""The stages of a query, in their order."""

StageName = QueryStage | Literal["images"]
"""The stages of a query or a batch; `images` is the time that all images of a batch take."""


class Lap(NamedTuple):
    """Holds the beginning and the end of a stage, by `clock`."""

    stage: str
    began: float
    ended: float


class Stopwatch:
    """Measures stages from `began`; each lap ends a stage and begins the next one."""

    __slots__ = ("began", "laps", "last")

    def __init__(self, began: float) -> None:
        self.began = began
        self.last = began
        self.laps: list[Lap] = []

    def lap(self, stage: StageName, ended: float | None = None) -> float:
        """End a stage and return its seconds.

        Args:
            stage: the stage. A stage that ends again adds to its time.
            ended: when it ended, by `clock`; now by default.
        """
        now = clock() if ended is None else max(ended, self.last)
        began, self.last = self.last, now
        before = self.laps[-1] if self.laps else None
        if before is not None and before.stage == stage and before.ended == began:
            self.laps[-1] = Lap(stage, before.began, now)
        else:
            self.laps.append(Lap(stage, began, now))
        return now - began

    def skip(self, ended: float) -> float:
        """Leave out the time until `ended`, which other services measure; return its seconds."""
        began, self.last = self.last, max(ended, self.last)
        return self.last - began

    @property
    def stages(self) -> dict[str, float]:
        """The seconds of each stage, in their order."""
        return self.sums(self.laps)

    @staticmethod
    def sums(laps: Iterable[Lap]) -> dict[str, float]:
        """Add up the seconds of each stage in these laps, in their order."""
        stages: dict[str, float] = {}
        for stage, began, ended in laps:
            stages[stage] = stages.get(stage, 0.0) + ended - began
        return stages
