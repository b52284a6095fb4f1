"""The searcher: takes vectors from the queue, finds their neighbours, answers, then acks."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog

from services.searcher.catalog import Catalog
from services.searcher.index import Index, as_vector
from services.searcher.metrics import SearcherMetrics
from services.searcher.settings import SearcherSettings
from services.shared import lifecycle
from services.shared.collection import Volume
from services.shared.contracts import (
    MAX_ITEMS,
    Embedding,
    Embeddings,
    Failure,
    Neighbors,
    Replies,
    Reply,
    codec,
)
from services.shared.errors import (
    BrokerUnavailable,
    ConsumerLost,
    Internal,
    ModelMismatch,
    Overloaded,
    SimileError,
    UndecodableMessage,
    Unroutable,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Consumer, Delivery, Message
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.telemetry.watchdog import Watchdog

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 32
_RETRY_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class _Query:
    """One vector to search, and the model it came from."""

    item: Embedding
    model_id: str


async def run(
    settings: SearcherSettings,
    shared: SharedSettings,
    broker: Broker,
    *,
    stop: asyncio.Event,
    telemetry: Telemetry,
) -> None:
    """Serve until `stop`, then answer what was taken. Raises StageDied."""
    metrics = SearcherMetrics(telemetry.registry)
    catalog = Catalog(Volume(shared.root), metrics)
    watchdog = Watchdog(
        "search",
        unready_seconds=settings.unready_after_seconds,
        dead_seconds=settings.dead_after_seconds,
    )
    watchdog.register(telemetry.health)
    with ThreadPoolExecutor(settings.threads, thread_name_prefix="search") as threads:
        searcher = Searcher(settings, broker, catalog, metrics, watchdog, threads)
        telemetry.health.ready_when("searcher", searcher.unready)
        await catalog.refresh()
        stages = {
            "catalog": catalog.follow(settings.poll_seconds),
            "queries": searcher.consume(),
            "batches": searcher.watch_batches(),
        }
        try:
            await lifecycle.supervise(stop, stages)
        finally:
            await searcher.drain(shared.drain_timeout_seconds)


class Searcher:
    """The loop from queue to answers."""

    def __init__(
        self,
        settings: SearcherSettings,
        broker: Broker,
        catalog: Catalog,
        metrics: SearcherMetrics,
        watchdog: Watchdog,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._catalog = catalog
        self._metrics = metrics
        self._watchdog = watchdog
        self._threads = threads
        self._consumer: Consumer | None = None
        self._broker_away = False
        self._batches: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # As many batches at once as threads: more would only wait in memory.
        self._room = asyncio.Semaphore(settings.threads)

    def unready(self) -> str | None:
        """Why no query can be answered now."""
        if self._consumer is None:
            return "not consuming: the broker is away"
        if not self._catalog.open:
            return "no_index: no collection on the volume has a usable active version"
        return None

    async def consume(self) -> None:
        """Take batches for ever, again after each loss of the queue."""
        while True:
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
                _log.warning(str(error), action=error.code)
                self._consumer = None

    async def watch_batches(self) -> None:
        """Raise what a batch failed of, if one ever does: such a fault is a defect."""
        await self._fault

    async def drain(self, timeout_seconds: float) -> None:
        """Take no more; answer what was taken, within the timeout; then close the consumer."""
        if self._consumer is not None:
            await self._consumer.cancel()
        if self._batches:
            _, unfinished = await asyncio.wait(self._batches, timeout=timeout_seconds)
            await lifecycle.cancel(*unfinished)
        if self._consumer is not None:
            await self._consumer.close()

    def _start(self, deliveries: Sequence[Delivery]) -> None:
        task = asyncio.create_task(self._answer(deliveries), name="search batch")
        self._batches.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._room.release()
        if not task.cancelled() and (fault := task.exception()) and not self._fault.done():
            self._fault.set_exception(fault)

    async def _answer(self, deliveries: Sequence[Delivery]) -> None:
        """Answer every query of these messages, then settle them."""
        try:
            queries = [query for one in deliveries for query in await self._queries(one)]
            self._metrics.batch_items.observe(len(queries))
            loop = asyncio.get_running_loop()
            replies = await loop.run_in_executor(self._threads, self._search_all, queries)
            for queue, outcomes in _by_reply_queue(queries, replies).items():
                await self._send(queue, outcomes)
        except BrokerUnavailable as error:
            await self._give_back(deliveries, error)
            return
        self._broker_away = False
        for delivery in deliveries:
            delivery.ack()

    async def _give_back(self, deliveries: Sequence[Delivery], error: BrokerUnavailable) -> None:
        """Nobody has these answers: let another replica, or a later try, give them."""
        if not self._broker_away:
            _log.warning(str(error), action=error.code, messages=len(deliveries))
        self._broker_away = True
        # Not at once: as long as a broker's alarm lasts, the same messages come straight back.
        await asyncio.sleep(_RETRY_SECONDS)
        for delivery in deliveries:
            delivery.reject(requeue=True)

    async def _queries(self, delivery: Delivery) -> list[_Query]:
        """The message's queries that somebody still waits for."""
        try:
            message = _decode(delivery)
        except UndecodableMessage as error:
            await self._bury(delivery, error)
            return []
        now = time.time_ns() // 1_000_000
        waited_for = [item for item in message.items if not item.slip.expired(now)]
        self._metrics.expired.inc(len(message.items) - len(waited_for))
        return [_Query(item, message.model_id) for item in waited_for]

    async def _bury(self, delivery: Delivery, error: UndecodableMessage) -> None:
        self._metrics.undecodable.inc()
        _log.error(str(error), action=error.code, queue=topology.SEARCH.name)
        dead = Message(
            delivery.type, delivery.body, persistent=True, headers={"reason": str(error)}
        )
        try:
            await self._broker.publish(topology.dead_letter_queue(topology.SEARCH.name), dead)
        except Overloaded as full:
            # Counted and logged already; to keep it would only bring it back for ever.
            _log.error(str(full), action=full.code, queue=topology.SEARCH.name)

    def _search_all(self, queries: Iterable[_Query]) -> list[Reply]:
        """In a thread: every query's reply; one that fails, fails alone."""
        # One reference per collection for the whole batch: a swap can't come between.
        indexes: dict[str, Index] = {}
        with self._watchdog.work():
            return [self._search(query, indexes) for query in queries]

    def _search(self, query: _Query, indexes: dict[str, Index]) -> Reply:
        slip, started = query.item.slip, time.perf_counter()
        outcome: Neighbors | Failure
        try:
            if slip.collection not in indexes:
                indexes[slip.collection] = self._catalog.get(slip.collection)
            outcome = _neighbors(indexes[slip.collection], query)
            code = "ok"
        except SimileError as error:
            outcome, code = Failure(error.code, str(error)), error.code
        except Exception:  # noqa: BLE001 (a query must not take its batch along)
            _log.exception("search failed", action=Internal.code, query=slip.correlation_id)
            outcome, code = (
                Failure(Internal.code, "the search failed; the log says why"),
                "internal",
            )
        seconds = time.perf_counter() - started
        self._metrics.search_seconds.observe(seconds)
        self._metrics.queries.labels(code=code).inc()
        return Reply(slip.correlation_id, outcome, {**query.item.stages, "search": seconds})

    async def _send(self, queue: str, replies: Sequence[Reply]) -> None:
        for start in range(0, len(replies), MAX_ITEMS):
            message = Replies(tuple(replies[start : start + MAX_ITEMS]))
            try:
                await self._broker.publish(queue, Message.of(message))
            except (Unroutable, Overloaded) as error:
                # The replica that asked is gone, and its callers with it.
                self._metrics.unanswerable.inc(len(message.items))
                _log.info(str(error), action="unanswerable", queue=queue)


def _decode(delivery: Delivery) -> Embeddings:
    message = codec.decode(delivery.type, delivery.body)
    if not isinstance(message, Embeddings):
        reason = f"{delivery.type} is not for {topology.SEARCH.name}"
        raise UndecodableMessage(reason)
    return message


def _neighbors(index: Index, query: _Query) -> Neighbors:
    manifest, slip = index.manifest, query.item.slip
    if query.model_id != manifest.model_id:
        message = (
            f"the query is of {query.model_id}, the index of {manifest.model_id}: "
            "run one model everywhere, then build the index again"
        )
        raise ModelMismatch(message)
    found = index.neighbors(as_vector(query.item.vector), slip.k, slip.max_distance)
    return Neighbors(manifest.collection, manifest.version, manifest.model_id, tuple(found))


def _by_reply_queue(
    queries: Sequence[_Query], replies: Sequence[Reply]
) -> Mapping[str, list[Reply]]:
    grouped: dict[str, list[Reply]] = defaultdict(list)
    for query, reply in zip(queries, replies, strict=True):
        grouped[query.item.slip.final_reply_to].append(reply)
    return grouped
