"""Composes the upload service: the HTTP application, its inbox, and its drain."""

from __future__ import annotations

import asyncio
import time
from importlib import metadata
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from services.shared import lifecycle
from services.shared.canary import Canary
from services.shared.messaging.broker import Broker
from services.shared.messaging.request_reply import Inbox
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.telemetry.health import Health, lasting
from services.shared.volume.volume import Volume
from services.upload.canary import CanaryChoice, ReplyPathCheck
from services.upload.collections import CollectionReader
from services.upload.handlers import Handlers
from services.upload.http.bodies import Bodies, BodyBounds
from services.upload.http.fair_queue import FairQueue
from services.upload.http.listener import Listener
from services.upload.http.observed import InFlightRequests, observed
from services.upload.http.responses import ItemBodies
from services.upload.http.retry_pacing import RetryPacing
from services.upload.http.server import TimedRunner
from services.upload.metrics import UploadMetrics
from services.upload.page_handlers import PageHandlers
from services.upload.query.image_input import ImageInput
from services.upload.query.limits import FORM_OVERHEAD_BYTES, BodyLimits
from services.upload.query.remote_image import RemoteImages, SystemNames
from services.upload.query.shrink import Shrinker
from services.upload.search.embedding_cache import EmbeddingCache
from services.upload.search.queries import QueryLimits
from services.upload.search.search_client import SearchClient
from services.upload.search.workers import Workers
from services.upload.security.security import Security
from services.upload.security.session import SessionHandlers
from services.upload.settings import UploadSettings
from services.upload.status import RecentMetrics, StatusHandlers
from services.upload.stored_images import StoredImages

_log = structlog.get_logger(__name__)

_UNHEARD_SECONDS: Final = 4.0
"""Longer than opening a reply queue takes after a loss of the broker."""

_DEAF_SECONDS: Final = 50.0
_LAST_SECONDS: Final = 2.0
"""The time for finished answers to reach their callers after the drain."""


async def run(
    settings: UploadSettings,
    shared: SharedSettings,
    broker: Broker,
    *,
    stop: asyncio.Event,
    telemetry: Telemetry,
    started: asyncio.Future[str] | None = None,
) -> None:
    """Serve until `stop`, then answer what is in flight. Raises StageDied.

    `started` gets the base URL when requests are accepted.
    """
    metrics = UploadMetrics(telemetry.registry)
    inbox = Inbox(
        broker,
        shared.replica,
        on_late=metrics.late_replies.inc,
        on_undecodable=metrics.undecodable.inc,
    )
    workers = Workers(broker, embedder_start_seconds=settings.embedder_start_seconds)
    client = _search_client(settings, broker, inbox, workers, metrics)
    collections = _collections(settings, shared)
    in_flight, security = InFlightRequests(), Security.of(settings, metrics)
    tracer = telemetry.tracing.tracer("upload")
    around = observed(client, metrics, in_flight, tracer)
    app = application(settings, shared, client, collections, security, around, metrics)
    recent = RecentMetrics(telemetry.registry)
    app.add_routes(_status(shared, telemetry.health, recent, collections).routes())
    listener = _listener(app, settings, security)
    _add_checks(telemetry.health, broker, client, inbox, listener)

    async def serve() -> None:
        url = await listener.start()
        _log.info("serving", action="serving", url=url)
        if started is not None:
            started.set_result(url)

    stages = {
        "inbox": inbox.run(),
        "workers": workers.run(),
        **security.stages(),
        "recent": recent.run(),
    }
    if shared.canary_seconds > 0:
        choice = CanaryChoice(collections, shared.replica, shared.image_limits)
        canary = _canary(inbox, broker, metrics, choice, settings, shared)
        telemetry.health.ready_when("upload canary", lambda: canary.unready)
        stages["canary"] = canary.run()
    try:
        await lifecycle.supervise(
            stages,
            until=stop,
            drain=lambda: _drain(client, listener, in_flight, shared.drain_timeout_seconds),
            once={"http": serve()},
        )
    finally:
        await listener.close()


async def _drain(
    client: SearchClient, listener: Listener, in_flight: InFlightRequests, timeout_seconds: float
) -> None:
    """Answer the requests in flight; refuse new queries, then new connections."""
    client.leaving = True
    await listener.leave()
    client.draining = True
    # aiohttp's shutdown comes last: it stops reading bodies that are still arriving.
    # The inbox runs until then.
    await in_flight.wait_idle(timeout_seconds)
    await listener.close()


def _status(
    shared: SharedSettings, health: Health, recent: RecentMetrics, collections: CollectionReader
) -> StatusHandlers:
    version, now_unix_ms = metadata.version("simile-search"), time.time_ns() // 1_000_000
    return StatusHandlers(shared.replica, version, health, recent, collections, now_unix_ms)


