"""The upload service's composition root: the HTTP application, its inbox, and its drain."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from services.shared import imaging, lifecycle
from services.shared.collection import Volume
from services.shared.errors import Internal, SimileError
from services.shared.messaging.broker import Broker
from services.shared.messaging.inbox import Inbox
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.upload.handlers import FACTS, QUERY_ID, Handlers
from services.upload.library import Library
from services.upload.metrics import UploadMetrics
from services.upload.problems import of_http, problem
from services.upload.search_client import SearchClient, new_query_id
from services.upload.settings import UploadSettings

_log = structlog.get_logger(__name__)

_HERE: Final = Path(__file__).parent
_PAGES: Final = _HERE / "pages"
_OPENAPI: Final = _HERE / "openapi.json"
_FORM_OVERHEAD_BYTES: Final = 64 * 1024

_SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}


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

    `started` gets the base URL once requests are accepted.
    """
    metrics = UploadMetrics(telemetry.registry)
    inbox = Inbox(broker, shared.replica, on_late=metrics.late_replies.inc)
    client = SearchClient(
        broker,
        inbox,
        deadline_seconds=settings.deadline_seconds,
        max_in_flight=settings.max_in_flight,
    )
    telemetry.health.ready_when("upload", lambda: _unready(client, inbox))
    app = application(settings, shared, client, metrics)
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=shared.drain_timeout_seconds,
    )
    drained = asyncio.Event()

    async def serve() -> None:
        try:
            await runner.setup()
            site = web.TCPSite(runner, settings.host, settings.port)
            await site.start()
            url = _url(settings.host, runner)
            _log.info("serving", action="serving", url=url)
            if started is not None:
                started.set_result(url)
            await stop.wait()
            client.draining = True
        finally:
            # Answers what is in flight: the inbox runs until this is over.
            await runner.cleanup()
        drained.set()
        await asyncio.Event().wait()

    await lifecycle.supervise(drained, {"inbox": inbox.run(), "http": serve()})


def application(
    settings: UploadSettings, shared: SharedSettings, client: SearchClient, metrics: UploadMetrics
) -> web.Application:
    """The web application: API, page, and one way to answer errors."""
    limits = imaging.Limits(
        shared.image_max_bytes, shared.image_max_pixels, shared.image_max_aspect
    )
    library = Library(
        Volume(shared.root),
        default_collection=settings.default_collection,
        images_root=settings.images_root,
        thumbnail_pixels=settings.thumbnail_pixels,
        thumbnail_cache_bytes=settings.thumbnail_cache_bytes,
    )
    handlers = Handlers(client, library, metrics, limits, settings.body_timeout_seconds)
    app = web.Application(
        middlewares=[_observed(metrics)],
        client_max_size=shared.image_max_bytes + _FORM_OVERHEAD_BYTES,
    )
    app.add_routes(
        [
            *handlers.routes(),
            web.get("/openapi.json", _openapi),
            web.get("/", _page),
            web.static("/static", _PAGES),
        ]
    )
    app.on_response_prepare.append(_add_headers)
    return app


def _observed(metrics: UploadMetrics) -> Middleware:
    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Name the request, answer its errors as problems, and write its one log line."""
        query_id, begun = new_query_id(), time.perf_counter()
        request[QUERY_ID], request[FACTS] = query_id, {}
        code = "ok"
        try:
            response = await handler(request)
        except web.HTTPException as error:
            named = of_http(error, request.path)
            code, response = named.code, problem(named, query_id)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except SimileError as error:
            code, response = error.code, problem(error, query_id)
            request[FACTS]["detail"] = str(error)
        except Exception:  # noqa: BLE001 (the last line: a defect becomes a 500, not a dead connection)
            _log.exception("request failed", action=Internal.code, correlation_id=query_id)
            unforeseen = Internal("the request failed; the log says why")
            code, response = unforeseen.code, problem(unforeseen, query_id)
        response.headers["X-Correlation-Id"] = query_id
        _record(request, response.status, code, time.perf_counter() - begun, metrics)
        return response

    return observe


def _record(
    request: web.Request, status: int, code: str, seconds: float, metrics: UploadMetrics
) -> None:
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "unknown"
    metrics.requests.labels(route=route, status=str(status), code=code).inc()
    metrics.request_seconds.labels(route=route).observe(seconds)
    action = "query" if request.method == "POST" or route.endswith("/similar") else "request"
    write = _log.info if action == "query" or code != "ok" else _log.debug
    write(
        f"{request.method} {route}",
        action=action,
        correlation_id=request[QUERY_ID],
        status=status,
        code=code,
        seconds=round(seconds, 6),
        **request[FACTS],
    )


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_SECURITY_HEADERS)
    if request.path == "/" or request.path.startswith("/static/"):
        # A new release must show at once; the ETag makes asking cheap.
        response.headers["Cache-Control"] = "no-cache"


async def _openapi(request: web.Request) -> web.FileResponse:
    del request
    return web.FileResponse(_OPENAPI, headers={"Content-Type": "application/json"})


async def _page(request: web.Request) -> web.FileResponse:
    del request
    return web.FileResponse(_PAGES / "index.html")


def _unready(client: SearchClient, inbox: Inbox) -> str | None:
    if client.draining:
        return "draining"
    return None if inbox.ready else "no reply queue: the broker is away"


def _url(host: str, runner: web.AppRunner) -> str:
    port = runner.addresses[0][1]
    shown = "127.0.0.1" if host in {"0.0.0.0", "::", ""} else host  # noqa: S104 (compared, not bound)
    return f"http://{shown}:{port}"
