"""The port to tracing: spans are made of the times that are measured anyway, when these are over.

Off, as by default, nothing is made and no tracing library is imported; `otel` is the adapter. A
context travels as W3C `traceparent`, in HTTP's header and in the messages' slip.
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
    """A request that is being traced: the root of its spans, or a part of its caller's trace."""

    @property
    def traceparent(self) -> str:
        """What those who work for this request take as their parent."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""

    @property
    def sampled(self) -> bool:
        """Whether anything of it is kept."""

    def end(self, name: str, watch: Stopwatch, attributes: Attributes, *, failed: bool) -> None:
        """Name it and end it now, with a span for each lap."""


class Tracer(Protocol):
    """Makes the spans of one service."""

    def begin(self, traceparent: str, began: float) -> Trace | None:
        """A request that began then, for a caller's context or without; None when off."""

    def record(
        self,
        name: str,
        watch: Stopwatch,
        parent: str,
        attributes: Attributes,
        links: Sequence[str] = (),
    ) -> str:
        """A piece of work that ends now, and a span for each lap; the traceparent of it.

        parent: empty for none. links: traceparents of what else it has to do with.
        """


class Tracing(Protocol):
    """Where the tracers of a process come from."""

    def tracer(self, service: str) -> Tracer:
        """The tracer of one service."""

    def close(self) -> None:
        """Send what is left; blocks for some seconds at most."""


class NoTracing:
    """Traces nothing; a caller's context is passed on as it came."""

    def tracer(self, service: str) -> Tracer:
        """One that makes nothing."""
        del service
        return _NoTracer()

    def close(self) -> None:
        """Nothing is left."""


class _NoTracer:
    def begin(self, traceparent: str, began: float) -> Trace | None:
        """Nothing begins."""
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
        """Nothing is made."""
        del name, watch, parent, attributes, links
        return ""


def tracing(export: TraceExport, replica: str) -> Tracing:
    """What the setting names. Raises MissingExtra."""
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
    """Whether it is a W3C context of the version that we know."""
    return _TRACEPARENT.fullmatch(traceparent) is not None


def trace_id(traceparent: str) -> str:
    """Its trace's id; empty without one."""
    return traceparent[3:35]


def sampled(traceparent: str) -> bool:
    """Whether its trace is kept; not without one."""
    return traceparent[-1:] in _ODD


_ODD: Final = frozenset("13579bdf")
"""The last digit of flags that say `sampled`; the empty text is none of them."""
