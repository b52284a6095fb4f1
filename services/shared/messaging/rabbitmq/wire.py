"""The socket under one connection to RabbitMQ: when it last brought anything, and how to cut it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, SupportsIndex

from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from pamqp.constants import FRAME_HEADER, FRAME_HEADER_SIZE
from pamqp.header import ContentHeader
from yarl import URL

_FLAGS: Final = slice(12, 14)
"""Where a content header says which properties follow; class, weight and size stand before."""

_NEEDS_PARSING: Final = 1 << 13 | 1 << 6 | 0b11
"""The flags of headers, timestamp, and of a second word of flags: the rest are short texts."""

_MAX_PROPERTIES_BYTES: Final = 32 * 2**10
"""Parsing takes time with the square of their size; Simile's own have at most half of that."""


class Wire(TransportFactory):
    """Opens one socket, by TLS for amqps, and listens to it."""

    def __init__(self) -> None:
        self.heard = time.monotonic()
        """When the last bytes came."""
        self.on_heard: Callable[[], None] | None = None
        self._transport: asyncio.Transport | None = None

    async def create(
        self,
        url: URL,
        **options: Any,  # noqa: ANN401 (as the class above has it)
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, as aiormq asks for. Raises AMQPConnectionError."""
        secure = url.scheme == "amqps"
        context = await options["ssl_context_provider"].get_context() if secure else None
        loop = asyncio.get_running_loop()
        reader = _Reader(self._hear)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            self._transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=context
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return reader, asyncio.StreamWriter(self._transport, protocol, reader, loop)

    def cut(self) -> None:
        """Drop the socket now, whatever is unsent: for one that is dead."""
        if self._transport is not None:
            self._transport.abort()

    def _hear(self) -> None:
        self.heard = time.monotonic()
        if self.on_heard is not None:
            self.on_heard()


def readable(frame: bytes) -> bytes:
    """Return a content header's frame without the properties that aiormq could not read.

    RabbitMQ passes the properties of a message on as they are. A time in the year 584,556,019, a
    text that is not UTF-8 or tables within tables would end the connection, for every consumer
    that the message comes to. Without properties the message has no type, and is quarantined.

    Args:
        frame: the payload of the frame, and the byte that ends it.
    """
    if not int.from_bytes(frame[_FLAGS]) & _NEEDS_PARSING and frame[_FLAGS.stop : -1].isascii():
        return frame
    if len(frame) <= _MAX_PROPERTIES_BYTES:
        try:
            ContentHeader().unmarshal(frame[:-1])
        except (ValueError, LookupError, ArithmeticError, RecursionError):
            pass
        else:
            return frame
    # No flags, so no properties; the bytes after them are passed over.
    return frame[: _FLAGS.start] + bytes(2) + frame[_FLAGS.stop :]


class _Reader(asyncio.StreamReader):
    """A stream that reports when bytes arrive, and lets only readable content headers through."""

    def __init__(self, on_data: Callable[[], None]) -> None:
        super().__init__()
        self._on_data = on_data
        self._head = b""

    async def readexactly(self, n: int) -> bytes:
        """Read the head of a frame, in one or more pieces, or the rest of that frame."""
        data = await super().readexactly(n)
        if len(self._head) < FRAME_HEADER_SIZE:
            self._head += data
            return data
        kind, self._head = self._head[0], b""
        return readable(data) if kind == FRAME_HEADER else data

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Take the bytes that came."""
        self._on_data()
        super().feed_data(data)

    def at_eof(self) -> bool:
        """Never: reading on ends in an error that has a name, which aiormq does not give it here.

        A broker that hung up before a frame would end its reader with a bare Exception for all
        who wait, or with StopAsyncIteration for who connects.
        """
        return False
