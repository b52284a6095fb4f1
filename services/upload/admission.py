"""Lets queries in while they can be answered in time, and tells the others when to come back.

What is measured is the pace of the embedders, as this replica sees it: of each answer, how many
queries were on their way when it was asked for, over the time that it took. Under load that is the
rate at which answers come; with little to do it says less than the rate, and never too much.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from services.shared.errors import Overloaded, SimileError

_Error = TypeVar("_Error", bound=SimileError)

_SHARE: Final = 0.8
"""Of the deadline that a query may be expected to take: times differ."""

_ALWAYS: Final = 4
"""So many are let in however slow it seems: without answers the pace could never be seen again."""

_WEIGHT: Final = 0.1
_LONGEST_RETRY_SECONDS: Final = 30
_JITTER: Final = 0.5


class Admission:
    """The door of one replica."""

    def __init__(
        self,
        *,
        max_in_flight: int,
        deadline_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Clock in seconds; chance gives 0..1."""
        self._max_in_flight = max_in_flight
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._chance = chance
        self._pace: float | None = None
        self._asked = 0
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """How many queries may be on their way now."""
        return self._limit_within(self._deadline_seconds)

    def _limit_within(self, seconds: float) -> int:
        if self._pace is None:
            return self._max_in_flight
        in_time = int(self._pace * min(seconds, self._deadline_seconds) * _SHARE)
        return min(self._max_in_flight, max(_ALWAYS, in_time))

    @property
    def retry_after_seconds(self) -> int:
        """When what is on its way now will have been answered, and a little later for some.

        Refused callers must not come back as one.
        """
        seconds = 0.0 if self._pace is None else self.in_flight / self._pace
        seconds *= 1 + self._chance() * _JITTER
        return min(max(1, math.ceil(seconds)), _LONGEST_RETRY_SECONDS)

    @contextmanager
    def admitted(self, within_seconds: float = math.inf) -> Iterator[None]:
        """Around a whole query, its body's arrival included. Raises Overloaded.

        within_seconds: how long its caller will wait, where that is less than the deadline.
        """
        if self.in_flight >= self._limit_within(within_seconds):
            message = f"{self.in_flight} queries are on their way already; try again later"
            raise self.overloaded(message)
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    @contextmanager
    def paced(self) -> Iterator[None]:
        """Around the asking of an embedder, until its answer or the deadline."""
        self._asked += 1
        ahead, started = self._asked, self._clock()
        try:
            yield
        finally:
            self._asked -= 1
        # Not after an error: what is refused or lost on its way says nothing about the pace.
        self._observe(ahead / max(self._clock() - started, 1e-3))

    def too_late(self) -> None:
        """A deadline has passed: the pace is what can be expected at most."""
        self._observe(max(1, self._asked) / self._deadline_seconds)

    def overloaded(self, message: str) -> Overloaded:
        """The refusal, with the time after which trying again is likely to help."""
        return self.later(Overloaded(message))

    def later(self, error: _Error) -> _Error:
        """The error, with the time after which trying again is likely to help."""
        error.retry_after_seconds = self.retry_after_seconds
        return error

    def _observe(self, pace: float) -> None:
        self._pace = pace if self._pace is None else self._pace + _WEIGHT * (pace - self._pace)
