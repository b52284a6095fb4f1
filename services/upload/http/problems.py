"""Converts errors to RFC 9457 problem documents, in this place only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
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
from services.upload.http.similar_path import similar_path

_BY_STATUS: Final[Mapping[int, type[SimileError]]] = {413: ImageTooLarge}
_ROUTES: Final = "GET /openapi.json lists the routes"
_MAX_SHOWN: Final = 200
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


async def from_http_exception(error: web.HTTPException, request: web.Request) -> SimileError:
    """Return the named error for an aiohttp exception of status 4xx or 5xx."""
    if error.status >= _SERVER_FAULT:
        return Internal("the request failed; the log says why")
    path = request.path[:_MAX_SHOWN]
    if error.status == HTTPStatus.NOT_FOUND:
        near = await similar_path(request, path)
        meant = f"; did you mean {near}?" if near else ";"
        return UnknownRoute(f"nothing is at {path}{meant} {_ROUTES}")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = " or ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"{path} takes {allowed}, not {error.method[:20]}; {_ROUTES}")
    kind = _BY_STATUS.get(error.status, MalformedRequest)
    return kind(error.reason)
