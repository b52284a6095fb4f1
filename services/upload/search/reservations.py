"""Reserves places for queries whose images are still being received."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_KEPT_SECONDS: Final = 1.0
"""Nearly all images are here by then; a place that is kept longer is one that others lack."""


@dataclass(slots=True, eq=False)
class Reservation:
    """A query's claim to a place in flight.

    Attributes:
        caller: the API key or the address that it is of.
        waits: the query may wait for a place that comes free.
        kept: a place is kept for it.
        ends: until when it is kept.
    """

    caller: str = ""
    waits: bool = True
    kept: bool = False
    ends: float = 0.0


class Reservations:
    """Holds the reserved places; each expires after a short time."""

    def __init__(self, clock: Callable[[], float], *, kept_seconds: float = _KEPT_SECONDS) -> None:
        """Clock in seconds."""
        self._clock = clock
        self._kept_seconds = kept_seconds
        self._reservations: deque[Reservation] = deque()
        self._by_caller = Counter[str]()
        self._count = 0

    @property
    def count(self) -> int:
        """Return the number of places that are reserved."""
        now = self._clock()
        while self._reservations and (
            not self._reservations[0].kept or self._reservations[0].ends <= now
        ):
            self.end(self._reservations.popleft())
        return self._count

    def keep(self, caller: str, at_most: int) -> Reservation:
        """Keep a place for a query of the caller, unless so many are kept for that caller."""
        reservation = Reservation(caller)
        if self._by_caller[caller] < at_most:
            reservation.kept, reservation.ends = True, self._clock() + self._kept_seconds
            self._reservations.append(reservation)
            self._by_caller[caller] += 1
            self._count += 1
        elif not self._by_caller[caller]:
            del self._by_caller[caller]
        return reservation

    def end(self, reservation: Reservation) -> bool:
        """Keep the place no longer; whether one was kept until now."""
        if not reservation.kept:
            return False
        reservation.kept = False
        self._count -= 1
        self._by_caller[reservation.caller] -= 1
        if not self._by_caller[reservation.caller]:
            del self._by_caller[reservation.caller]
        return True
