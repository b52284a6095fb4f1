"""Knows whether anybody takes queries from a queue, so that a query that nobody takes is refused.

Without that a query would wait as long as its deadline, and its caller would learn neither why nor
when to come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from services.shared.errors import BrokerUnavailable, NoEmbedder, NoSearcher, SimileError
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Message

_LOOK_SECONDS: Final = 1.0
_LOOK_AGAIN_SECONDS: Final = 0.2
"""Between two looks while a queue has no consumer: its first one is to be noticed soon."""

_GRACE_SECONDS: Final = 2.0
"""A worker that lost its connection, or is replaced by its successor, is back within it."""

_FRESH_SECONDS: Final = 0.02
"""A refusal never rests on an older look: whoever has seen a worker ready may ask at once."""

_TIMEOUT_SECONDS: Final = 2.0


@dataclass(slots=True)
class _Seen:
    """A queue as the last look saw it; absent_since is None while somebody consumes."""

    absent_since: float | None = None
    messages: int = 0
    looked: float = 0.0


class Workers:
    """The consumers of the query path's queues; `run` is a supervised stage."""

    def __init__(
        self,
        broker: Broker,
        *,
        embedder_start_seconds: float = 0.0,
        grace_seconds: float = _GRACE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with everybody present.

        embedder_start_seconds: how long an embedder takes to start where all of them may be
        stopped on purpose; 0 where they are not. grace_seconds: how long a queue may be without
        consumers before queries are refused. clock: in seconds.
        """
        self._broker = broker
        self._embedder_start_seconds = embedder_start_seconds
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._looking = asyncio.Lock()
        self._seen: Mapping[str, _Seen] = {
            topology.EMBED.name: _Seen(),
            topology.SEARCH.name: _Seen(),
        }

    async def require(self, queue: str) -> None:
        """Do nothing while somebody consumes the queue. Raises NoEmbedder, NoSearcher."""
        seen = self._seen.get(queue)
        if seen is None or not self._absent(seen):
            return
        async with self._looking:
            if self._clock() - seen.looked > _FRESH_SECONDS:
                await self._look_at(queue, seen)
        if self._absent(seen):
            raise self._nobody(queue)

    def _absent(self, seen: _Seen) -> bool:
        since = seen.absent_since
        return since is not None and self._clock() - since >= self._grace_seconds

    async def wake(self, queue: str, message: Message) -> None:
        """Leave a refused query in the queue where an autoscaler starts embedders for it.

        An autoscaler counts what waits; without a message it would never start the first pod. One
        waiting message is enough. Nobody waits for its answer.
        """
        seen = self._seen.get(queue)
        if seen is None or not self._embedder_start_seconds or seen.messages:
            return
        seen.messages = 1
        with contextlib.suppress(SimileError):
            await self._broker.publish(queue, message)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            absent = any(seen.absent_since is not None for seen in self._seen.values())
            await asyncio.sleep(_LOOK_AGAIN_SECONDS if absent else _LOOK_SECONDS)

    async def look(self) -> None:
        """Look at each queue once."""
        for queue, seen in self._seen.items():
            async with self._looking:
                await self._look_at(queue, seen)

    async def _look_at(self, queue: str, seen: _Seen) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                state = await self._broker.state(queue)
        except (BrokerUnavailable, TimeoutError):
            # Not known: the broker's own errors say more.
            seen.absent_since = None
            return
        seen.messages, seen.looked = state.messages, self._clock()
        if state.consumers:
            seen.absent_since = None
        elif seen.absent_since is None:
            seen.absent_since = seen.looked

    def _nobody(self, queue: str) -> SimileError:
        if queue == topology.SEARCH.name:
            message = "no searcher takes queries: none runs, or none has opened an index yet"
            return NoSearcher(message)
        if not self._embedder_start_seconds:
            message = "no embedder takes images: none runs, or its model is still being loaded"
            return NoEmbedder(message)
        seconds = math.ceil(self._embedder_start_seconds)
        message = f"no embedder runs now; one is started, which takes about {seconds} s"
        refusal = NoEmbedder(message)
        refusal.retry_after_seconds = seconds
        return refusal
