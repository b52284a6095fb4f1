"""Defines the port to tracing, whose spans are made from stopwatches when the work is over.

By default tracing is off, and no tracing library is imported; `otel` is the adapter. A context is
passed on as W3C `traceparent`, in the HTTP header and in the messages' slip.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

from services.shared.errors import MissingExtra
from services.shared.telemetry.stopwatch import Stopwatch

Attributes = Mapping[str, str | int | float]

TraceExport = Literal["off", "otlp"]

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Trace(Protocol):
    """Traces a request: as the root of a trace, or as a part of its caller's trace."""

    @property
    def traceparent(self) -> str:
        """The parent context of all spans of this request."""

    @property
    def trace_id(self) -> str:
        """The id of the trace: 32 hexadecimal digits."""

    @property
    def sampled(self) -> bool:
        """True where the trace is kept."""

    def end(self, name: str, watch: Stopwatch, attributes: Attributes, *, failed: bool) -> None:
        """Name the request's span and end it, with a child span for each lap."""


class Tracer(Protocol):
    """Makes the spans of one service."""

    def begin(self, traceparent: str, began: float) -> Trace | None:
        """Begin the span of a request.

        Args:
            traceparent: the caller's context; empty for none.
            began: when the request began, by the stopwatch's clock.

        Returns:
            The span; None while tracing is off.
        """

    def record(
        self,
        name: str,
        watch: Stopwatch,
        parent: str,
        attributes: Attributes,
        links: Sequence[str] = (),
    ) -> str:
        """Record the span of work that ends now, with a child span for each lap.

        Args:
            name: the name of the span.
            watch: the times of the work.
            parent: the traceparent of the parent span; empty for none.
            attributes: of the span.
            links: the traceparents of other spans that belong to this work.

        Returns:
            The traceparent of the span; empty while tracing is off.
        """


class Tracing(Protocol):
    """Makes the tracers of a process."""

    def tracer(self, service: str) -> Tracer:
        """Return the tracer of a service."""

    def close(self) -> None:
        """Send the remaining spans; blocks for at most some seconds."""


class NoTracing:
    """Traces nothing; a caller's context is passed on unchanged."""

    def tracer(self, service: str) -> Tracer:
        """Return a tracer that records nothing."""
        del service
        return _NoTracer()

    def close(self) -> None:
        """Do nothing."""


class _NoTracer:
    def begin(self, traceparent: str, began: float) -> Trace | None:
        """Return None."""
        del traceparent, began
        return None

    def record(
        self,
        name: str,
        watch: Stopwatch,
        parent: str,
        attributes: Attributes,
        links: Sequence[str] = (),
    ) -> str:
        """Record nothing."""
        del name, watch, parent, attributes, links
        return ""


def tracing(export: TraceExport, replica: str) -> Tracing:
    """Return the tracing that the setting names. Raises MissingExtra."""
    if export == "off":
        return NoTracing()
    try:
        adapter = importlib.import_module("services.shared.telemetry.otel")
    except ImportError as error:
        message = f"SIMILE_TRACING is {export}: pip install 'simile-search[tracing]' ({error})"
        raise MissingExtra(message) from None
    found: Tracing = adapter.Otlp(replica)
    return found


def sound(traceparent: str) -> bool:
    """Return whether the text is a W3C context of version 00."""
    return _TRACEPARENT.fullmatch(traceparent) is not None


def trace_id(traceparent: str) -> str:
    """Return the id of its trace; empty without one."""
    return traceparent[3:35]


def sampled(traceparent: str) -> bool:
    """Return whether the trace is kept; False without a context."""
    return traceparent[-1:] in _ODD


_ODD: Final = frozenset("13579bdf")
"""The last digit of flags that say `sampled`; the empty text is none of them."""
