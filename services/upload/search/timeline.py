"""Where the time of one query goes: what upload measures, and what the answer tells of the others.

Clocks of two machines are never subtracted. What passes between sending a query and getting its
answer, and is nobody's stage, is `messaging`: the broker with its queues, the network, encoding.
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
    """A query's stages here, and elsewhere; together they are the time since it began."""

    def __init__(self, began: float | None = None) -> None:
        self.watch = Stopwatch(clock() if began is None else began)
        self._before_sent = 0
        self._elsewhere: dict[str, float] = {}
        self.batch_images = 0

    def lap(self, stage: StageName, ended: float | None = None) -> None:
        """Something is done here, now or then: receive, sniff, lookup, publish, reply."""
        self.watch.lap(stage, ended)
        if stage == _PUBLISH:
            self._before_sent = len(self.watch.laps)

    def add_remote_stages(self, until: float, stages: Stages, batch_images: int) -> None:
        """It was with the others until then, by `clock`; what they say of it."""
        away = self.watch.skip(until) - sum(stages.values())
        told = itertools.chain(stages.items(), [(_MESSAGING, away)])
        for stage, seconds in told:
            self._elsewhere[stage] = self._elsewhere.get(stage, 0.0) + seconds
        self.batch_images = batch_images or self.batch_images

    @property
    def answered(self) -> bool:
        """Whether others have worked for it."""
        return bool(self._elsewhere)

    def copy(self) -> Timeline:
        """The same until now: several queries of one request go ways of their own."""
        copied = Timeline(self.watch.began)
        copied.watch.laps, copied.watch.last = self.watch.laps[:], self.watch.last
        return copied

    def seconds(self) -> Mapping[str, float]:
        """Every stage in the order of the walk, and the total."""
        laps = self.watch.laps
        stages = Stopwatch.sums(laps[: self._before_sent] if self._elsewhere else laps)
        if self._elsewhere:
            stages |= self._elsewhere
            _give_way(stages)
            stages |= Stopwatch.sums(laps[self._before_sent :])
        stages["total"] = self.watch.last - self.watch.began
        return stages


def _give_way(stages: dict[str, float]) -> None:
    """The next service may begin before the broker's confirm is here: no time counts twice."""
    early = min(0.0, stages[_MESSAGING])
    stages[_PUBLISH] = max(0.0, stages[_PUBLISH] + early)
    stages[_MESSAGING] = max(0.0, stages[_MESSAGING])
