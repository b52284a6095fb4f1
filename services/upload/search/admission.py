"""Admits queries while they can be answered in time, and refuses others with a retry time.

The pace is measured by this replica: for each answer, the number of queries in flight
when its query was sent, over its duration. Under load that is the rate of answers;
otherwise it is lower than that rate, and never higher.

The images of all batches together use at most half of the slots, so that single queries find a free
one. They wait in a queue of their own, and batches take turns.

A query takes a slot when its image has arrived. Shortly before, while the image is arriving,
a slot is reserved: a fast caller is not refused after its whole image was sent, and a
slow one does not block others.
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
from services.upload.search.batch_queue import BatchQueue
from services.upload.search.reservations import Reservation, Reservations

_Error = TypeVar("_Error", bound=SimileError)

_SHARE: Final = 0.8
"""The share of the deadline that a query may be expected to take, since durations vary."""

_CALLERS_SHARE: Final = 0.25
"""The maximum share of slots that are reserved for arriving images of a single caller."""

_BATCHES_SHARE: Final = 0.5
"""The share of slots that the images of batches may use, and at least a slot."""

_SOME_BATCH: Final = "batch"

MIN_IN_FLIGHT: Final = 4
"""The queries that are always admitted: without answers the pace could not be measured."""

_WEIGHT: Final = 0.1
_MAX_RETRY_SECONDS: Final = 30
_JITTER: Final = 0.5
_LOOK_AGAIN_SECONDS: Final = 0.2
"""The interval at which a waiting query checks the pace and the reservations again."""


class Admission:
    """The slots of one kind of query at a replica."""

    def __init__(
        self,
        *,
        max_in_flight: int,
        deadline_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Create the slots, all of them free.

        Args:
            max_in_flight: queries in flight, at most.
            deadline_seconds: how long a query may take.
            clock: returns seconds.
            chance: returns 0..1, to spread the retries.
        """
        self._max_in_flight = max_in_flight
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._chance = chance
        self._pace: float | None = None
        self._asked = 0
        self._reservations = Reservations(clock)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._batches = BatchQueue()
        self._of_batches = 0
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """Return the number of queries that may be in flight now."""
        return self._limit_within(self._deadline_seconds)

    @property
    def waiting(self) -> int:
        """Return the number of queries that wait for a slot."""
        return len(self._waiting) + len(self._batches)

    def _limit_within(self, seconds: float) -> int:
        if self._pace is None:
            return self._max_in_flight
        in_time = int(self._pace * min(seconds, self._deadline_seconds) * _SHARE)
        return min(self._max_in_flight, max(MIN_IN_FLIGHT, in_time))

    @property
    def retry_after_seconds(self) -> int:
        """Return the seconds until the queries in flight are answered, with jitter.

        Refused callers must not return all at once.
        """
        seconds = 0.0 if self._pace is None else self.in_flight / self._pace
        seconds *= 1 + self._chance() * _JITTER
        return min(max(1, math.ceil(seconds)), _MAX_RETRY_SECONDS)

    @contextmanager
    def reserve(self, caller: str, within_seconds: float = math.inf) -> Iterator[Reservation]:
        """Reserve a slot while an image arrives. Raises Overloaded if none is free.

        Args:
            caller: the API key or the address of the sender.
            within_seconds: how long the caller waits, if less than the deadline.
        """
        self._require_slot(within_seconds)
        at_most = max(1, int(self.limit * _CALLERS_SHARE))
        reservation = self._reservations.keep(caller, at_most)
        try:
            yield reservation
        finally:
            self.release(reservation)

    def release(self, reservation: Reservation) -> None:
        """End the reservation."""
        if self._reservations.end(reservation):
            self._let_in()

    @contextmanager
    def acquire_now(self, within_seconds: float = math.inf) -> Iterator[None]:
        """Take a slot for a query that is complete. Raises Overloaded if none is free."""
        self._require_slot(within_seconds)
        self._enter()
        try:
            yield
        finally:
            self._leave()

    @asynccontextmanager
    async def acquire(self, reservation: Reservation, wait_seconds: float) -> AsyncIterator[None]:
        """Take the reserved slot, or else the next free one.

        Raises Overloaded if none becomes free in time, or the reservation may not wait.
        """
        batch = reservation.batch
        if self._reservations.end(reservation):
            self._enter(batch)
        else:
            await self._take(wait_seconds if reservation.waits else 0.0, batch)
        try:
            yield
        finally:
            self._leave(batch)

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Measure the pace: the block runs from the request to its answer or deadline."""
        self._asked += 1
        ahead, started = self._asked, self._clock()
        try:
            yield
        finally:
            self._asked -= 1
        # Not after an error: refused and lost queries show nothing about the pace.
        self._observe(ahead / max(self._clock() - started, 1e-3))

    def too_late(self) -> None:
        """Note a missed deadline: the pace is at most the expected one."""
        self._observe(max(1, self._asked) / self._deadline_seconds)

    def overloaded(self, message: str) -> Overloaded:
        """Return the refusal with the time after which a retry is likely to succeed."""
        return self.later(Overloaded(message))

    def later(self, error: _Error) -> _Error:
        """Return the error with the time after which a retry is likely to succeed."""
        error.retry_after_seconds = self.retry_after_seconds
        return error

    def _full(self) -> Overloaded:
        return self.overloaded(f"{self.in_flight} queries are in flight already; try again later")

    def _require_slot(self, within_seconds: float) -> None:
        if self.in_flight + self._reservations.count >= self._limit_within(within_seconds):
            raise self._full()

    @property
    def _free(self) -> bool:
        return self.in_flight + self._reservations.count < self.limit

    @property
    def _batches_turn(self) -> bool:
        """Return whether the next free slot may go to a batch: the first, then half of the rest."""
        if not self._of_batches:
            return True
        return not self._waiting and self._of_batches < self.limit * _BATCHES_SHARE

    async def _take(self, wait_seconds: float, batch: str) -> None:
        if self._may_enter(batch):
            self._enter(batch)
            return
        # The images of batches are bounded by the bodies that hold them.
        if wait_seconds <= 0 or (not batch and len(self._waiting) >= self._max_in_flight):
            raise self._full()
        turn = asyncio.get_running_loop().create_future()
        self._queue(turn, batch)
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
                self._leave(batch)
            raise
        finally:
            self._unqueue(turn, batch)

    def _may_enter(self, batch: str) -> bool:
        """Return whether a query that has just come may take a slot at once."""
        if batch:
            return self._free and self._batches_turn and not self._batches
        return self._free and not self._waiting

    def _queue(self, turn: asyncio.Future[None], batch: str) -> None:
        if batch:
            self._batches.add(batch, turn)
        else:
            self._waiting.append(turn)

    def _unqueue(self, turn: asyncio.Future[None], batch: str) -> None:
        if batch:
            self._batches.remove(batch, turn)
            return
        with suppress(ValueError):
            self._waiting.remove(turn)

    def _enter(self, batch: str = "") -> None:
        self.in_flight += 1
        self._of_batches += bool(batch)

    def _leave(self, batch: str = "") -> None:
        self.in_flight -= 1
        self._of_batches -= bool(batch)
        self._let_in()

    def _let_in(self) -> None:
        """Give free slots to waiting queries, in order."""
        while self._free:
            if self._batches and self._batches_turn:
                self._enter(_SOME_BATCH)
                self._batches.pop().set_result(None)
            elif self._waiting:
                self._enter()
                self._waiting.popleft().set_result(None)
            else:
                return

    def _observe(self, pace: float) -> None:
        self._pace = pace if self._pace is None else self._pace + _WEIGHT * (pace - self._pace)
