"""Checks the API key of a request, its scopes, and its rate.

All checks use the request's head, before any of its body is read.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from services.shared.errors import Forbidden, Unauthenticated
from services.upload.http.context import ALLOWANCE, FACTS
from services.upload.security.api_keys import ApiKey, Scope, find
from services.upload.security.header_checks import WEB_SCHEMES
from services.upload.security.rate_limit import Allowance, RateLimit

COOKIE: Final = "simile_key"
SESSION_ROUTE: Final = "/v1/session"
STATUS_ROUTE: Final = "/v1/status"
STATUS_PAGE: Final = "/status"
DOCS_PAGE: Final = "/docs"

_OPEN: Final = frozenset({"/", STATUS_PAGE, DOCS_PAGE, "/static", "/openapi.json", SESSION_ROUTE})
"""Routes that need no key: the pages, which ask for a key, and the API's description."""

_SCOPES: Final = {STATUS_ROUTE: Scope.ADMIN}
"""The scope that a route needs, if it is not `read`."""

_QUERIES: Final = frozenset(
    {"/v1/search", "/v1/search/batch", "/v1/embed", "/v1/preview", SESSION_ROUTE}
)
_SIMILAR: Final = "/similar"
_SAME: Final = frozenset({"same-origin", "none"})
_IPV6_NETWORK_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Access:
    """Admits requests by key and rate. keys: the known keys; None if no key is required."""

    keys: Callable[[], Iterable[ApiKey]] | None
    limit: RateLimit
    count: Callable[[str], None]
    """Gets the name of each key that is used, to show whether an old one still is."""

    def middleware(self) -> Middleware:
        """Pass the request to its handler, or raise the error that refuses it."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            if resource is not None:
                self._admit(request, resource.canonical)
            return await handler(request)

        return guard

    def known(self, request: web.Request, given: str) -> ApiKey:
        """Return the key. Raises Unauthenticated for an unknown key, which costs a token."""
        key = None if self.keys is None else find(self.keys(), given)
        if key is None:
            self.limit.take(address_of(request))
            message = "this API key is unknown or was revoked; ask the operator for a new one"
            raise Unauthenticated(message)
        return key

    def _admit(self, request: web.Request, route: str) -> None:
        caller = address_of(request)
        if self.keys is not None and route not in _OPEN:
            key = self._authenticated(request)
            scope = _SCOPES.get(route, Scope.READ)
            if scope not in key.scopes:
                message = f"the key {key.name!r} lacks the scope {scope}; use a key that has it"
                raise Forbidden(message)
            caller = f"key {key.name}"
            request[FACTS]["key"] = key.name
            self.count(key.name)
        allowance = request[ALLOWANCE] = Allowance(self.limit, caller)
        if route in _QUERIES or route.endswith(_SIMILAR):
            allowance.take()

    def _authenticated(self, request: web.Request) -> ApiKey:
        given, by_cookie = _given(request)
        if given is None:
            message = "send an API key, as `Authorization: Bearer KEY`"
            raise Unauthenticated(message)
        if by_cookie:
            require_same_origin(request)
        return self.known(request, given)


def _given(request: web.Request) -> tuple[str | None, bool]:
    """Return the key as sent, and whether it came in the page's cookie."""
    scheme, _, bearer = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip(), False
    if "X-API-Key" in request.headers:
        return request.headers["X-API-Key"], False
    return request.cookies.get(COOKIE), True


def require_same_origin(request: web.Request) -> None:
    """Raise Forbidden for requests with our cookie that another origin's page causes.

    SameSite=Strict keeps the cookie from other sites; this keeps it from other ports and
    subdomains of ours, too.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        same = site in _SAME
    else:
        # Browsers leave it out without TLS; but a POST always has its Origin.
        origin = request.headers.get(hdrs.ORIGIN)
        scheme, _, authority = (origin or "").partition("://")
        same = origin is None or (scheme in WEB_SCHEMES and authority == request.host)
    if not same:
        message = "pages of another origin can't use this page's cookie; send the key itself"
        raise Forbidden(message)


def address_of(request: web.Request) -> str:
    """Return the caller's address; for IPv6 the /64 network, usually of a single caller."""
    return _caller(request.remote or "")


@functools.lru_cache(maxsize=1024)
def _caller(remote: str) -> str:
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return "address unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        network = ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False)
        return f"address {network}"
    return f"address {address}"
