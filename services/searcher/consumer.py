"""The searcher's loop from the queue to answers: takes messages of vectors, answers, then acks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog

from services.searcher.answerer import Answerer, Query, by_collection
from services.searcher.catalog import Catalog
from services.searcher.handover import Handover, passes_of
from services.searcher.metrics import SearcherMetrics
from services.searcher.replying import ReplySender
from services.searcher.settings import SearcherSettings
from services.shared import lifecycle
from services.shared.contracts import Embeddings, codec
from services.shared.errors import (
    BrokerUnavailable,
    ConsumerLost,
    Overloaded,
    UndecodableMessage,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Consumer, Delivery
from services.shared.messaging.quarantine import Quarantine
from services.shared.telemetry.stopwatch import Stopwatch

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 32
_RETRY_SECONDS: Final = 0.2


class Searcher:
    """The loop from queue to answers."""

    def __init__(
        self,
        settings: SearcherSettings,
        broker: Broker,
        catalog: Catalog,
        answerer: Answerer,
        sender: ReplySender,
        *,
        handover: Handover,
        metrics: SearcherMetrics,
        quarantine: Quarantine,
    ) -> None:
        self._catalog = catalog
        self._handover = handover
        self._quarantine = quarantine
        self._settings = settings
        self._broker = broker
        self._answerer = answerer
        self._metrics = metrics
        self._sender = sender
        self._consumer: Consumer | None = None
        self._broker_away = False
        self._draining = False
        self._batches: set[asyncio.Task[None]] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # As many batches at once as threads: more would only wait in memory.
        self._room = asyncio.Semaphore(settings.threads)

    @property
    def unready(self) -> str | None:
        """Why no query is taken now."""
        return "not consuming: the broker is away" if self._consumer is None else None

    def deaf(self) -> str | None:
        """Why it takes nothing although it could: what only a restart may mend."""
        return self.unready if self._broker.ready and not self._catalog.empty else None

    @property
    def in_hand(self) -> int:
        """Batches taken and not answered yet."""
        return len(self._batches)

    async def consume(self) -> None:
        """Take batches until `drain`, again after each loss of the queue.

        Not before there is an index: queries would be refused here that others can answer.
        """
        while not self._draining:
            await self._catalog.filled()
            consumer = await self._broker.consume(topology.SEARCH, prefetch=self._settings.prefetch)
            self._consumer = consumer
            try:
                while True:
                    await self._room.acquire()
                    try:
                        deliveries = await consumer.take(_AT_ONCE)
                    except BaseException:
                        self._room.release()
                        raise
                    self._start(deliveries)
            except ConsumerLost as error:
                if not self._draining:
                    _log.warning(str(error), action=error.code)
                    self._consumer = None

    async def rest_without_index(self) -> None:
        """Take nothing while there is no index, for ever."""
        while True:
            await self._catalog.emptied()
            consumer = self._consumer
            if consumer is not None:
                await consumer.cancel()
                await self._settled()
                await consumer.close()
            await self._catalog.filled()

    async def _settled(self) -> None:
        """Wait until every query that was taken is answered or given back."""
        # A batch that ends may pass queries on.
        while tasks := self._batches | self._passing:
            await asyncio.wait(tasks)

    async def watch_batches(self) -> None:
        """Raise what a batch failed of, if one ever does: such a fault is a defect."""
        await self._fault

    async def drain(self, timeout_seconds: float) -> None:
        """Take no more queries, and answer those that were taken within the timeout."""
        self._draining = True
        if self._consumer is not None:
            await self._consumer.cancel()
        await lifecycle.wait_idle(self._settled(), timeout_seconds, lambda: self.in_hand)

    async def close(self) -> None:
        """Cancel the batches that are left; their messages go back to the queue."""
        await lifecycle.cancel(*self._batches, *self._passing)
        if self._consumer is not None:
            await self._consumer.close()

    def _start(self, deliveries: Sequence[Delivery]) -> None:
        task = asyncio.create_task(self._answer(deliveries), name="search batch")
        self._batches.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._room.release()
        self._raise(task)

    def _raise(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) and not self._fault.done():
            self._fault.set_exception(fault)

    async def _answer(self, deliveries: Sequence[Delivery]) -> None:
        """Answer every query of these messages, then settle them."""
        try:
            queries = [query for one in deliveries for query in await self._queries(one)]
            self._metrics.batch_items.observe(len(queries))
            # By collection: one that has to be opened first doesn't hold up the others.
            elsewhere = await asyncio.gather(*map(self._answer_some, by_collection(queries)))
        except BrokerUnavailable as error:
            await self._give_back(deliveries, error)
            return
        self._broker_away = False
        passing = [query for some in elsewhere for query in some]
        if not passing:
            _ack(deliveries)
            return
        # Beside the batches, whose places are for searches: a query is passed on after a pause.
        task = asyncio.create_task(self._pass_on(deliveries, passing), name="pass on")
        self._passing.add(task)
        task.add_done_callback(self._passed)

    async def _answer_some(self, queries: Sequence[Query]) -> Sequence[Query]:
        """Answer queries of one collection, and return those that others are to answer."""
        elsewhere = await self._handover.elsewhere(queries)
        here = [query for query in queries if query not in elsewhere] if elsewhere else queries
        if here:
            await self._sender.send(here, await self._answerer.answer(here))
        return elsewhere

    async def _pass_on(self, deliveries: Sequence[Delivery], queries: Sequence[Query]) -> None:
        """Give queries back to the queue, then settle the messages that they came in."""
        try:
            await self._handover.give_back(queries)
        except BrokerUnavailable as error:
            await self._give_back(deliveries, error)
            return
        except Overloaded:
            for some in by_collection(queries):
                await self._sender.send(some, await self._answerer.answer(some))
        _ack(deliveries)

    def _passed(self, task: asyncio.Task[None]) -> None:
        self._passing.discard(task)
        self._raise(task)

    async def _give_back(self, deliveries: Sequence[Delivery], error: BrokerUnavailable) -> None:
        """Nobody has these answers: let another replica, or a later try, give them."""
        if not self._broker_away:
            _log.warning(str(error), action=error.code, messages=len(deliveries))
        self._broker_away = True
        self._metrics.given_back.inc(len(deliveries))
        # Not at once: as long as a broker's alarm lasts, the same messages come straight back.
        await asyncio.sleep(_RETRY_SECONDS)
        for delivery in deliveries:
            delivery.reject(requeue=True)

    async def _queries(self, delivery: Delivery) -> list[Query]:
        """The message's queries that somebody still waits for."""
        try:
            message = _decode(delivery)
        except UndecodableMessage as error:
            await self._bury(delivery, error)
            return []
        if message.refused:
            # The sound items of the message are answered all the same.
            await self._bury(delivery, UndecodableMessage(message.refused[0]))
        if delivery.redelivered:
            self._metrics.redelivered.inc()
        now = time.time_ns() // 1_000_000
        waited_for = [item for item in message.items if not item.slip.expired(now)]
        self._metrics.expired.inc(len(message.items) - len(waited_for))
        passes = passes_of(delivery)
        return [
            Query(item, message.model_id, Stopwatch(delivery.received), passes=passes)
            for item in waited_for
        ]

    async def _bury(self, delivery: Delivery, error: UndecodableMessage) -> None:
        self._metrics.undecodable.inc()
        await self._quarantine.put(delivery, topology.SEARCH, error)


def _ack(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        delivery.ack()


def _decode(delivery: Delivery) -> Embeddings:
    message = codec.decode(delivery.type, delivery.body)
    if not isinstance(message, Embeddings):
        reason = f"{delivery.type} is not for {topology.SEARCH.name}"
        raise UndecodableMessage(reason)
    return message
