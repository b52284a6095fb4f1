"""The socket under one connection to RabbitMQ: when it last brought anything, and how to cut it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex

from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL


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


class _Reader(asyncio.StreamReader):
    """A stream that tells when bytes arrive."""

    def __init__(self, on_data: Callable[[], None]) -> None:
        super().__init__()
        self._on_data = on_data

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
