"""Runs the searcher: connects its parts, its health checks and its canary, and ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import structlog
from threadpoolctl import threadpool_limits

from services.searcher.answerer import Answerer
from services.searcher.canary import CanaryChoice, judge
from services.searcher.catalog import Catalog
from services.searcher.consumer import QueryConsumer, QueryHandler
from services.searcher.handover import Handover
from services.searcher.metrics import SearcherMetrics
from services.searcher.quality import LiveQuality
from services.searcher.replying import ReplySender
from services.searcher.settings import SearcherSettings
from services.shared import lifecycle
from services.shared.canary import Canary
from services.shared.contracts import Embeddings
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker
from services.shared.messaging.quarantine import Quarantine
from services.shared.messaging.request_reply import Inbox
from services.shared.messaging.subscription import BadMessages, Subscription
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.telemetry.health import Health, lasting
from services.shared.telemetry.watchdog import StallThresholds, Watchdog
from services.shared.volume.volume import Volume

_log = structlog.get_logger(__name__)

_CANARY_TIMEOUT_SECONDS: Final = 5.0


async def run(
    settings: SearcherSettings,
    shared: SharedSettings,
    broker: Broker,
    *,
    stop: asyncio.Event,
    telemetry: Telemetry,
    canary_timeout_seconds: float = _CANARY_TIMEOUT_SECONDS,
) -> None:
    """Serve until `stop`, then answer the queries received. Raises StageDied."""
    metrics = SearcherMetrics(telemetry.registry)
    catalog = Catalog(Volume(shared.root), metrics, memory_bytes=settings.memory_bytes)
    # Each search uses one core: with more, the threads of one product wait for those of another.
    threadpool_limits(1, user_api="blas")
    health = telemetry.health
    searching, sending = Watchdog("search"), Watchdog("replies")
    patience = StallThresholds(settings.unready_after_seconds, settings.dead_after_seconds)
    for stage in (searching, sending):
        patience.watch(health, stage.what, stage.stalled)
    threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="search")
    quality = LiveQuality(settings.live_recall_share, metrics)
    try:
        answerer = Answerer(catalog, quality, metrics, searching, threads)
        sender = ReplySender(broker, metrics, telemetry.tracing.tracer("searcher"), sending)
        handler = QueryHandler(answerer, sender, Handover(broker, catalog, metrics))
        # The messages kept in quarantine are vectors and slips, no images.
        quarantine = Quarantine(broker, replica=shared.replica, keeps_messages=True)
        bad = BadMessages(metrics.undecodable.inc, quarantine)
        consumer = QueryConsumer(
            partial(_subscription, broker, bad, settings.prefetch),
            catalog,
            handler,
            metrics,
            max_batches=settings.threads,
        )
        metrics.threads.set(settings.threads)
        metrics.in_hand.set_function(lambda: consumer.batches_in_flight)
        health.ready_when("searcher", lambda: _empty(catalog) or consumer.unready())
        health.live_when("searcher", lasting(consumer.stalled, settings.dead_after_seconds))
        await lifecycle.unless_stopped(stop, catalog.refresh())
        stages = {
            "catalog": catalog.follow(settings.poll_seconds),
            "queries": consumer.consume(),
            "batches": consumer.watch_batches(),
            **_canary_stages(shared, broker, catalog, metrics, health, canary_timeout_seconds),
        }
        try:
            await lifecycle.supervise(
                stages, until=stop, drain=lambda: consumer.drain(shared.drain_timeout_seconds)
            )
        finally:
            await consumer.close()
    finally:
        # Without waiting: a thread that hangs must not delay the end.
        threads.shutdown(wait=False, cancel_futures=True)
        quality.close()


def _subscription(broker: Broker, bad: BadMessages, prefetch: int) -> Subscription[Embeddings]:
    return Subscription(broker, lambda: topology.SEARCH, (Embeddings,), bad, prefetch=prefetch)


def _canary_stages(
    shared: SharedSettings,
    broker: Broker,
    catalog: Catalog,
    metrics: SearcherMetrics,
    health: Health,
    timeout_seconds: float,
) -> Mapping[str, Coroutine[Any, Any, None]]:
    if shared.canary_seconds == 0:
        return {}
    inbox = Inbox(broker, shared.replica, on_undecodable=metrics.undecodable.inc)
    canary = Canary(
        inbox,
        metrics.canary,
        CanaryChoice(catalog, shared.replica).choose,
        judge,
        period_seconds=shared.canary_seconds,
        timeout_seconds=timeout_seconds,
    )
    health.ready_when("searcher canary", lambda: canary.unready)
    return {"canary inbox": inbox.run(), "canary": canary.run()}


def _empty(catalog: Catalog) -> str | None:
    if catalog.empty:
        return "no_index: no collection on the volume has a usable active version"
    return None
