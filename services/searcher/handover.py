"""Passes queries that this searcher can't answer to other searchers, through the queue.

Searchers with a disk of their own get a new collection one after the other. Until all have it, a
query returns to the end of the queue, after a longer pause each time, until a searcher that has
the collection receives it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from services.searcher.answerer import VectorQuery
from services.searcher.catalog import Catalog
from services.searcher.metrics import SearcherMetrics
from services.shared.contracts import MAX_ITEMS, Embeddings
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Delivery, Message

_PASSES: Final = "passes"
_MAX_PASSES: Final = 16
_FIRST_PAUSE_SECONDS: Final = 0.02
_GROWTH: Final = 1.5
_MAX_PAUSE_SECONDS: Final = 0.3
_MIN_LEFT_MS: Final = 500
"""A query with less time left is answered here, with the reason, instead of not at all."""

_POLL_SECONDS: Final = 1.0
_FLOAT_BYTES: Final = 4


class Handover:
    """Decides which queries other searchers may answer, and returns them to the queue."""

    def __init__(
        self,
        broker: Broker,
        catalog: Catalog,
        metrics: SearcherMetrics,
        *,
        max_pause_seconds: float = _MAX_PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a handover that knows of no other searcher yet.

        Args:
            broker: holds the queue.
            catalog: the collections of this searcher.
            metrics: the searcher's metrics.
            max_pause_seconds: the longest pause of a query before it is returned.
            clock: returns seconds.
        """
        self._broker = broker
        self._catalog = catalog
        self._metrics = metrics
        self._max_pause_seconds = max_pause_seconds
        self._clock = clock
        self._polled_at = float("-inf")
        self._others = False

    async def elsewhere(self, queries: Sequence[VectorQuery]) -> Sequence[VectorQuery]:
        """Return the queries, of one collection, that another searcher may answer.

        Raises:
            BrokerUnavailable: the number of searchers is unknown.
        """
        collection = queries[0].question.collection
        if self._catalog.knows(collection) or not await self._others_consume():
            return []
        now = time.time_ns() // 1_000_000
        return [query for query in queries if self._may_pass(query, now)]

    async def give_back(self, queries: Sequence[VectorQuery]) -> None:
        """Put queries at the end of the queue, each after its pause.

        Raises:
            BrokerUnavailable: the broker accepts no messages.
            Overloaded: the queue is full.
        """
        await asyncio.gather(*(self._publish(some) for some in _alike(queries)))
        self._metrics.passed_on.inc(len(queries))

    def _may_pass(self, query: VectorQuery, now_unix_ms: int) -> bool:
        deadline = query.item.slip.deadline_unix_ms
        ends_soon = 0 < deadline - now_unix_ms < _MIN_LEFT_MS
        return query.passes < _MAX_PASSES and not ends_soon

    async def _others_consume(self) -> bool:
        """Return whether other searchers consume queries, as of the last second."""
        if self._clock() - self._polled_at > _POLL_SECONDS:
            state = await self._broker.state(topology.SEARCH.name)
            self._polled_at, self._others = self._clock(), state.consumers > 1
        return self._others

    async def _publish(self, queries: Sequence[VectorQuery]) -> None:
        """Publish queries of the same model and passes as one message."""
        first = queries[0]
        pause = _FIRST_PAUSE_SECONDS * _GROWTH**first.passes
        await asyncio.sleep(min(pause, self._max_pause_seconds))
        dimension = len(first.item.vector) // _FLOAT_BYTES
        items = tuple(query.item for query in queries)
        message = Message.of(Embeddings(first.model_id, dimension, items))
        headers = {_PASSES: str(first.passes + 1)}
        await self._broker.publish(
            topology.SEARCH.name, Message(message.type, message.body, headers=headers)
        )


def passes_of(delivery: Delivery) -> int:
    """Return how often searchers returned the queries of this message to the queue."""
    text = delivery.headers.get(_PASSES, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < len("1000") else 0


def _alike(queries: Sequence[VectorQuery]) -> list[Sequence[VectorQuery]]:
    grouped: Mapping[tuple[str, int, int], list[VectorQuery]] = defaultdict(list)
    for query in queries:
        grouped[query.model_id, len(query.item.vector), query.passes].append(query)
    return [
        group[start : start + MAX_ITEMS]
        for group in grouped.values()
        for start in range(0, len(group), MAX_ITEMS)
    ]
