"""Defines the values that are stored with a request, and reads its caller's deadline."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from services.upload.query.parameters import TIMEOUT_HEADER, parse_timeout
from services.upload.search.timeline import Timeline
from services.upload.security.rate_limit import Allowance

QUERY_ID: Final = web.RequestKey("query_id", str)
FACTS: Final = web.RequestKey("facts", dict[str, Any])
"""The fields of the request's log line besides status and time."""
BEGUN: Final = web.RequestKey("begun", float)
"""The time at which the headers had arrived, on the monotonic clock."""

ALLOWANCE: Final = web.RequestKey("allowance", Allowance)
"""The caller's rate limit; a batch takes a token for each further image."""

TIMELINE: Final = web.RequestKey("timeline", Timeline)
TRACEPARENT: Final = web.RequestKey("traceparent", str)
"""The W3C trace context that is sent with the query; empty without a trace."""


def caller_deadline(request: web.Request) -> float | None:
    """Return the caller's deadline on the monotonic clock; None without a Request-Timeout.

    Raises MalformedRequest.
    """
    timeout = request.headers.get(TIMEOUT_HEADER)
    return None if timeout is None else request[BEGUN] + parse_timeout(timeout)
