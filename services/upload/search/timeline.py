"""Collects the time of each stage of a query: those of upload, and those in the answer.

Times of two machines' clocks are never subtracted. The time between sending a query and its
answer that is in no stage is `messaging`: the broker with its queues, the network, encoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Final

from services.shared.contracts import Stages
from services.shared.telemetry.stopwatch import StageName, Stopwatch, clock

_MESSAGING: Final = "messaging"
_PUBLISH: Final = "publish"


class Timeline:
    """A query's stages here and in other services; they sum to the time since its start."""

    def __init__(self, began: float | None = None) -> None:
        self.watch = Stopwatch(clock() if began is None else began)
        self._before_sent = 0
        self._elsewhere: dict[str, float] = {}
        self.batch_images = 0

    def lap(self, stage: StageName, ended: float | None = None) -> None:
        """End a stage of upload, now or at `ended`: receive, sniff, lookup, publish, reply."""
        self.watch.lap(stage, ended)
        if stage == _PUBLISH:
            self._before_sent = len(self.watch.laps)

    def add_remote_stages(self, until: float, stages: Stages, batch_images: int) -> None:
        """Add the stages of the other services; until: the arrival of the answer, by `clock`."""
        away = self.watch.skip(until) - sum(stages.values())
        remote = itertools.chain(stages.items(), [(_MESSAGING, away)])
        for stage, seconds in remote:
            self._elsewhere[stage] = self._elsewhere.get(stage, 0.0) + seconds
        self.batch_images = batch_images or self.batch_images

    @property
    def answered(self) -> bool:
        """Return True once stages of other services were added."""
        return bool(self._elsewhere)

    def copy(self) -> Timeline:
        """Return a copy, for one of several queries of a request."""
        copied = Timeline(self.watch.began)
        copied.watch.laps, copied.watch.last = self.watch.laps[:], self.watch.last
        return copied

    def seconds(self) -> Mapping[str, float]:
        """Return every stage in order, and the total."""
        laps = self.watch.laps
        stages = Stopwatch.sums(laps[: self._before_sent] if self._elsewhere else laps)
        if self._elsewhere:
            stages |= self._elsewhere
            _give_way(stages)
            stages |= Stopwatch.sums(laps[self._before_sent :])
        stages["total"] = self.watch.last - self.watch.began
        return stages


def _give_way(stages: dict[str, float]) -> None:
    """Shorten overlapping stages: a service may begin before the broker's confirm arrives."""
    early = min(0.0, stages[_MESSAGING])
    stages[_PUBLISH] = max(0.0, stages[_PUBLISH] + early)
    stages[_MESSAGING] = max(0.0, stages[_MESSAGING])
