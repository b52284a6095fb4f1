"""Refusals to callers that retry at once are delayed; callers that wait are not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from services.upload.http.retry_pacing import RetryPacing
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    """Return a clock some time after the machine's start."""
    return Clock()


def _waits(refusals: RetryPacing, count: int) -> list[float]:
    return [round(refusals.wait_seconds(), 6) for _ in range(count)]


def _refusals(clock: Clock) -> RetryPacing:
    return RetryPacing(lambda: None, per_second=10, burst=3, max_seconds=0.5, clock=clock)


def test_a_burst_is_sent_at_once_and_the_rest_at_the_rate(clock: Clock) -> None:
    """Three refusals are sent at once, then ten a second, none later than half a second."""
    assert _waits(_refusals(clock), 10) == [0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5]


def test_occasional_refusals_never_wait(clock: Clock) -> None:
    """Callers that obey Retry-After are refused without a delay."""
    refusals = _refusals(clock)
    for _ in range(50):
        clock.now += 0.1
        assert refusals.wait_seconds() == 0


def test_after_a_quiet_time_the_burst_is_full_again(clock: Clock) -> None:
    """The burst is as large as at first, and no larger."""
    refusals = _refusals(clock)
    _waits(refusals, 20)
    clock.now += 3600
    assert _waits(refusals, 5) == [0, 0, 0, 0.1, 0.2]


@asynccontextmanager
async def _served(refusals: RetryPacing) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        refused = request.path == "/refused"
        return web.Response(
            status=503 if refused else 200, headers={"Retry-After": "1"} if refused else {}
        )

    app = web.Application(middlewares=[refusals.middleware()])
    app.add_routes([web.get("/refused", answer), web.get("/", answer)])
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _seconds(session: aiohttp.ClientSession, url: str) -> float:
    began = time.monotonic()
    async with session.get(url) as answer:
        await answer.read()
    return time.monotonic() - began


async def test_a_frequent_refusal_is_delayed_and_an_answer_is_not() -> None:
    """The second refusal is sent at its turn and counted, and an answer is sent at once."""
    held = list[None]()
    refusals = RetryPacing(lambda: held.append(None), per_second=2, burst=1, max_seconds=0.5)
    async with _served(refusals) as url, aiohttp.ClientSession() as session:
        await _seconds(session, f"{url}/refused")
        assert held == []
        slow = asyncio.create_task(_seconds(session, f"{url}/refused"))
        while not held:
            await asyncio.sleep(0.001)
        await _seconds(session, url)
        assert not slow.done()
        assert await slow >= 0.3
    assert len(held) == 1


async def test_the_number_of_delayed_refusals_is_limited() -> None:
    """Further refusals are sent at once."""
    held = list[None]()
    refusals = RetryPacing(
        lambda: held.append(None), per_second=0.1, burst=1, max_seconds=60, max_held=1
    )
    async with _served(refusals) as url, aiohttp.ClientSession() as session:
        await _seconds(session, f"{url}/refused")
        slow = asyncio.create_task(_seconds(session, f"{url}/refused"))
        while not held:
            await asyncio.sleep(0.001)
        await _seconds(session, f"{url}/refused")
        assert not slow.done()
        slow.cancel()
        # The caller has gone, which leaves room for another.
        while refusals.held:
            await asyncio.sleep(0.001)
        another = asyncio.create_task(_seconds(session, f"{url}/refused"))
        while len(held) < 2:
            await asyncio.sleep(0.001)
        another.cancel()
