"""What travels with a request: its name, its log line's facts, its times, its caller's patience."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from services.upload.query.parameters import TIMEOUT_HEADER, parse_timeout
from services.upload.search.timeline import Timeline
from services.upload.security.rate_limit import Allowance

QUERY_ID: Final = web.RequestKey("query_id", str)
FACTS: Final = web.RequestKey("facts", dict[str, Any])
"""What the request's one log line says besides status and time."""
BEGUN: Final = web.RequestKey("begun", float)
"""When its headers were here, on the monotonic clock."""

ALLOWANCE: Final = web.RequestKey("allowance", Allowance)
"""Where a request that turns out to be several queries takes the tokens of the others."""

TIMELINE: Final = web.RequestKey("timeline", Timeline)
TRACEPARENT: Final = web.RequestKey("traceparent", str)
"""The W3C context that who works for this request gets; empty without one."""


def caller_deadline(request: web.Request) -> float | None:
    """When the caller waits no more, on the monotonic clock; None where it does not say.

    Raises MalformedRequest.
    """
    timeout = request.headers.get(TIMEOUT_HEADER)
    return None if timeout is None else request[BEGUN] + parse_timeout(timeout)
