"""Fetches the image at a caller's URL, without access to internal addresses.

Callers must not reach addresses that they can't reach themselves: host names are resolved
once, every address is checked, and the connection uses the checked addresses. Each redirect
is checked the same way.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from services.shared.contracts.parameters import MAX_URL_BYTES
from services.shared.errors import ImageTooLarge, UrlNotAllowed, UrlUnreachable

_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 3
_MAX_LOOK_UPS: Final = 4
_CHUNK_BYTES: Final = 64 * 1024

_NEVER: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "100.64.0.0/10",  # carriers' NAT; some clouds' metadata
        "168.63.129.16/32",  # a cloud's metadata on a public address
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays into 6to4
        "198.18.0.0/15",  # benchmarks
        "240.0.0.0/4",  # reserved, broadcast
        "::/96",  # IPv4-compatible, unspecified, loopback
        "::ffff:0:0/96",  # IPv4-mapped
        "64:ff9b::/96",  # NAT64: an embedded IPv4 address
        "64:ff9b:1::/48",  # local NAT64
        "100::/64",  # discard
        "2001::/23",  # protocol assignments, Teredo
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local
    )
)
"""Networks that some versions of the standard library treat as public, or that map to others."""


class Resolve(Protocol):
    """Looks up a host's addresses."""

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses. Raises OSError if there are none."""


@dataclass(frozen=True, slots=True)
class RemoteImages:
    """Fetches images from public addresses.

    Attributes:
        allowed_hosts: `host` or `host:port` whose addresses need not be public.
        max_bytes: the largest image.
        timeout_seconds: the time for an image, redirects included.
        resolve: looks up the addresses of a host.
        ports: the only port of each scheme for a host that is not allowed.
    """

    allowed_hosts: frozenset[str]
    max_bytes: int
    timeout_seconds: float
    resolve: Resolve
    ports: Mapping[str, int] = field(default_factory=lambda: _PORTS)

    async def fetch(self, address: str) -> bytes:
        """Return the bytes at that address, after at most three redirects.

        Raises UrlNotAllowed, UrlUnreachable, ImageTooLarge.
        """
        url = _parsed(address)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                for _ in range(_MAX_REDIRECTS + 1):
                    answer = await self._ask(url)
                    if isinstance(answer, bytes):
                        return answer
                    url = answer
        except TimeoutError:
            message = f"the image at image_url did not arrive within {self.timeout_seconds:g} s"
            raise UrlUnreachable(message) from None
        message = (
            f"image_url redirects more than {_MAX_REDIRECTS} times; use the address of the image"
        )
        raise UrlUnreachable(message)

    async def _ask(self, url: URL) -> bytes | URL:
        """Return the image, or the target of a redirect."""
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(await self._vetted(url)),
            use_dns_cache=False,
            force_close=True,
        )
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=False,  # a proxy would resolve the name again
                    auto_decompress=False,  # a small answer must not become large in memory
                    timeout=aiohttp.ClientTimeout(total=self.timeout_seconds),
                    headers={hdrs.ACCEPT: "image/*", hdrs.ACCEPT_ENCODING: "identity"},
                ) as session,
                session.get(url, allow_redirects=False) as answer,
            ):
                if answer.status in _REDIRECTS:
                    return _led(url, answer.headers.get(hdrs.LOCATION, ""))
                if answer.status != 200:  # noqa: PLR2004 (HTTP's own)
                    message = f"image_url is answered with {answer.status}; it must be an image"
                    raise UrlUnreachable(message)
                return await self._read(answer)
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            # Without the error's text, which may reveal internals of an allowed host.
            message = f"the host of image_url does not answer ({type(error).__name__})"
            raise UrlUnreachable(message) from None

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        if (answer.content_length or 0) > self.max_bytes:
            raise self._too_large()
        async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
            content += chunk
            if len(content) > self.max_bytes:
                raise self._too_large()
        return bytes(content)

    def _too_large(self) -> ImageTooLarge:
        message = f"an image may have {self.max_bytes} bytes at most; image_url has more"
        return ImageTooLarge(message)

    async def _vetted(self, url: URL) -> Sequence[str]:
        """Return the permitted addresses for this URL."""
        host, port = str(url.host).lower(), url.port
        named = f"[{host}]" if ":" in host else host
        if f"{named}:{port}" in self.allowed_hosts:
            return await self._resolved(url)
        if port != self.ports[url.scheme]:
            message = f"image_url names port {port}; only 80 and 443 are allowed"
            raise UrlNotAllowed(message)
        addresses = await self._resolved(url)
        if named not in self.allowed_hosts and not all(map(is_public, addresses)):
            message = "the host of image_url is not on the public internet"
            raise UrlNotAllowed(message)
        return addresses

    async def _resolved(self, url: URL) -> Sequence[str]:
        host, port = str(url.host), url.port or 0
        try:
            return (str(ipaddress.ip_address(host)),)
        except ValueError:
            pass
        try:
            addresses = await self.resolve(host, port)
        except (OSError, UnicodeError):
            addresses = ()
        if not addresses:
            message = "the host of image_url is not known"
            raise UrlUnreachable(message)
        return addresses


class _Pinned(AbstractResolver):
    """Returns the checked addresses, so that no second lookup can return others."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Do nothing."""


class SystemNames:
    """The system's resolver in its own threads: slow names delay nothing else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_MAX_LOOK_UPS, "look-up")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        )
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def _parsed(address: str) -> URL:
    """Return the URL. Raises UrlNotAllowed for another scheme, or with a user."""
    try:
        url = URL(address)
        sound = url.scheme in _PORTS and bool(url.host) and url.port is not None
    except ValueError:
        sound = False
    if not sound or len(address) > MAX_URL_BYTES:
        message = (
            f"image_url must be an http:// or https:// address of {MAX_URL_BYTES} bytes at most"
        )
        raise UrlNotAllowed(message)
    if url.user is not None or url.password is not None:
        message = "image_url must not hold a user or a password"
        raise UrlNotAllowed(message)
    return url


def _led(url: URL, location: str) -> URL:
    try:
        return _parsed(str(url.join(URL(location))))
    except ValueError:
        message = "image_url redirects to an invalid address"
        raise UrlUnreachable(message) from None


def is_public(address: str) -> bool:
    """Return True for an address of the public internet."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    inside = any(parsed in network for network in _NEVER)  # another version is in none
    return parsed.is_global and not parsed.is_multicast and not inside
