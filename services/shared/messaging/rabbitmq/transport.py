"""The socket under one connection to RabbitMQ, and aio-pika's connection over that socket."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, SupportsIndex

import aio_pika
import aiormq
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from pamqp.constants import FRAME_HEADER, FRAME_HEADER_SIZE
from pamqp.header import ContentHeader
from yarl import URL

from services.shared.lifecycle import cancel

_GREETING_SECONDS: Final = 1.5
"""RabbitMQ greets at once; a longer silence means that the network path may be dead."""

_NEXT_ANSWER_SECONDS: Final = 5.0
"""RabbitMQ refuses a wrong password after 3 s of silence."""

_PROBE_SECONDS: Final = 0.5
_CLOSE_SECONDS: Final = 2.0

CONNECTION_ERRORS: Final = CONNECTION_EXCEPTIONS
"""The errors that aio-pika raises when a connection or a channel is closed, or closes."""

_FLAGS: Final = slice(12, 14)
"""The bytes of a content header that name its properties; class, weight and size come first."""

_NEEDS_PARSING: Final = 1 << 13 | 1 << 6 | 0b11
"""The flags of headers, timestamp, and a second word of flags; the others are short texts."""

_MAX_PROPERTIES_BYTES: Final = 32 * 2**10
"""The time of parsing grows with the square of their size; Simile's own have at most 16 KiB."""


class MonitoredTransport(TransportFactory):
    """Opens one socket, with TLS for amqps, and records when bytes arrive.

    Attributes:
        last_received: when the last bytes arrived, by `time.monotonic()`.
    """

    def __init__(self) -> None:
        self.last_received = time.monotonic()
        self._on_received: Callable[[], None] | None = None
        self._transport: asyncio.Transport | None = None

    async def create(
        self,
        url: URL,
        **options: Any,  # noqa: ANN401 (the base class has it)
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open the socket for aiormq.

        Raises:
            AMQPConnectionError: the server can't be reached, or TLS failed.
        """
        secure = url.scheme == "amqps"
        context = await options["ssl_context_provider"].get_context() if secure else None
        loop = asyncio.get_running_loop()
        reader = _Reader(self._received)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            self._transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=context
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return reader, asyncio.StreamWriter(self._transport, protocol, reader, loop)

    def cut(self) -> None:
        """Drop the socket now, with all that is unsent: the peer may be dead."""
        if self._transport is not None:
            self._transport.abort()

    @contextlib.asynccontextmanager
    async def answering(self, first_seconds: float = _NEXT_ANSWER_SECONDS) -> AsyncIterator[None]:
        """Raise TimeoutError inside once the server is silent for too long.

        Args:
            first_seconds: how long the first bytes may take; the next may take 5 s each.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(first_seconds) as timeout:

            def extend() -> None:
                if not timeout.expired():
                    timeout.reschedule(loop.time() + _NEXT_ANSWER_SECONDS)

            self._on_received = extend
            try:
                yield
            finally:
                self._on_received = None

    def _received(self) -> None:
        self.last_received = time.monotonic()
        if self._on_received is not None:
            self._on_received()


class MonitoredConnection(aio_pika.Connection):
    """aio-pika's connection over a MonitoredTransport; pass it to `aio_pika.connect`.

    Attributes:
        socket: the connection's transport.
    """

    def __init__(self, url: URL, **options: Any) -> None:  # noqa: ANN401 (the base class has it)
        super().__init__(url, **options)
        self.socket = MonitoredTransport()
        self.kwargs["transport_factory"] = self.socket

    async def connect(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (aio-pika's)
        """Connect; give up when the server is silent. A failure leaves nothing open."""
        try:
            async with self.socket.answering(_GREETING_SECONDS):
                await super().connect(timeout)
        except BaseException:
            self.socket.cut()
            await self.close()
            raise

    @contextlib.asynccontextmanager
    async def brief_channel(self) -> AsyncIterator[aiormq.abc.AbstractChannel]:
        """Open a channel for a single request, and close it.

        The channel is aiormq's: aio-pika 10.2 keeps 4 KB of every channel that it opened until the
        connection closes, and such requests may come several times a second for days.

        Raises:
            AMQPConnectionError: the connection is closed.
        """
        if self.transport is None:
            reason = "the connection is closed"
            raise AMQPConnectionError(reason)
        channel = await self.transport.connection.channel(publisher_confirms=False)
        yield channel
        await channel.close()

    async def is_ready(self) -> bool:
        """Return whether the connection is open, and RabbitMQ has not blocked it."""
        if self.transport is None:
            return False
        try:
            async with asyncio.timeout(0):
                await self.transport.ready()
        except TimeoutError:
            return False
        return True

    async def answers(self) -> bool:
        """Return whether RabbitMQ sends anything when it is asked; cut the connection if not."""
        before = self.socket.last_received
        # On a channel of its own: on a channel in use it would delay the requests behind it.
        asking = asyncio.create_task(self._ask(), name="probe")
        await asyncio.wait({asking}, timeout=_PROBE_SECONDS)
        answered = self.socket.last_received > before
        if not answered:
            self.socket.cut()  # before the cancel, which may wait for the peer
            await cancel(asking)
        return answered

    async def _ask(self) -> None:
        with contextlib.suppress(*CONNECTION_ERRORS):
            async with self.brief_channel():
                pass

    async def close_or_cut(self) -> None:
        """Close the connection in an orderly way, or cut it where RabbitMQ does not answer."""
        # Pending requests get this error; they would be cancelled without it.
        error = AMQPConnectionError("the connection is lost")
        closing = asyncio.create_task(self.close(error), name="close")
        try:
            # Not a timeout: a cancelled close of aio-pika goes on waiting for the peer.
            await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)
        finally:
            self.socket.cut()
            await cancel(closing)


def drop_unreadable_properties(frame: bytes) -> bytes:
    """Return a content header's frame without the properties that aiormq can't read.

    RabbitMQ passes the properties of a message on as they are. A time in the year 584,556,019, a
    text that is not UTF-8 or nested tables would end the connection of every consumer that gets
    the message. A message without properties has no type and goes to quarantine.

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
    # Without flags there are no properties; the parser ignores the bytes after the flags.
    return frame[: _FLAGS.start] + bytes(2) + frame[_FLAGS.stop :]


class _Reader(asyncio.StreamReader):
    """A stream that reports when bytes arrive, and passes on only readable content headers."""

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
        return drop_unreadable_properties(data) if kind == FRAME_HEADER else data

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Take the bytes that arrived."""
        self._on_data()
        super().feed_data(data)

    def at_eof(self) -> bool:
        """Return False always, so that the next read raises an error with a name.

        At the end of a stream aiormq would raise StopAsyncIteration while it connects, and fail
        later waits with a bare Exception.
        """
        return False
