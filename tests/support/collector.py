"""Runs an OTLP collector for tests, which keeps the spans that it receives over HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class SeenSpan:
    """Holds a span as it was received."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    attributes: Mapping[str, Any]
    links: tuple[str, ...]
    """The trace id and span id of each link, joined by a dash."""


@dataclass
class Collector:
    """Keeps the spans received so far, and the URL that receives them."""

    url: str = ""
    spans: list[SeenSpan] = field(default_factory=list)

    def children(self, span: SeenSpan) -> list[SeenSpan]:
        """Return the direct children of a span, in the order in which they began."""
        found = [
            one
            for one in self.spans
            if (one.trace_id, one.parent_id) == (span.trace_id, span.span_id)
        ]
        return sorted(found, key=lambda one: one.began_ns)

    async def receive(self, request: web.Request) -> web.Response:
        """Store the spans of a request."""
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            facts = _facts(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_seen(facts["service.name"], span) for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")


def _facts(attributes: Any) -> dict[str, Any]:
    return {
        one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value")
        for one in attributes
    }


def _seen(service: str, span: Any) -> SeenSpan:
    return SeenSpan(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _facts(span.attributes),
        tuple(f"{link.trace_id.hex()}-{link.span_id.hex()}" for link in span.links),
    )


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector on a free port."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
