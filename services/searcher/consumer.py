"""The searcher's consumer: receives messages of vectors, answers them, then acknowledges them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Final

import structlog

from services.searcher.answerer import Answerer, VectorQuery, by_collection
from services.searcher.catalog import Catalog
from services.searcher.handover import Handover, passes_of
from services.searcher.metrics import SearcherMetrics
from services.searcher.replying import ReplySender
from services.shared import lifecycle
from services.shared.contracts import Embeddings
from services.shared.errors import BrokerUnavailable, Overloaded
from services.shared.messaging.broker import Delivery
from services.shared.messaging.subscription import Subscription
from services.shared.telemetry.stopwatch import Stopwatch

_log = structlog.get_logger(__name__)

_MAX_BATCH_MESSAGES: Final = 32
_RETRY_SECONDS: Final = 0.2

_Batch = Sequence[tuple[Delivery, Embeddings]]


class QueryHandler:
    """Answers queries here, or passes them on to other searchers."""

    def __init__(self, answerer: Answerer, sender: ReplySender, handover: Handover) -> None:
        self._answerer = answerer
        self._sender = sender
        self._handover = handover

    async def handle(self, queries: Sequence[VectorQuery]) -> Sequence[VectorQuery]:
        """Answer queries, and return those that are to be passed on.

        Raises:
            BrokerUnavailable: the broker accepts no answers.
        """
        # By collection: a collection that must be opened first doesn't delay the others.
        elsewhere = await asyncio.gather(*map(self._handle_some, by_collection(queries)))
        return [query for some in elsewhere for query in some]

    async def pass_on(self, queries: Sequence[VectorQuery]) -> None:
        """Return queries to the queue for other searchers; where it is full, answer them here.

        Raises:
            BrokerUnavailable: the broker accepts neither.
        """
        try:
            await self._handover.give_back(queries)
        except Overloaded:
            for some in by_collection(queries):
                await self._answer(some)

    async def _handle_some(self, queries: Sequence[VectorQuery]) -> Collection[VectorQuery]:
        elsewhere = await self._handover.elsewhere(queries)
        here = [query for query in queries if query not in elsewhere] if elsewhere else queries
        if here:
            await self._answer(here)
        return elsewhere

    async def _answer(self, queries: Sequence[VectorQuery]) -> None:
        await self._sender.send(queries, await self._answerer.answer(queries))


class QueryConsumer:
    """Receives batches of queries and has them answered, a bounded number at the same time."""

    def __init__(
        self,
        subscribe: Callable[[], Subscription[Embeddings]],
        catalog: Catalog,
        handler: QueryHandler,
        metrics: SearcherMetrics,
        *,
        max_batches: int,
    ) -> None:
        """Create a consumer that receives nothing before `consume` runs.

        Args:
            subscribe: returns a new subscription to the queue of queries.
            catalog: the open indexes; without one nothing is received.
            handler: answers the queries.
            metrics: the searcher's metrics.
            max_batches: how many batches are answered at the same time.
        """
        self._subscribe = subscribe
        self._subscription = subscribe()
        self._catalog = catalog
        self._handler = handler
        self._metrics = metrics
        self._broker_away = False
        self._draining = False
        self._batches: set[asyncio.Task[None]] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # As many as there are search threads: more batches would only wait in memory.
        self._free_batches = asyncio.Semaphore(max_batches)

    def unready(self) -> str | None:
        """Return why no query is received now, or None."""
        return self._subscription.unready()

    def stalled(self) -> str | None:
        """Return why nothing is received although there is a broker and an index, or None."""
        return None if self._catalog.empty else self._subscription.stalled()

    @property
    def batches_in_flight(self) -> int:
        """Batches that are received and not answered yet."""
        return len(self._batches)

    async def consume(self) -> None:
        """Receive batches until `drain`, whenever there is an index.

        Without an index queries would be refused here that another searcher can answer.
        """
        while True:
            await self._catalog.filled()
            if self._draining:
                return
            subscription = self._subscription = self._subscribe()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._cancel_without_index(subscription))
                await self._receive(subscription)
            await self._settled()
            await subscription.close()

    async def _cancel_without_index(self, subscription: Subscription[Embeddings]) -> None:
        await self._catalog.emptied()
        await subscription.cancel()

    async def watch_batches(self) -> None:
        """Raise the error of the first batch that fails, if any does: it is a defect."""
        await self._fault

    async def drain(self, timeout_seconds: float) -> None:
        """Receive no more queries, and answer within the timeout those that were received."""
        self._draining = True
        await self._subscription.cancel()
        await lifecycle.wait_idle(self._settled(), timeout_seconds, lambda: self.batches_in_flight)

    async def close(self) -> None:
        """Cancel the batches that are left; their messages go back to the queue."""
        await lifecycle.cancel(*self._batches, *self._passing)
        await self._subscription.close()

    async def _receive(self, subscription: Subscription[Embeddings]) -> None:
        """Start a task for each batch until the subscription is cancelled."""
        while True:
            await self._free_batches.acquire()
            batch: _Batch = ()
            try:
                batch = await subscription.take(_MAX_BATCH_MESSAGES)
            finally:
                if not batch:
                    self._free_batches.release()
            if not batch:
                return
            self._start(self._answer(batch), self._batches, self._free_batches.release)

    async def _settled(self) -> None:
        """Wait until every query that was received is answered or requeued."""
        # A batch that ends may start to pass queries on.
        while tasks := self._batches | self._passing:
            await asyncio.wait(tasks)

    def _start(
        self,
        work: Coroutine[Any, Any, None],
        tasks: set[asyncio.Task[None]],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Run work in a task of the set; an error of it becomes that of `watch_batches`."""

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            on_end()
            if not task.cancelled() and (fault := task.exception()) and not self._fault.done():
                self._fault.set_exception(fault)

        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(ended)

    async def _answer(self, batch: _Batch) -> None:
        """Answer every query of a batch, then settle its messages."""
        queries = [query for one in batch for query in self._queries(*one)]
        self._metrics.batch_items.observe(len(queries))
        deliveries = [delivery for delivery, _ in batch]
        try:
            passing = await self._handler.handle(queries)
        except BrokerUnavailable as error:
            await self._requeue(deliveries, error)
            return
        self._broker_away = False
        if not passing:
            _ack(deliveries)
            return
        # Not part of the batch, whose slot is for searches: a query is passed on after a pause.
        self._start(self._pass_on(deliveries, passing), self._passing)

    async def _pass_on(
        self, deliveries: Sequence[Delivery], queries: Sequence[VectorQuery]
    ) -> None:
        """Pass queries on, then settle the messages that held them."""
        try:
            await self._handler.pass_on(queries)
        except BrokerUnavailable as error:
            await self._requeue(deliveries, error)
            return
        _ack(deliveries)

    async def _requeue(self, deliveries: Sequence[Delivery], error: BrokerUnavailable) -> None:
        """Return messages to the queue: another searcher, or a later attempt, answers them."""
        if not self._broker_away:
            _log.warning(str(error), action=error.code, messages=len(deliveries))
        self._broker_away = True
        self._metrics.given_back.inc(len(deliveries))
        # After a pause: during an alarm of the broker the same messages come back immediately.
        await asyncio.sleep(_RETRY_SECONDS)
        for delivery in deliveries:
            delivery.reject(requeue=True)

    def _queries(self, delivery: Delivery, message: Embeddings) -> list[VectorQuery]:
        """Return the message's queries whose deadline is not over."""
        if delivery.redelivered:
            self._metrics.redelivered.inc()
        now = time.time_ns() // 1_000_000
        waited_for = [item for item in message.items if not item.slip.expired(now)]
        self._metrics.expired.inc(len(message.items) - len(waited_for))
        passes = passes_of(delivery)
        return [
            VectorQuery(item, message.model_id, Stopwatch(delivery.received), passes=passes)
            for item in waited_for
        ]


def _ack(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        delivery.ack()
