"""Names every request, answers errors as problems, and records log line, metrics and span."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from services.shared.errors import Disconnected, Internal, ShuttingDown, SimileError
from services.shared.lifecycle import wait_idle
from services.shared.telemetry import tracing
from services.shared.telemetry.tracing import Trace, Tracer
from services.upload.http import responses
from services.upload.http.context import BEGUN, FACTS, QUERY_ID, TIMELINE, TRACEPARENT
from services.upload.http.problems import from_http_exception, problem
from services.upload.metrics import UploadMetrics
from services.upload.search.queries import new_query_id
from services.upload.search.search_client import SearchClient
from services.upload.search.timeline import Timeline

_log = structlog.get_logger(__name__)

_SERVER_FAULT: Final = 500
_GONE_STATUS: Final = 499
"""The status that nginx logs for a caller that disconnected; never sent."""

_TRACED: Final = ("collection", "index_version", "bytes", "format", "batch_images")
"""The fields that are attributes of the span, too."""


class InFlightRequests:
    """Counts requests from their headers to their answers."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextlib.contextmanager
    def track(self) -> Iterator[None]:
        """Count a request while the block runs."""
        self._count += 1
        self._none.clear()
        try:
            yield
        finally:
            self._count -= 1
            if self._count == 0:
                self._none.set()

    async def wait_idle(self, timeout_seconds: float) -> None:
        """Wait until no request is being answered, or for the timeout."""
        await wait_idle(self._none.wait(), timeout_seconds, lambda: self._count)


def observed(
    client: SearchClient, metrics: UploadMetrics, in_flight: InFlightRequests, tracer: Tracer
) -> Middleware:
    """Return the middleware around all handlers."""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        trace = _begun(request, tracer)
        query_id = request[QUERY_ID]
        code = "ok"
        try:
            with in_flight.track():
                response = await handler(request)
        except web.HTTPException as error:
            named = await from_http_exception(error, request)
            code, response = named.code, problem(named, query_id)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except SimileError as error:
            code, response = error.code, problem(error, query_id)
            request[FACTS]["detail"] = str(error)
        except (asyncio.CancelledError, ConnectionError):
            # Without an answer: the caller left, or the drain took too long.
            gone = Disconnected if request.transport is None else ShuttingDown
            _record(request, _GONE_STATUS, gone.code, trace, metrics)
            raise
        except Exception:  # noqa: BLE001 (the last line: a defect becomes a 500, not a dead connection)
            _log.exception("request failed", action=Internal.code, correlation_id=query_id)
            unforeseen = Internal("the request failed; the log says why")
            code, response = unforeseen.code, problem(unforeseen, query_id)
        response.headers["X-Correlation-Id"] = query_id
        if client.leaving:
            response.force_close()
        _record(request, response.status, code, trace, metrics)
        return response

    return observe


def _begun(request: web.Request, tracer: Tracer) -> Trace | None:
    """Name the request; return its trace if it is a query and tracing is on.

    A query that begins a trace is named by the trace's id. Queries in a caller's trace get their
    own names, since a trace may have several.
    """
    timeline = request[TIMELINE] = Timeline()
    given = request.headers.get("traceparent", "")
    given = given if tracing.sound(given) else ""
    trace = tracer.begin(given, timeline.watch.began) if _is_query(request) else None
    request[QUERY_ID] = new_query_id() if trace is None or given else trace.trace_id
    request[TRACEPARENT] = given if trace is None else trace.traceparent
    request[FACTS], request[BEGUN] = {}, time.monotonic()
    return trace


def _is_query(request: web.Request) -> bool:
    return request.method == "POST" or _route(request).endswith("/similar")


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


def _record(
    request: web.Request, status: int, code: str, trace: Trace | None, metrics: UploadMetrics
) -> None:
    route, timeline, facts = _route(request), request[TIMELINE], request[FACTS]
    timeline.lap("reply")
    seconds = timeline.seconds()
    example = trace.trace_id if trace is not None and trace.sampled else ""
    metrics.count(route, status, code, seconds["total"], example)
    is_query = _is_query(request)
    if is_query:
        facts["timings_ms"] = responses.milliseconds(seconds)
        if timeline.batch_images:
            facts["batch_images"] = timeline.batch_images
    if code == "ok" and timeline.answered:
        metrics.observe_stages(seconds, example)
    if request[TRACEPARENT]:
        facts["trace_id"] = tracing.trace_id(request[TRACEPARENT])
    write = _log.info if is_query or code != "ok" else _log.debug
    write(
        f"{request.method} {route}",
        action=facts.pop("action", "query" if is_query else "request"),
        correlation_id=request[QUERY_ID],
        status=status,
        code=code,
        seconds=round(seconds["total"], 6),
        **facts,
    )
    if trace is not None:
        attributes = {f"simile.{name}": facts[name] for name in _TRACED if name in facts}
        trace.end(
            f"{request.method} {route}",
            timeline.watch,
            {
                "http.request.method": request.method,
                "http.route": route,
                "http.response.status_code": status,
                "simile.code": code,
                "simile.correlation_id": request[QUERY_ID],
                **attributes,
            },
            failed=status >= _SERVER_FAULT,
        )
