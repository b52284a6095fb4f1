"""Checks the headers Host, Origin and Expect of every request.

A caller's own name can resolve to this machine (DNS rebinding): a page of that name could then
read the answers of a server without keys, since to a browser both are one origin. Therefore
a server that is only reachable from this machine, and requires no keys, answers only its own names.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import RawRequestMessage
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict, CIMultiDictProxy

from services.shared.errors import (
    ExpectationFailed,
    Forbidden,
    HostNotAllowed,
    MalformedRequest,
)

EXPECTED: Final = web.RequestKey("expected", str)
"""The value of the request's header Expect, if it has one."""

WEB_SCHEMES: Final = frozenset({"http", "https"})
"""Pages that no server sent have an Origin of another scheme."""

_CONTINUE: Final = "100-continue"
_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})

_HIDDEN: Final = (
    hdrs.EXPECT,
    hdrs.RANGE,
    hdrs.IF_RANGE,
    hdrs.IF_MATCH,
    hdrs.IF_UNMODIFIED_SINCE,
)

RequestFactory = Callable[..., web.BaseRequest]


def hide_headers(factory: RequestFactory) -> RequestFactory:
    """Hide from aiohttp the headers that it would answer itself, without a problem document.

    aiohttp answers Expect before our code runs: it would ask for the body of a request that is
    refused by its head. Ranges and preconditions are not needed for files this small.
    """

    def made(message: RawRequestMessage, *rest: object) -> web.BaseRequest:
        given = message.headers
        hidden = [name for name in _HIDDEN if name in given]
        if not hidden:
            return factory(message, *rest)
        headers = CIMultiDict(given)
        for name in hidden:
            del headers[name]
        request = factory(message._replace(headers=CIMultiDictProxy(headers)), *rest)
        if hdrs.EXPECT in given and message.version == HttpVersion11:
            request[EXPECTED] = given[hdrs.EXPECT]
        return request

    return made


async def send_continue(request: web.Request) -> None:
    """Let a caller that waits for 100 Continue send the body now."""
    if request.get(EXPECTED, "").lower() == _CONTINUE:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The head of the answer is not sent yet.
        request.writer.output_size = 0


@dataclass(frozen=True, slots=True)
class HeaderChecks:
    """Checks each request's head.

    Attributes:
        hosts: accepted names besides those of this machine.
        only_own: accept only these names; otherwise any name.
        open_to_all: no API key is required, so that any page could use the API through a browser.
        origins: origins whose pages may use the API; `*` for all.
    """

    hosts: frozenset[str] = frozenset()
    only_own: bool = False
    open_to_all: bool = False
    origins: frozenset[str] = frozenset()

    def middleware(self) -> Middleware:
        """Pass the request to its handler, or raise the error that refuses it."""

        @web.middleware
        async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._check(request)
            return await handler(request)

        return checked

    def _check(self, request: web.Request) -> None:
        expected = request.get(EXPECTED)
        if expected is not None and expected.lower() != _CONTINUE:
            message = f"Expect: {expected[:40]!a} can't be met; only {_CONTINUE} is known"
            raise ExpectationFailed(message)
        host = request.headers.get(hdrs.HOST)
        if host is None and request.version >= HttpVersion11:
            message = "the header Host is missing"
            raise MalformedRequest(message)
        if not self.only_own:
            return
        # A browser always sends a Host; without one no name can have been rebound.
        if host is not None:
            self._require_own(host)
            self._require_own(request.host)  # of an absolute URL
        if self.open_to_all:
            self._require_origin(request)

    def _require_own(self, host: str) -> None:
        if not _is_own(host, self.hosts):
            message = (
                f"this Simile does not answer as {host[:80]!a}: use localhost, or add the name to "
                "SIMILE_UPLOAD_ALLOWED_HOSTS"
            )
            raise HostNotAllowed(message)

    def _require_origin(self, request: web.Request) -> None:
        """Raise Forbidden if another site's page causes the request."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None:
            allowed = "*" in self.origins or origin.lower() in self.origins
            foreign = not (allowed or _is_own(_authority(origin), self.hosts))
        else:
            # Images and the like on other sites have no Origin; a followed link is allowed.
            site, mode = (request.headers.get(f"Sec-Fetch-{name}") for name in ("Site", "Mode"))
            reading = request.method in _READING and mode == "navigate"
            foreign = site == "cross-site" and not reading and not self.origins
        if foreign:
            message = (
                "another site's page may not use this Simile: add its origin to "
                "SIMILE_UPLOAD_CORS_ORIGINS"
            )
            raise Forbidden(message)


def _authority(origin: str) -> str:
    """Return the host and port of an origin; empty if it is not a web page."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return ""
    return parts.netloc if parts.scheme in WEB_SCHEMES else ""


@functools.lru_cache(maxsize=256)
def _is_own(host: str, hosts: frozenset[str]) -> bool:
    """Return True for a Host, with or without a port, of this machine or of the list."""
    host = host.lower()
    name, _, _ = host[1:].partition("]") if host.startswith("[") else host.partition(":")
    name = name.removesuffix(".")
    if host in hosts or name in hosts or f"[{name}]" in hosts:
        return True
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
