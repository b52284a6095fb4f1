"""A connection reads every form of an HTTP answer, and knows when it can't be used again."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from services.bench.load import http_client
from services.bench.load.http_client import Connection
from services.bench.target import Address
from tests.support.running import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-One: 1\r\n\r\nhi"
HEAD = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\n"
BODY = b"body"


@asynccontextmanager
async def connected(handler: Handler) -> AsyncIterator[Connection]:
    """Open a connection to a server that runs this handler."""
    ended = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()
            ended.set()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    connection = await Connection.open(Address(host, port))
    try:
        yield connection
    finally:
        connection.close()
        await ended.wait()
        listening.close()
        await listening.wait_closed()


def answering(*pieces: bytes, keep: bool = True) -> Handler:
    """Return a handler that answers each request with these pieces, each flushed alone."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1):
            await reader.readexactly(len(HEAD + BODY) - 1)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if not keep:
                return

    return handle


async def test_answers_come_one_after_another_on_a_connection() -> None:
    """A Content-Length ends an answer, and the connection takes another request."""
    async with connected(answering(OK)) as connection:
        for _ in range(3):
            answer = await connection.post(HEAD, BODY)
            assert (answer.status, answer.body) == (200, b"hi")
            assert answer.headers[b"x-one"] == b"1"
            assert connection.usable


async def test_an_answer_may_come_byte_by_byte() -> None:
    """An answer is read whole, however it is split."""
    pieces = [OK[place : place + 1] for place in range(len(OK))]
    async with connected(answering(*pieces)) as connection:
        assert (await connection.post(HEAD, BODY)).body == b"hi"


async def test_an_answer_may_come_in_chunks() -> None:
    """The chunks of an answer are joined."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"
    async with connected(answering(chunked)) as connection:
        for _ in range(2):
            assert (await connection.post(HEAD, BODY)).body == b"hi"


async def test_the_end_of_the_connection_may_end_an_answer() -> None:
    """Without a length, the body lasts until the server closes the connection."""
    unbounded = b"HTTP/1.0 200 OK\r\n\r\nhi"
    async with connected(answering(unbounded, keep=False)) as connection:
        assert (await connection.post(HEAD, BODY)).body == b"hi"
        assert not connection.usable


async def test_a_word_before_the_answer_is_not_the_answer() -> None:
    """103 Early Hints is skipped, and its headers are not the answer's."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with connected(answering(early + OK)) as connection:
        answer = await connection.post(HEAD, BODY)
        assert answer.status == 200
        assert b"link" not in answer.headers


async def test_connection_close_spends_the_connection() -> None:
    """The answer is valid, and another request is refused without being sent."""
    closing = OK.replace(b"X-One: 1", b"Connection: close")
    async with connected(answering(closing)) as connection:
        assert (await connection.post(HEAD, BODY)).status == 200
        assert not connection.usable
        with pytest.raises(ConnectionResetError):
            await connection.post(HEAD, BODY)


async def test_an_answer_may_come_before_the_body_was_read() -> None:
    """A refusal from the headers alone is read while the body is still being sent."""
    refusal = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"
    large = bytes(8 * 2**20)

    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await writer.drain()
        while await reader.read(2**16):
            pass

    head = HEAD.replace(b"4", b"%d" % len(large))
    async with connected(refusing) as connection:
        answer = await connection.post(head, large)
        assert answer.status == 503
        assert answer.headers[b"retry-after"] == b"1"


@pytest.mark.parametrize(
    "half",
    [b"", OK[:10], OK[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi"],
    ids=["nothing", "half a head", "half a body", "half a chunk"],
)
async def test_half_an_answer_is_none(half: bytes) -> None:
    """A server that closes the connection early causes an error, never a short body."""
    async with connected(answering(half, keep=False)) as connection:
        with pytest.raises(ConnectionResetError):
            await connection.post(HEAD, BODY)


async def test_what_is_no_http_is_an_error() -> None:
    """The greeting of another protocol ends the connection."""
    async with connected(answering(b"SSH-2.0-OpenSSH_9.2\r\n")) as connection:
        with pytest.raises(ConnectionAbortedError):
            await connection.post(HEAD, BODY)
        assert not connection.usable


async def test_a_request_given_up_spends_the_connection() -> None:
    """A late answer must not be read as the answer to the next request."""
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.readexactly(len(HEAD + BODY))
        asked.set()
        await reader.read()

    async with connected(silent) as connection:
        waiting = asyncio.create_task(connection.post(HEAD, BODY))
        await asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not connection.usable


async def test_connections_over_tls_share_what_they_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trusted authorities are read once, since reading them again would delay requests."""
    made: list[ssl.SSLContext] = []

    def make() -> ssl.SSLContext:
        made.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", make)
    http_client.trusted_authorities.cache_clear()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            await Connection.open(Address("127.0.0.1", free_port(), tls=True))
    http_client.trusted_authorities.cache_clear()
    assert len(made) == 1
