"""Admits queries while they can be answered in time, and says to the others when to try again.

The pace is measured as this replica sees it: of each answer, how many queries were on their way
when it was asked for, over the time that it took. Under load that is the rate at which answers
come; with little to do it is less than that rate, and never more.

A query takes its place when its image is there. For a short time before, while the image is on its
way, a place is kept for it: a quick caller is not refused after all of the image was sent, and a
slow one keeps nobody else out.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, TypeVar

from services.shared.errors import Overloaded, SimileError
from services.upload.search.reservations import Reservation, Reservations

_Error = TypeVar("_Error", bound=SimileError)

_SHARE: Final = 0.8
"""Of the deadline that a query may be expected to take: times differ."""

_CALLERS_SHARE: Final = 0.25
"""Of the places, at most, that are kept for the images of one caller which are on their way."""

_MIN_IN_FLIGHT: Final = 4
"""This many queries are always admitted: without answers the pace could not be measured again."""

_WEIGHT: Final = 0.1
_MAX_RETRY_SECONDS: Final = 30
_JITTER: Final = 0.5
_LOOK_AGAIN_SECONDS: Final = 0.2
"""The interval at which a waiting query checks the pace and the reservations again."""


class Admission:
    """The places in flight of one kind of query at one replica."""

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
        self._reservations = Reservations(clock)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """Return the number of queries that may be in flight now."""
        return self._limit_within(self._deadline_seconds)

    @property
    def waiting(self) -> int:
        """Return the number of queries that wait for a place."""
        return len(self._waiting)

    def _limit_within(self, seconds: float) -> int:
        if self._pace is None:
            return self._max_in_flight
        in_time = int(self._pace * min(seconds, self._deadline_seconds) * _SHARE)
        return min(self._max_in_flight, max(_MIN_IN_FLIGHT, in_time))

    @property
    def retry_after_seconds(self) -> int:
        """Return the seconds until the queries in flight are answered, with jitter.

        Refused callers must not come back as one.
        """
        seconds = 0.0 if self._pace is None else self.in_flight / self._pace
        seconds *= 1 + self._chance() * _JITTER
        return min(max(1, math.ceil(seconds)), _MAX_RETRY_SECONDS)

    @contextmanager
    def reserve(self, caller: str, within_seconds: float = math.inf) -> Iterator[Reservation]:
        """Keep a place while an image is on its way. Raises Overloaded where no place is free.

        Args:
            caller: the API key or the address that sends it.
            within_seconds: how long the caller will wait, where that is less than the deadline.
        """
        self._require_place(within_seconds)
        at_most = max(1, int(self.limit * _CALLERS_SHARE))
        reservation = self._reservations.keep(caller, at_most)
        try:
            yield reservation
        finally:
            self.release(reservation)

    def release(self, reservation: Reservation) -> None:
        """Keep no place for the reservation any more."""
        if self._reservations.end(reservation):
            self._let_in()

    @contextmanager
    def acquire_now(self, within_seconds: float = math.inf) -> Iterator[None]:
        """Take a place for a query that has all it needs. Raises Overloaded where none is free."""
        self._require_place(within_seconds)
        self.in_flight += 1
        try:
            yield
        finally:
            self._leave()

    @asynccontextmanager
    async def acquire(self, reservation: Reservation, wait_seconds: float) -> AsyncIterator[None]:
        """Take the place that was kept for the reservation, or else the next that comes free.

        Raises Overloaded where none comes within the time, or the reservation may not wait.
        """
        if self._reservations.end(reservation):
            self.in_flight += 1
        else:
            await self._take(wait_seconds if reservation.waits else 0.0)
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Measure the pace: the block runs from the request to its answer or deadline."""
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

    def _full(self) -> Overloaded:
        return self.overloaded(f"{self.in_flight} queries are in flight already; try again later")

    def _require_place(self, within_seconds: float) -> None:
        if self.in_flight + self._reservations.count >= self._limit_within(within_seconds):
            raise self._full()

    @property
    def _free(self) -> bool:
        return self.in_flight + self._reservations.count < self.limit

    async def _take(self, wait_seconds: float) -> None:
        if self._free and not self._waiting:
            self.in_flight += 1
            return
        if wait_seconds <= 0 or len(self._waiting) >= self._max_in_flight:
            raise self._full()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(wait_seconds):
                while not turn.done():
                    await asyncio.wait([turn], timeout=_LOOK_AGAIN_SECONDS)
                    self._let_in()
        except TimeoutError:
            if not turn.done():
                raise self._full() from None
        except asyncio.CancelledError:
            if turn.done():
                self._leave()
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(turn)

    def _leave(self) -> None:
        self.in_flight -= 1
        self._let_in()

    def _let_in(self) -> None:
        """Give free places to those who wait, in their order."""
        while self._waiting and self._free:
            self.in_flight += 1
            self._waiting.popleft().set_result(None)

    def _observe(self, pace: float) -> None:
        self._pace = pace if self._pace is None else self._pace + _WEIGHT * (pace - self._pace)
