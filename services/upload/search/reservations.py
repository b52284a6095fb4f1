"""Reserves slots for queries whose images are still arriving."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_KEPT_SECONDS: Final = 1.0
"""Nearly all images have arrived by then; longer reservations would block others."""


@dataclass(slots=True, eq=False)
class Reservation:
    """A query's claim to a slot.

    Attributes:
        caller: the API key or the address of the sender.
        waits: the query may wait for a slot.
        batch: the batch that the query is part of; empty for a query on its own.
        kept: a slot is reserved.
        ends: when the reservation expires.
    """

    caller: str = ""
    waits: bool = True
    batch: str = ""
    kept: bool = False
    ends: float = 0.0


class Reservations:
    """Holds the reserved slots; each expires after a short time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Hold no reservation yet; `clock` returns seconds."""
        self._clock = clock
        self._reservations: deque[Reservation] = deque()
        self._by_caller = Counter[str]()
        self._count = 0

    @property
    def count(self) -> int:
        """Return the number of reserved slots."""
        now = self._clock()
        while self._reservations and (
            not self._reservations[0].kept or self._reservations[0].ends <= now
        ):
            self.end(self._reservations.popleft())
        return self._count

    def keep(self, caller: str, at_most: int) -> Reservation:
        """Reserve a slot for a query of the caller, unless the caller has `at_most` already."""
        reservation = Reservation(caller)
        if self._by_caller[caller] < at_most:
            reservation.kept, reservation.ends = True, self._clock() + _KEPT_SECONDS
            self._reservations.append(reservation)
            self._by_caller[caller] += 1
            self._count += 1
        elif not self._by_caller[caller]:
            del self._by_caller[caller]
        return reservation

    def end(self, reservation: Reservation) -> bool:
        """End the reservation; return whether it was still valid."""
        if not reservation.kept:
            return False
        reservation.kept = False
        self._count -= 1
        self._by_caller[reservation.caller] -= 1
        if not self._by_caller[reservation.caller]:
            del self._by_caller[reservation.caller]
        return True
