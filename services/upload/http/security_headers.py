"""Sets the security headers of every answer, and CORS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from services.upload.query.parameters import TIMEOUT_HEADER
from services.upload.security.access import DOCS_PAGE, STATUS_PAGE

_PREFLIGHT_SECONDS: Final = 600
_API: Final = "/v1/"
_PAGES: Final = frozenset({"/", STATUS_PAGE, DOCS_PAGE})

SECURITY: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}

SERVER: Final[Mapping[str, str]] = {"Server": "simile"}
"""Replaces aiohttp's header, which names its version and Python's."""

_PREFLIGHT: Final[Mapping[str, str]] = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST",
    "Access-Control-Allow-Headers": (
        f"Authorization, Content-Type, If-None-Match, X-API-Key, {TIMEOUT_HEADER}, traceparent"
    ),
    "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
}
_EXPOSED: Final = "ETag, Retry-After, Server-Timing, X-Correlation-Id"


@dataclass(frozen=True, slots=True)
class AnswerHeaders:
    """Security headers, and CORS for the origins that are allowed; never for cookies."""

    origins: frozenset[str] = field(default_factory=frozenset)

    async def add(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers; a signal handler of aiohttp for every answer."""
        headers = response.headers
        headers.update(SECURITY)
        headers.update(SERVER)
        # Pages of other origins that may not read it may not embed it either.
        headers["Cross-Origin-Resource-Policy"] = "cross-origin" if self.origins else "same-origin"
        headers.update(self._cors(request))
        if request.path in _PAGES or request.path.startswith("/static/"):
            # A new release must show at once; the ETag makes revalidation cheap.
            headers[hdrs.CACHE_CONTROL] = "no-cache"

    def middleware(self) -> Middleware:
        """Answer CORS preflight requests, which carry no key."""

        @web.middleware
        async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
            asked = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
            if request.method == hdrs.METH_OPTIONS and asked and self._allowed(request):
                return web.Response(status=204, headers=_PREFLIGHT)
            return await handler(request)

        return preflight

    def _cors(self, request: web.Request) -> Mapping[str, str]:
        if not self.origins or not request.path.startswith(_API):
            return {}
        vary: dict[str, str] = {} if "*" in self.origins else {hdrs.VARY: hdrs.ORIGIN}
        if not self._allowed(request):
            return vary
        origin = "*" if "*" in self.origins else request.headers[hdrs.ORIGIN]
        exposed: dict[str, str] = {hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: _EXPOSED}
        return {**vary, **exposed, hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin}

    def _allowed(self, request: web.Request) -> bool:
        origin = request.headers.get(hdrs.ORIGIN)
        return origin is not None and ("*" in self.origins or origin.lower() in self.origins)
