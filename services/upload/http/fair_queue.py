"""Limits how many reading requests are answered at once; callers with few requests come first.

Thousands of connections that request long listings would otherwise block the event loop for
seconds, for all callers.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from services.shared.errors import Overloaded
from services.upload.http.context import ALLOWANCE

_SLOTS: Final = 8
_MAX_WAITING: Final = 500
"""The maximum of waiting connections; beyond, the busiest caller is refused."""

_REMEMBERED_SECONDS: Final = 2.0
"""After this time the counts of requests are halved."""

_API: Final = "/v1/"
_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_SIMILAR: Final = "/similar"

_Busy = tuple[int, int]
"""The recent requests of the caller, as a power of two, and those of its connection."""


@dataclass(order=True, slots=True)
class _Waiting:
    busy: _Busy
    number: int
    turn: asyncio.Future[None] = field(compare=False)


class FairQueue:
    """Gives a bounded number of requests a slot; the others wait in order."""

    def __init__(
        self,
        on_refused: Callable[[str], None] = lambda _code: None,
        *,
        slots: int = _SLOTS,
        max_waiting: int = _MAX_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """on_refused gets the code of each refusal. Clock in seconds."""
        self._on_refused = on_refused
        self._free = slots
        self._max_waiting = max_waiting
        self._clock = clock
        self._numbers = itertools.count()
        self._waiting: list[_Waiting] = []
        self._had: dict[str | int, int] = {}
        self._forgotten_at = clock()

    @property
    def waiting(self) -> int:
        """Return the number of requests that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def slot(self, caller: str, connection: int) -> AsyncIterator[None]:
        """Wait for a slot; callers and connections with the fewest recent requests come first.

        Raises Overloaded for the busiest callers if too many wait.
        """
        # By powers of two: quiet connections of a caller come first.
        busy = self._count(caller).bit_length(), self._count(connection)
        if self._free:
            self._free -= 1
        else:
            await self._wait(busy)
        try:
            yield
        finally:
            self._next()

    def middleware(self) -> Middleware:
        """Return a middleware that makes reading requests of the API wait for a slot."""

        @web.middleware
        async def in_turn(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            route = "" if resource is None else resource.canonical
            reading = request.method in _READING and route.startswith(_API)
            if not reading or route.endswith(_SIMILAR):
                return await handler(request)
            async with self.slot(request[ALLOWANCE].caller, id(request.protocol)):
                return await handler(request)

        return in_turn

    def _count(self, who: str | int) -> int:
        if self._clock() - self._forgotten_at > _REMEMBERED_SECONDS:
            self._had = {one: had // 2 for one, had in self._had.items() if had > 1}
            self._forgotten_at = self._clock()
        had = self._had.get(who, 0)
        self._had[who] = had + 1
        return had

    async def _wait(self, busy: _Busy) -> None:
        turn = asyncio.get_running_loop().create_future()
        mine = _Waiting(busy, next(self._numbers), turn)
        heapq.heappush(self._waiting, mine)
        if len(self._waiting) > self._max_waiting:
            # Among equally busy callers the first, which may have given up.
            self._refuse(max(self._waiting, key=lambda one: (one.busy, -one.number)))
        try:
            await turn
        except asyncio.CancelledError:
            if mine in self._waiting:
                self._remove(mine)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next()
            raise

    def _refuse(self, busiest: _Waiting) -> None:
        self._remove(busiest)
        self._on_refused(Overloaded.code)
        message = "too many requests wait to be answered; send fewer requests, or try again later"
        busiest.turn.set_exception(Overloaded(message))

    def _remove(self, waiting: _Waiting) -> None:
        with suppress(ValueError):
            self._waiting.remove(waiting)
            heapq.heapify(self._waiting)

    def _next(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting).turn
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
