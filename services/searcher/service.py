"""The searcher: takes vectors from the queue, finds their neighbours, answers, then acks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog
from threadpoolctl import threadpool_limits

from services.searcher.answerer import Answerer, Query, by_collection
from services.searcher.canary import CanaryChoice, judge
from services.searcher.catalog import Catalog
from services.searcher.metrics import SearcherMetrics
from services.searcher.quality import LiveQuality
from services.searcher.replying import ReplySender
from services.searcher.settings import SearcherSettings
from services.shared import lifecycle
from services.shared.canary import Canary
from services.shared.collection import Volume
from services.shared.contracts import Embeddings, codec
from services.shared.errors import BrokerUnavailable, ConsumerLost, UndecodableMessage
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Consumer, Delivery
from services.shared.messaging.inbox import Inbox
from services.shared.messaging.quarantine import Quarantine
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.telemetry.health import Health, lasting
from services.shared.telemetry.stopwatch import Stopwatch
from services.shared.telemetry.watchdog import Patience, Watchdog

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 32
_RETRY_SECONDS: Final = 0.2
_CANARY_TIMEOUT_SECONDS: Final = 5.0


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
    catalog = Catalog(Volume(shared.root), metrics, memory_bytes=settings.memory_bytes)
    # A search has a core to itself: threads that share one product would only wait for each other.
    threadpool_limits(1, user_api="blas")
    health = telemetry.health
    searching, sending = Watchdog("search"), Watchdog("replies")
    patience = Patience(settings.unready_after_seconds, settings.dead_after_seconds)
    for stage in (searching, sending):
        patience.watch(health, stage.what, stage.stalled)
    threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="search")
    quality = LiveQuality(settings.live_recall_share, metrics)
    try:
        answerer = Answerer(catalog, quality, metrics, searching, threads)
        # What it keeps are vectors and slips, no images.
        quarantine = Quarantine(broker, replica=shared.replica, keeps_messages=True)
        tracer = telemetry.tracing.tracer("searcher")
        sender = ReplySender(broker, metrics, tracer, sending)
        searcher = Searcher(settings, broker, answerer, sender, metrics, quarantine)
        metrics.threads.set(settings.threads)
        metrics.in_hand.set_function(lambda: searcher.in_hand)
        health.ready_when("searcher", lambda: searcher.unready or _empty(catalog))
        health.live_when("searcher", lasting(searcher.deaf, settings.dead_after_seconds))
        await lifecycle.unless_stopped(stop, catalog.refresh())
        stages = {
            "catalog": catalog.follow(settings.poll_seconds),
            "queries": searcher.consume(),
            "batches": searcher.watch_batches(),
            **_canary_stages(shared, broker, catalog, metrics, health),
        }
        try:
            await lifecycle.supervise(stop, stages)
        finally:
            await searcher.drain(shared.drain_timeout_seconds)
    finally:
        # What is stuck doesn't hold up the end.
        threads.shutdown(wait=False, cancel_futures=True)
        quality.close()


def _canary_stages(
    shared: SharedSettings,
    broker: Broker,
    catalog: Catalog,
    metrics: SearcherMetrics,
    health: Health,
) -> Mapping[str, Coroutine[Any, Any, None]]:
    if shared.canary_seconds == 0:
        return {}
    inbox = Inbox(
        broker, shared.replica, on_late=lambda: None, on_undecodable=metrics.undecodable.inc
    )
    canary = Canary(
        inbox,
        metrics.canary,
        CanaryChoice(catalog, shared.replica).choose,
        judge,
        period_seconds=shared.canary_seconds,
        timeout_seconds=_CANARY_TIMEOUT_SECONDS,
    )
    health.ready_when("searcher canary", lambda: canary.unready)
    return {"canary inbox": inbox.run(), "canary": canary.run()}


class Searcher:
    """The loop from queue to answers."""

    def __init__(
        self,
        settings: SearcherSettings,
        broker: Broker,
        answerer: Answerer,
        sender: ReplySender,
        metrics: SearcherMetrics,
        quarantine: Quarantine,
    ) -> None:
        self._quarantine = quarantine
        self._settings = settings
        self._broker = broker
        self._answerer = answerer
        self._metrics = metrics
        self._sender = sender
        self._consumer: Consumer | None = None
        self._broker_away = False
        self._batches: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # As many batches at once as threads: more would only wait in memory.
        self._room = asyncio.Semaphore(settings.threads)

    @property
    def unready(self) -> str | None:
        """Why no query is taken now."""
        return "not consuming: the broker is away" if self._consumer is None else None

    def deaf(self) -> str | None:
        """Why it takes nothing although the broker is there: what only a restart may mend."""
        return self.unready if self._broker.ready else None

    @property
    def in_hand(self) -> int:
        """Batches taken and not answered yet."""
        return len(self._batches)

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
            # By collection: one that has to be opened first doesn't hold up the others.
            await asyncio.gather(*(self._answer_some(some) for some in by_collection(queries)))
        except BrokerUnavailable as error:
            await self._give_back(deliveries, error)
            return
        self._broker_away = False
        for delivery in deliveries:
            delivery.ack()

    async def _answer_some(self, queries: Sequence[Query]) -> None:
        """Answer queries of one collection, in one message for each replica that asked."""
        replies = await self._answerer.answer(queries)
        await self._sender.send(queries, replies)

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
        if delivery.redelivered:
            self._metrics.redelivered.inc()
        now = time.time_ns() // 1_000_000
        waited_for = [item for item in message.items if not item.slip.expired(now)]
        self._metrics.expired.inc(len(message.items) - len(waited_for))
        return [Query(item, message.model_id, Stopwatch(delivery.received)) for item in waited_for]

    async def _bury(self, delivery: Delivery, error: UndecodableMessage) -> None:
        self._metrics.undecodable.inc()
        await self._quarantine.put(delivery, topology.SEARCH, error)


def _decode(delivery: Delivery) -> Embeddings:
    message = codec.decode(delivery.type, delivery.body)
    if not isinstance(message, Embeddings):
        reason = f"{delivery.type} is not for {topology.SEARCH.name}"
        raise UndecodableMessage(reason)
    return message


def _empty(catalog: Catalog) -> str | None:
    if catalog.empty:
        return "no_index: no collection on the volume has a usable active version"
    return None
