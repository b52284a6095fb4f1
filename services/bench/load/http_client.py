"""Posts bodies over a keep-alive HTTP/1.1 connection with little CPU.

The generator often shares its machine with what it measures. An answer may come before its body
was sent; it may have a Content-Length, come in chunks, or end with the connection.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import httptools

from services.bench.target import Address


@dataclass(frozen=True, slots=True)
class Answer:
    """Holds an HTTP response; the names of headers are in lower case."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


class Connection(asyncio.Protocol):
    """Connects to a server, for one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._in_body = False
        self._lost = False

    @classmethod
    async def open(cls, address: Address) -> Connection:
        """Connect. Raises OSError."""
        loop = asyncio.get_running_loop()
        tls = trusted_authorities() if address.tls else None
        _, connection = await loop.create_connection(cls, address.host, address.port, ssl=tls)
        return connection

    @property
    def usable(self) -> bool:
        """True while the connection can send another request."""
        return not self._lost

    async def post(self, head: bytes, body: bytes) -> Answer:
        """Send a request and return its answer. Raises ConnectionError."""
        if self._transport is None or self._lost:
            raise ConnectionResetError
        self._answer = asyncio.get_running_loop().create_future()
        self._headers, self._body, self._in_body = {}, [], False
        self._transport.writelines((head, body))
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.close()  # a late answer would be taken for that of the next request
            raise

    def close(self) -> None:
        """Close the connection."""
        self._lost = True
        if self._transport is not None:
            self._transport.abort()

    # Callbacks of asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # as TCP and TLS have

    def data_received(self, data: bytes) -> None:
        """Parse a part of an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(ConnectionAbortedError("the answer is no HTTP"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the answer, whose body may end with the connection."""
        self._lost = True
        unbounded = self._headers.keys().isdisjoint((b"content-length", b"transfer-encoding"))
        if exc is None and self._in_body and unbounded:
            self._finish()
        self._fail(exc if isinstance(exc, ConnectionError) else ConnectionResetError())

    # Callbacks of the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Note that the body follows."""
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Finish the answer; ignore interim answers (100 Continue, 103 Early Hints)."""
        if self._parser.get_status_code() < HTTPStatus.OK:
            self._headers, self._in_body = {}, False
            return
        keep = self._parser.should_keep_alive()
        self._finish()
        if not keep:
            self.close()

    def _finish(self) -> None:
        if self._answer is not None and not self._answer.done():
            status = self._parser.get_status_code()
            self._answer.set_result(Answer(status, self._headers, b"".join(self._body)))

    def _fail(self, error: ConnectionError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


@functools.cache
def trusted_authorities() -> ssl.SSLContext:
    """Return a context with the system's authorities, read once, since that takes long."""
    return ssl.create_default_context()
