"""Bounds arriving bodies: their number, their bytes, and the pace of each.

A query takes a slot when its image has arrived. Until then only these bounds apply, so
that slow callers do not block others.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from services.shared.errors import (
    BodyTimeout,
    MalformedRequest,
    Overloaded,
    RateLimited,
    SimileError,
)

_PACE_SECONDS: Final = 5.0
"""The window in which the pace of a body is measured: short pauses of the network are allowed."""

_CALLERS_SHARE: Final = 0.75
"""The share of each bound that a single caller may use: a quarter is left for the others."""


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """The bounds of all bodies of this replica, and of each body.

    Attributes:
        count: bodies that may arrive at once.
        held_bytes: bytes of all bodies together, from their arrival to the answer.
        bytes_per_second: the minimum pace of each body; 0 for none.
        timeout_seconds: how long a body may take to arrive.
        pace_seconds: the time in which the pace of a body is measured.
    """

    count: int = 1024
    held_bytes: int = 256 * 2**20
    bytes_per_second: int = 1024
    timeout_seconds: float = 30.0
    pace_seconds: float = _PACE_SECONDS


@dataclass(slots=True)
class _Use:
    """The arriving bodies and their bytes, of a caller or of all."""

    count: int = 0
    held_bytes: int = 0


class Bodies:
    """Counts the bodies of this replica, and refuses those beyond the bounds."""

    def __init__(
        self, bounds: BodyBounds, on_refused: Callable[[str], None] = lambda _code: None
    ) -> None:
        """on_refused gets the code of each refusal."""
        self.bounds = bounds
        self.used = _Use()
        self._on_refused = on_refused
        self._callers: dict[str, _Use] = {}
        self._arriving: set[Body] = set()

    @contextmanager
    def arriving(self, caller: str, announced_bytes: int) -> Iterator[Body]:
        """Count a body from its request's head to its answer.

        If the bound of bodies is reached, the slowest body of the caller that sends most of them
        makes room for a caller that sends fewer.

        Args:
            caller: the API key or the address that sends the body.
            announced_bytes: the body's Content-Length; 0 where the head has none.

        Raises:
            Overloaded: the bounds of all bodies are reached.
            RateLimited: the caller's share of the bounds is reached.
        """
        body = Body(self, caller)
        if self.used.count >= self.bounds.count:
            self._make_room(caller)
        self._require(caller, 1, announced_bytes)
        self._add(caller, 1, 0)
        self._arriving.add(body)
        try:
            yield body
        finally:
            body.arrived()
            self._add(caller, 0, -body.held_bytes)

    @property
    def callers(self) -> int:
        """Return the number of callers whose bodies arrive or hold bytes."""
        return len(self._callers)

    def hold(self, caller: str, count: int) -> None:
        """Count bytes that have arrived. Raises Overloaded or RateLimited, and counts none then."""
        self._require(caller, 0, count)
        self._add(caller, 0, count)

    def end(self, body: Body) -> None:
        """Count a body that has arrived or ended."""
        self._arriving.discard(body)
        self._add(body.caller, -1, 0)

    def refused(self, refusal: SimileError) -> SimileError:
        """Count a refusal, and return it."""
        self._on_refused(refusal.code)
        return refusal

    def _make_room(self, caller: str) -> None:
        """Abort the slowest body of the caller with most of them, if this caller has fewer."""
        counts = Counter(body.caller for body in self._arriving)
        busiest, most = max(counts.items(), key=lambda item: item[1], default=("", 0))
        if most > counts[caller] + 1:
            theirs = (body for body in self._arriving if body.caller == busiest)
            min(theirs, key=lambda body: body.bytes_per_second).displace()

    def _require(self, caller: str, count: int, size: int) -> None:
        bounds, theirs = self.bounds, self._callers.get(caller, _Use())
        all_of_them = self.used.count + count, self.used.held_bytes + size
        of_caller = theirs.count + count, theirs.held_bytes + size
        if all_of_them[0] > bounds.count or all_of_them[1] > bounds.held_bytes:
            message = (
                f"{self.used.count} images are arriving already, and "
                f"{self.used.held_bytes} bytes are held; try again later"
            )
            raise self.refused(Overloaded(message))
        if (
            of_caller[0] > max(1, int(bounds.count * _CALLERS_SHARE))
            or of_caller[1] > bounds.held_bytes * _CALLERS_SHARE
        ):
            message = (
                f"{theirs.count} of your images are arriving already, and {theirs.held_bytes} "
                "of your bytes are held; send fewer at once"
            )
            raise self.refused(RateLimited(message))

    def _add(self, caller: str, count: int, size: int) -> None:
        theirs = self._callers.setdefault(caller, _Use())
        for use in (self.used, theirs):
            use.count += count
            use.held_bytes += size
        if theirs.count == 0 and theirs.held_bytes == 0:
            del self._callers[caller]


class Body:
    """Counts one body until `arrived`, and its bytes until its request ends."""

    def __init__(self, bodies: Bodies, caller: str) -> None:
        self._bodies = bodies
        self.caller = caller
        self._on_its_way = True
        self._displaced = False
        self._began_at = time.monotonic()
        self._ends_at = 0.0
        self._lot_begun_at = 0
        self._timer: asyncio.Timeout | None = None
        self.held_bytes = 0

    @property
    def timeout_seconds(self) -> float:
        """Return how long a body may take to arrive."""
        return self._bodies.bounds.timeout_seconds

    def add_bytes(self, count: int) -> None:
        """Count received bytes. Raises Overloaded or RateLimited when they are too many."""
        self._bodies.hold(self.caller, count)
        self.held_bytes += count
        lot = self._bodies.bounds.bytes_per_second * self._bodies.bounds.pace_seconds
        if self._timer is not None and self.held_bytes - self._lot_begun_at >= lot:
            self._lot_begun_at = self.held_bytes
            self._timer.reschedule(self._next_end())

    def arrived(self) -> None:
        """Mark the body as arrived."""
        if self._on_its_way:
            self._on_its_way = False
            self._bodies.end(self)

    @property
    def bytes_per_second(self) -> float:
        """Return the body's pace since its request's head, over at least a second."""
        return self.held_bytes / max(1.0, time.monotonic() - self._began_at)

    def displace(self) -> None:
        """Abort the reading of the body with Overloaded, for another caller."""
        self._displaced = True
        self.arrived()
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(_now())

    @asynccontextmanager
    async def time_limit(self) -> AsyncIterator[None]:
        """Bound the time to read the body in.

        Raises:
            BodyTimeout: the body takes too long, or arrives too slowly.
            MalformedRequest: the body does not match its headers.
            Overloaded: the body was aborted for another caller.
        """
        self._ends_at = _now() + self._bodies.bounds.timeout_seconds
        try:
            async with asyncio.timeout_at(self._next_end()) as self._timer:
                yield
        except TimeoutError:
            if self._displaced:
                message = "too many images are arriving, most of them yours; send fewer at once"
                raise self._bodies.refused(Overloaded(message)) from None
            raise BodyTimeout(self._lateness()) from None
        except web.RequestPayloadError as error:
            message = "the body is not as its headers say: wrong chunks, or cut"
            raise MalformedRequest(message) from error
        finally:
            self._timer = None

    def _next_end(self) -> float:
        """Return the time by which the next bytes must arrive, on the event loop's clock."""
        if self._displaced:
            return _now()
        if not self._bodies.bounds.bytes_per_second:
            return self._ends_at
        return min(self._ends_at, _now() + self._bodies.bounds.pace_seconds)

    def _lateness(self) -> str:
        bounds = self._bodies.bounds
        if _now() >= self._ends_at:
            return f"the body did not arrive within {bounds.timeout_seconds:g} s"
        return (
            f"the body comes with less than {bounds.bytes_per_second} bytes a second; "
            "send it faster, or a smaller image"
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