def _canary(
    inbox: Inbox,
    broker: Broker,
    metrics: UploadMetrics,
    choice: CanaryChoice,
    settings: UploadSettings,
    shared: SharedSettings,
) -> Canary:
    return Canary(
        inbox,
        metrics.canary,
        choice.choose,
        ReplyPathCheck(broker, inbox).judge,
        period_seconds=shared.canary_seconds,
        timeout_seconds=settings.deadline_seconds,
    )


def _listener(app: web.Application, settings: UploadSettings, security: Security) -> Listener:
    runner = TimedRunner(
        app,
        header_timeout_seconds=settings.header_timeout_seconds,
        shutdown_timeout_seconds=_LAST_SECONDS,
        path_prefix=settings.path_prefix,
    )
    return Listener(runner, settings, security.tls)


def _add_checks(
    health: Health, broker: Broker, client: SearchClient, inbox: Inbox, listener: Listener
) -> None:
    """Add the checks of liveness and readiness.

    The check "broker" replaces the process's own: without a broker no replica is better than
    another, and an answer with Retry-After is better than a Service without endpoints.
    """
    health.live_when("reply queue", lasting(inbox.stalled, _DEAF_SECONDS))
    health.ready_when("broker", lambda: broker.refusal)
    health.ready_when("upload", lambda: _unready(client, inbox, listener))
    health.ready_when("reply queue", lasting(inbox.stalled, _UNHEARD_SECONDS))


def application(
    settings: UploadSettings,
    shared: SharedSettings,
    client: SearchClient,
    collections: CollectionReader,
    security: Security,
    around: Middleware,
    metrics: UploadMetrics,
) -> web.Application:
    """Create the web application: API, page, and the handling of errors."""
    limits = BodyLimits.of(settings, shared)
    bodies = _bodies(settings, limits, metrics)
    shrinker = Shrinker(limits.image, on=settings.shrink)
    remote = RemoteImages(
        settings.fetch_hosts, shared.image_max_bytes, settings.body_timeout_seconds, SystemNames()
    )
    inputs = ImageInput(limits, bodies, shrinker, remote if settings.query_by_url else None)
    prefix = settings.path_prefix
    item_bodies = ItemBodies(show_paths=settings.show_paths, path_prefix=prefix)
    handlers = Handlers(client, collections, metrics, inputs, item_bodies)
    turns = FairQueue(metrics.count_admission)
    metrics.waiting_reads.set_function(lambda: turns.waiting)
    app = web.Application(
        middlewares=[
            RetryPacing(metrics.held_refusals.inc).middleware(),
            around,
            security.header_checks.middleware(),
            security.headers.middleware(),
            security.access.middleware(),
            turns.middleware(),
        ],
        client_max_size=max(shared.image_max_bytes, settings.batch_max_bytes) + FORM_OVERHEAD_BYTES,
    )
    app.add_routes(
        [
            *handlers.routes(),
            *SessionHandlers(security.access, bodies, prefix).routes(),
            *PageHandlers(prefix).routes(),
        ]
    )
    app.on_response_prepare.append(security.headers.add)
    return app


def _search_client(
    settings: UploadSettings,
    broker: Broker,
    inbox: Inbox,
    workers: Workers,
    metrics: UploadMetrics,
) -> SearchClient:
    embeddings = EmbeddingCache(settings.embedding_cache_bytes, metrics.embeddings)
    metrics.embedding_cache_bytes.set_function(lambda: embeddings.held_bytes)
    client = SearchClient(
        broker,
        inbox,
        embeddings,
        workers,
        QueryLimits(settings.deadline_seconds, settings.max_in_flight),
        metrics,
    )
    metrics.in_flight.set_function(lambda: client.in_flight)
    metrics.in_flight_limit.set_function(lambda: client.admission.embedding.limit)
    metrics.waiting.set_function(lambda: client.admission.embedding.waiting)
    return client


def _bodies(settings: UploadSettings, limits: BodyLimits, metrics: UploadMetrics) -> Bodies:
    bodies = Bodies(
        BodyBounds(
            count=settings.max_bodies,
            # At least a single body of the maximum size can arrive.
            held_bytes=max(settings.body_memory_bytes, 2 * limits.largest_bytes),
            bytes_per_second=settings.body_bytes_per_second,
            timeout_seconds=settings.body_timeout_seconds,
        ),
        metrics.count_admission,
    )
    metrics.arriving_bodies.set_function(lambda: bodies.used.count)
    metrics.held_bytes.set_function(lambda: bodies.used.held_bytes)
    return bodies


def _collections(settings: UploadSettings, shared: SharedSettings) -> CollectionReader:
    return CollectionReader(
        Volume(shared.root),
        default_collection=settings.default_collection,
        images=StoredImages(
            settings.images_root,
            thumbnail_pixels=settings.thumbnail_pixels,
            thumbnail_cache_bytes=settings.thumbnail_cache_bytes,
        ),
        hidden=settings.hidden,
    )


def _unready(client: SearchClient, inbox: Inbox, listener: Listener) -> str | None:
    if client.leaving:
        return "draining"
    if not listener.open:
        return "the HTTP port is not open yet"
    return None if inbox.once_open else "no reply queue yet"
