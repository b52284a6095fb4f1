"""Handles the page's session: a cookie with the API key, since an <img> can't send a header.

The cookie has the key itself instead of a token: nothing to store, sign or expire, and a
revoked key ends its sessions at once. Scripts can't read the cookie, and other sites can't cause
its use.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, TypedDict

from aiohttp import hdrs, web

from services.shared.errors import MalformedRequest
from services.upload.http.bodies import Bodies
from services.upload.query.body import read_small
from services.upload.security.access import (
    COOKIE,
    SESSION_ROUTE,
    Access,
    address_of,
    require_same_origin,
)

_MAX_BYTES: Final = 1024


class CookieOptions(TypedDict):
    """Says where a browser sends the cookie, and to whom it shows it."""

    path: str
    httponly: bool
    samesite: str
    secure: bool


@dataclass(frozen=True, slots=True)
class SessionHandlers:
    """POST and DELETE /v1/session."""

    access: Access
    bodies: Bodies
    path_prefix: str = ""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.post(SESSION_ROUTE, self.begin), web.delete(SESSION_ROUTE, self.end)]

    async def begin(self, request: web.Request) -> web.Response:
        """POST: store the key of the body in the cookie, if it is known."""
        require_same_origin(request)
        # A form of another site can't send this type without a preflight.
        if request.content_type != "application/json":
            message = 'send {"key": "..."} as application/json'
            raise MalformedRequest(message)
        with self.bodies.arriving(address_of(request), 0) as body:
            given = _key_in(await read_small(request, _MAX_BYTES, body))
        answer = web.Response(status=204)
        if self.access.keys is not None:
            self.access.known(request, given)
            answer.set_cookie(COOKIE, given, **self._cookie(request))
        return answer

    async def end(self, request: web.Request) -> web.Response:
        """DELETE: remove the cookie."""
        require_same_origin(request)
        answer = web.Response(status=204)
        answer.del_cookie(COOKIE, **self._cookie(request))
        return answer

    def _cookie(self, request: web.Request) -> CookieOptions:
        # Behind a prefix, what else is on the host must not get the key.
        return {
            "path": f"{self.path_prefix}/",
            "httponly": True,
            "samesite": "Strict",
            "secure": _over_tls(request),
        }


def _key_in(body: bytes) -> str:
    try:
        match json.loads(body):
            case {"key": str(key), **others} if not others:
                return key
    except (ValueError, RecursionError):
        pass
    message = 'the body must be {"key": "..."}'
    raise MalformedRequest(message)


def _over_tls(request: web.Request) -> bool:
    # A proxy that terminates TLS sets the header; a forged one affects only its sender's cookie.
    return request.secure or request.headers.get(hdrs.X_FORWARDED_PROTO) == "https"
