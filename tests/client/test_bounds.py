"""The limits of simile_client: time, memory, and answers that can't be read."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from simile_client import AsyncSimile, Retries, Simile, UnexpectedAnswer, Unreachable
from simile_client.body import Body
from simile_client.calls import Call
from tests.support.clock import Clock
from tests.unit.upload.conftest import OPENAPI

PATH = "/v1/collections"
ITEMS = OPENAPI["paths"]["/v1/items/{collection}"]["get"]["responses"]["200"]["content"][
    "application/json"
]["example"]
GZIP = {"Content-Encoding": "gzip"}


def _content(response: httpx.Response) -> bytes:
    return response.content


def _answers(answer: Callable[[], httpx.Response], call: Call[bytes]) -> list[bytes | Exception]:
    """Return the result of the call by the blocking and by the asynchronous client."""
    transport = httpx.MockTransport(lambda _: answer())

    def blocking() -> bytes:
        with httpx.Client(transport=transport) as http:
            return Simile(retries=Retries(attempts=1), http=http).send(call)

    async def asynchronous() -> bytes:
        async with httpx.AsyncClient(transport=transport) as http:
            return await AsyncSimile(retries=Retries(attempts=1), http=http).send(call)

    results = list[bytes | Exception]()
    for send in (blocking, lambda: asyncio.run(asynchronous())):
        try:
            results.append(send())
        except Exception as error:  # noqa: BLE001 (the error is what the tests compare)
            results.append(error)
    return results


def test_a_compressed_answer_is_read() -> None:
    """Its content is decompressed once."""
    packed = gzip.compress(b"some content")
    call = Call(PATH, _content)
    found = _answers(lambda: httpx.Response(200, headers=GZIP, stream=_Stream(packed)), call)
    assert found == [b"some content"] * 2


def test_a_large_answer_is_refused() -> None:
    """The bytes after decompression count."""
    packed = gzip.compress(bytes(100_001))
    for limit, refused in ((100_000, True), (100_001, False)):
        call = Call(PATH, _content, max_bytes=limit)
        found = _answers(lambda: httpx.Response(200, headers=GZIP, stream=_Stream(packed)), call)
        assert [isinstance(one, UnexpectedAnswer) for one in found] == [refused] * 2


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "br"])
def test_content_that_cannot_be_decompressed_is_unexpected(coding: str) -> None:
    """The content is no gzip, or has codings that the client did not ask for."""
    headers = {"Content-Encoding": coding}
    call = Call(PATH, _content)
    found = _answers(lambda: httpx.Response(200, headers=headers, stream=_Stream(b"plain")), call)
    assert [type(one) for one in found] == [UnexpectedAnswer] * 2


def test_an_address_that_is_too_long_is_an_error_of_the_client() -> None:
    """The request is sent once, since a repetition can't help."""
    call = Call(PATH, _content, {"cursor": "x" * 70_000})
    found = _answers(lambda: httpx.Response(200), call)
    assert [type(one) for one in found] == [Unreachable] * 2


@pytest.mark.parametrize("url", ["http://[::", "http://localhost:99999", "http://", "http://a:b"])
def test_an_invalid_address_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(Unreachable, match=r"URL|port"):
        Simile(url)


def test_the_deadline_holds_between_pieces() -> None:
    """A piece that comes later ends the call."""
    clock = Clock()
    response = httpx.Response(200, request=httpx.Request("GET", "http://simile.test"))
    body = Body(response, 10, clock=clock)
    clock.now += 9
    body.add(b"early")
    clock.now += 2
    with pytest.raises(TimeoutError):
        body.add(b"late")


async def test_an_answer_that_drips_ends_at_the_deadline() -> None:
    """With both clients, although every read is short."""
    ended = asyncio.Queue[None]()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _drip(writer)
        await ended.put(None)

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncSimile(url, deadline_seconds=0.1) as simile:
            with pytest.raises(Unreachable):
                await simile.collections()
        with Simile(url, deadline_seconds=0.1) as blocking, pytest.raises(Unreachable):
            await asyncio.to_thread(blocking.collections)
        for _ in range(2):
            await ended.get()


async def _drip(writer: asyncio.StreamWriter) -> None:
    """Answer with a body that never ends, a byte at a time, until the client hangs up."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    try:
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)
    except ConnectionError:
        writer.close()


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Content as a server sends it, for both clients."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield self._content


@pytest.mark.parametrize("cursors", ["aa", "aba"])
async def test_a_cursor_that_returns_ends_the_pages(cursors: str) -> None:
    """Pages that lead in a circle have no end."""
    left = iter(cursors * 2)

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={**ITEMS, "next_cursor": next(left)})

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport) as http:
        pages = AsyncSimile(http=http).items_pages("birds")
        with pytest.raises(UnexpectedAnswer, match="cursor"):
            [page async for page in pages]
    left = iter(cursors * 2)
    with httpx.Client(transport=transport) as blocking, pytest.raises(UnexpectedAnswer):
        list(Simile(http=blocking).items_pages("birds"))
