"""Sends traces over OTLP by OpenTelemetry's SDK, which no other module imports.

The SDK reads the destination, the sampling and more attributes from the standard OTEL_* variables.
Needs the extra `tracing`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from services.shared.telemetry import tracing
from services.shared.telemetry.stopwatch import Stopwatch, clock
from services.shared.telemetry.tracing import Attributes

_CLOSE_SECONDS: Final = 3.0
_CLOCK_WAS_SET_NS: Final = 10**9


class _WallClock:
    """Converts times of `clock` to Unix time by one difference, so that spans keep their order."""

    def __init__(self) -> None:
        self._ahead_ns = self._read()

    def unix_ns(self, at: float) -> int:
        """Return the Unix time in nanoseconds of a time of `clock`."""
        ahead_ns = self._read()
        # A thread may wait between reading the two clocks; only a larger change means a set clock.
        if abs(ahead_ns - self._ahead_ns) > _CLOCK_WAS_SET_NS:
            self._ahead_ns = ahead_ns
        return self._ahead_ns + round(1e9 * at)

    @staticmethod
    def _read() -> int:
        return time.time_ns() - round(1e9 * clock())


class Otlp:
    """Sends the spans of every service of this process in the background."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._wall = _WallClock()
        self._providers: list[TracerProvider] = []

    def tracer(self, service: str) -> OtelTracer:
        """Return the tracer of a service, with an exporter of its own."""
        resource = Resource.create(
            {
                "service.name": f"simile-{service}",
                "service.version": metadata.version("simile-search"),
                "service.instance.id": self._replica,
            }
        )
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._providers.append(provider)
        return OtelTracer(provider.get_tracer("simile"), self._wall)

    def close(self) -> None:
        """Send the remaining spans, for at most some seconds: the collector may be away."""
        closing = [
            threading.Thread(target=provider.shutdown, daemon=True) for provider in self._providers
        ]
        for thread in closing:
            thread.start()
        until = time.monotonic() + _CLOSE_SECONDS
        for thread in closing:
            thread.join(max(0.0, until - time.monotonic()))


class OtelTracer:
    """Makes spans of stopwatches."""

    def __init__(self, tracer: Tracer, wall: _WallClock) -> None:
        self._tracer = tracer
        self._wall = wall

    def begin(self, traceparent: str, began: float) -> OtelTrace:
        """Begin the span of a request; the sampler decides whether it is kept."""
        parent = set_span_in_context(NonRecordingSpan(_context(traceparent)))
        span = self._tracer.start_span(
            "request", parent, kind=SpanKind.SERVER, start_time=self._wall.unix_ns(began)
        )
        return OtelTrace(self._tracer, self._wall, span)

    def record(
        self,
        name: str,
        watch: Stopwatch,
        parent: str,
        attributes: Attributes,
        links: Sequence[str] = (),
    ) -> str:
        """Record a span from the watch's start to its last lap, and a child span for each lap."""
        span = self._tracer.start_span(
            name,
            set_span_in_context(NonRecordingSpan(_context(parent))),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[Link(_context(link)) for link in links],
            start_time=self._wall.unix_ns(watch.began),
        )
        _end(self._tracer, self._wall, span, watch, watch.last)
        return _traceparent(span)


class OtelTrace:
    """Holds the span of a request until its answer."""

    def __init__(self, tracer: Tracer, wall: _WallClock, span: Span) -> None:
        self._tracer = tracer
        self._wall = wall
        self._span = span
        self.traceparent = _traceparent(span)
        self.trace_id = tracing.trace_id(self.traceparent)
        self.sampled = tracing.sampled(self.traceparent)

    def end(self, name: str, watch: Stopwatch, attributes: Attributes, *, failed: bool) -> None:
        """Name the span and end it, with a child span for each lap."""
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if failed:
            self._span.set_status(Status(StatusCode.ERROR))
        _end(self._tracer, self._wall, self._span, watch, clock())


def _end(tracer: Tracer, wall: _WallClock, span: Span, watch: Stopwatch, ended: float) -> None:
    if span.is_recording():
        parent = set_span_in_context(span)
        for lap in watch.laps:
            stage = tracer.start_span(lap.stage, parent, start_time=wall.unix_ns(lap.began))
            stage.end(wall.unix_ns(lap.ended))
    span.end(wall.unix_ns(ended))


def _context(traceparent: str) -> SpanContext:
    """Parse a traceparent; return an invalid context, which begins a trace, where it is empty."""
    if not tracing.sound(traceparent):
        return SpanContext(0, 0, is_remote=True)
    _, trace, span, flags = traceparent.split("-")
    return SpanContext(int(trace, 16), int(span, 16), True, TraceFlags(int(flags, 16)))  # noqa: FBT003


def _traceparent(span: Span) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
