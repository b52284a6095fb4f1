"""Tracks whether queues have consumers, so that queries without a consumer are refused.

Otherwise a query would wait until its deadline, and its caller would get neither the reason nor
a retry time.
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
"""The interval of checks while a queue has no consumer, to notice its first soon."""

_GRACE_SECONDS: Final = 2.0
"""A worker that lost its connection, or is replaced by its successor, is back within this time."""

_FRESH_SECONDS: Final = 0.02
"""The maximum age of the check behind a refusal: a worker that just became ready is noticed."""

_TIMEOUT_SECONDS: Final = 2.0


@dataclass(slots=True)
class _Seen:
    """A queue at its last check; absent_since is None while it has a consumer."""

    absent_since: float | None = None
    messages: int = 0
    looked: float = 0.0


class Workers:
    """Tracks the consumers of the queues of queries; `run` is a supervised stage."""

    def __init__(
        self,
        broker: Broker,
        *,
        embedder_start_seconds: float = 0.0,
        grace_seconds: float = _GRACE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with consumers assumed present.

        embedder_start_seconds: the start time of an embedder if all may be
        scaled to zero; otherwise 0. grace_seconds: how long a queue may be without
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
        """Do nothing while the queue has a consumer. Raises NoEmbedder, NoSearcher."""
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
        """Leave a refused query in the queue if an autoscaler starts embedders for it.

        An autoscaler counts waiting messages; without any it never starts the first pod. A single
        waiting message suffices. Its answer is dropped.
        """
        seen = self._seen.get(queue)
        if seen is None or not self._embedder_start_seconds or seen.messages:
            return
        seen.messages = 1
        with contextlib.suppress(SimileError):
            await self._broker.publish(queue, message)

    async def run(self) -> None:
        """Check the queues until cancelled."""
        while True:
            await self.look()
            absent = any(seen.absent_since is not None for seen in self._seen.values())
            await asyncio.sleep(_LOOK_AGAIN_SECONDS if absent else _LOOK_SECONDS)

    async def look(self) -> None:
        """Check each queue once."""
        for queue, seen in self._seen.items():
            async with self._looking:
                await self._look_at(queue, seen)

    async def _look_at(self, queue: str, seen: _Seen) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                state = await self._broker.state(queue)
        except (BrokerUnavailable, TimeoutError):
            # Unknown: the broker's own errors say more.
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
