"""Tests that slow or departed callers do not affect others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.support.checker import Load
from tests.support.system import System

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEAVING = 60
MAX_IN_FLIGHT = 256
"""The default of SIMILE_UPLOAD_MAX_IN_FLIGHT."""


async def _connect(system: System) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", urlsplit(system.url).port)


def _request(image: bytes) -> bytes:
    head = "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image


async def test_an_upload_byte_by_byte_is_answered(
    system: System, load: Callable[..., Load], image: bytes
) -> None:
    """A slow body is answered within its timeout, and other callers meanwhile."""
    asked = load()
    async with asked.running():
        reader, writer = await _connect(system)
        request = _request(image)
        for number in range(len(request)):
            writer.write(request[number : number + 1])
            await writer.drain()
            if number % 16 == 0:
                await asyncio.sleep(0.001)
        answer = await reader.read()
        writer.close()
        await asked.answered()
    assert answer.startswith(b"HTTP/1.1 200 ")
    asked.judge()


async def test_slow_bodies_and_wrong_headers_affect_no_other_caller(
    system: System, load: Callable[..., Load]
) -> None:
    """Slow bodies beyond the limit, odd codings and wrong hosts fail no valid query."""
    head = "POST /v1/search HTTP/1.1\r\nHost: {}\r\nContent-Length: 9999\r\n{}\r\n"
    slow = head.format("localhost", "").encode() + b"\xff"
    wrong = [
        (head.format("localhost", "Content-Encoding: gzip\r\n"), 415),
        (head.format("localhost", "Expect: 200-ok\r\n"), 417),
        (head.format("evil.example", ""), 421),
    ]
    asked = load()
    waiting = [await _connect(system) for _ in range(MAX_IN_FLIGHT + 1)]
    async with asked.running():
        await asked.answered()
        for _, writer in waiting:
            writer.write(slow)
        for request, status in wrong * 10:
            reader, writer = await _connect(system)
            writer.write(request.encode())
            assert f" {status} ".encode() in await reader.readline()
            writer.close()
        await asked.answered()
        # Every slow body is aborted before its whole time has passed.
        async with asyncio.timeout(25):
            assert b" 408 " in await waiting[-1][0].readline()
        await asked.answered()
    for _, writer in waiting:
        writer.close()
    asked.judge()


async def test_callers_who_disconnect_affect_no_other_caller(
    system: System, load: Callable[..., Load], image: bytes
) -> None:
    """Many disconnect during the body or the answer: others get answers, no query is kept."""
    asked = load()
    async with asked.running():
        await asked.answered()
        for number in range(LEAVING):
            _, writer = await _connect(system)
            request = _request(image)
            writer.write(request if number % 2 else request[: len(request) // 2])
            await writer.drain()
            writer.transport.abort()
        await asked.answered()
    asked.judge()
    await asked.until(lambda: "simile_upload_in_flight_queries 0.0" in _metrics(system))


def _metrics(system: System) -> str:
    return system.processes["upload-1"].metrics()


async def test_callers_who_do_not_read_affect_no_other_caller(
    system: System, load: Callable[..., Load], image: bytes
) -> None:
    """Connections that request answers and never read them delay no other caller."""
    asked = load()
    waiting = [await _connect(system) for _ in range(20)]
    async with asked.running():
        for _, writer in waiting:
            writer.write(_request(image))
        await asked.answered()
    for _, writer in waiting:
        writer.close()
    asked.judge()
