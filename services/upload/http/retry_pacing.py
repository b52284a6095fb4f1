"""Delays refusals when there are many, to slow callers that ignore Retry-After.

A refusal costs 0.2 ms. Several hundred callers that retry immediately would keep a replica busy,
delay the queries that it admitted, and make it admit fewer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

_PER_SECOND: Final = 250.0
"""Refusals per second: about 5 % of a core."""

_BURST: Final = 250
"""Refusals that are sent without delay after a quiet second."""

_MAX_SECONDS: Final = 1.0
"""The maximum delay, the shortest value of Retry-After."""

_MAX_HELD: Final = 1000
"""The maximum of delayed refusals: each keeps a connection and the received part of its body."""


class RetryPacing:
    """Spaces answers with Retry-After evenly; those beyond the burst wait."""

    def __init__(
        self,
        on_held: Callable[[], None],
        *,
        per_second: float = _PER_SECOND,
        burst: int = _BURST,
        max_seconds: float = _MAX_SECONDS,
        max_held: int = _MAX_HELD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """on_held: called for each delayed refusal. Clock in seconds."""
        self._on_held = on_held
        self._every_seconds = 1 / per_second
        self._saved_seconds = burst / per_second
        self._max_seconds = max_seconds
        self._max_held = max_held
        self._clock = clock
        self._next = -self._saved_seconds
        self.held = 0
        """The number of answers that wait now."""

    def wait_seconds(self) -> float:
        """Reserve the next time slot, and return the seconds until it."""
        now = self._clock()
        latest = now + self._max_seconds
        turn = min(max(self._next, now - self._saved_seconds) + self._every_seconds, latest)
        self._next = turn
        return max(0.0, turn - now)

    def middleware(self) -> Middleware:
        """Return a middleware that delays answers with Retry-After."""

        @web.middleware
        async def in_turn(request: web.Request, handler: Handler) -> web.StreamResponse:
            response = await handler(request)
            if hdrs.RETRY_AFTER in response.headers:
                await self._hold()
            return response

        return in_turn

    async def _hold(self) -> None:
        seconds = self.wait_seconds()
        if seconds == 0 or self.held >= self._max_held:
            return
        self._on_held()
        self.held += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.held -= 1
