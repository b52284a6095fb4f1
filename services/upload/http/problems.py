"""Converts errors to RFC 9457 problem documents, in this place only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import hdrs, web

from services.shared.errors import (
    ImageTooLarge,
    Internal,
    MalformedRequest,
    MethodNotAllowed,
    SimileError,
    Unauthenticated,
    UnknownRoute,
    UnsupportedCoding,
)

_BY_STATUS: Final[Mapping[int, type[SimileError]]] = {
    404: UnknownRoute,
    405: MethodNotAllowed,
    413: ImageTooLarge,
}
_SERVER_FAULT: Final = 500


def problem_body(error: SimileError, correlation_id: str) -> dict[str, Any]:
    """Return the problem body of an error."""
    return {
        "type": f"urn:simile:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": str(error),
        "code": error.code,
        "correlation_id": correlation_id,
    }


def problem(error: SimileError, correlation_id: str) -> web.Response:
    """Return the answer for an error, with Retry-After if a retry can help."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="simile"'
    if isinstance(error, UnsupportedCoding):
        headers[hdrs.ACCEPT_ENCODING] = "identity"
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return web.Response(
        text=json.dumps(problem_body(error, correlation_id)),
        status=error.status,
        content_type="application/problem+json",
        headers=headers,
    )


def from_http_exception(error: web.HTTPException, path: str) -> SimileError:
    """Return the named error for an aiohttp exception of status 4xx or 5xx."""
    if error.status >= _SERVER_FAULT:
        return Internal("the request failed; the log says why")
    kind = _BY_STATUS.get(error.status, MalformedRequest)
    details = {
        UnknownRoute: f"nothing is at {path}; GET /openapi.json lists the routes",
        MethodNotAllowed: f"{path} takes another method; GET /openapi.json lists the routes",
    }
    return kind(details.get(kind, error.reason))
