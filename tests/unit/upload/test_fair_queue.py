"""Requests for reads wait in turns, and callers with few requests come first."""

from __future__ import annotations

import asyncio

import pytest

from services.shared.errors import Overloaded
from services.shared.lifecycle import cancel
from services.upload.http.fair_queue import FairQueue
from services.upload.settings import UploadSettings
from tests.unit.upload.conftest import Api, connected, refused


class _Asked:
    """Requests slots by name, and records the order; `go` releases all slots."""

    def __init__(self, turns: FairQueue) -> None:
        self._queue = turns
        self.order = list[str]()
        self.go = asyncio.Event()

    def ask(self, name: str, caller: str, connection: int) -> asyncio.Task[None]:
        """Start a task that waits for a slot."""
        return asyncio.create_task(self._ask(name, caller, connection))

    async def _ask(self, name: str, caller: str, connection: int) -> None:
        async with self._queue.slot(caller, connection):
            self.order.append(name)
            await self.go.wait()


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_callers_with_few_requests_come_first() -> None:
    """A caller with one request passes a caller with many, and a new connection passes an old."""
    asked = _Asked(FairQueue(slots=1))
    tasks = [asked.ask("first", "busy", 1)]
    await _settle()
    for name, caller, connection in (
        *((f"busy {number}", "busy", 1) for number in range(6)),
        ("new connection", "busy", 2),
        ("quiet", "quiet", 3),
    ):
        tasks.append(asked.ask(name, caller, connection))
        await _settle()
    asked.go.set()
    await asyncio.gather(*tasks)
    assert asked.order[1] == "quiet"
    assert asked.order.index("new connection") < asked.order.index("busy 3")


async def test_the_busiest_callers_are_refused_when_too_many_wait() -> None:
    """The quiet caller is answered, and the refusals are counted."""
    codes = list[str]()
    turns = FairQueue(codes.append, slots=1, max_waiting=3)
    asked = _Asked(turns)
    tasks = [asked.ask(str(number), "busy", 1) for number in range(8)]
    await _settle()
    quiet = asked.ask("quiet", "quiet", 2)
    await _settle()
    assert turns.waiting == 3
    asked.go.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    await quiet
    assert sum(isinstance(one, Overloaded) for one in ended) == len(codes) == 5
    assert asked.order[1] == "quiet"


async def test_a_cancelled_request_passes_its_turn_on() -> None:
    """The turn is passed on while the request waits, and when its turn has just come."""
    turns = FairQueue(slots=1)
    asked = _Asked(turns)
    first, gone, second = (asked.ask(name, name, 1) for name in ("first", "gone", "second"))
    await _settle()
    await cancel(gone)
    assert turns.waiting == 1
    asked.go.set()
    await first
    await second
    asked.go.clear()
    first, gone, second = (asked.ask(name, name, 2) for name in ("first", "gone", "second"))
    await _settle()
    asked.go.set()
    while not first.done():
        await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    async with asyncio.timeout(10):
        await second
    assert turns.waiting == 0


class TestFlood:
    """Tests the service under a flood of listings."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return the default settings."""
        return UploadSettings(port=0)

    async def test_other_requests_pass_a_flood_of_listings(self, api: Api) -> None:
        """Other requests are answered while many connections send pipelined samples."""
        request = b"GET /v1/collections/birds/sample?count=200 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        flood = [connected(api) for _ in range(40)]
        pairs = [await one.__aenter__() for one in flood]
        for _, writer in pairs:
            writer.write(request * 30)
        item = f"/v1/items/birds/{api.items[0].item_id}"
        for path in ("/v1/collections", item, f"{item}/thumbnail", "/static/app.js"):
            assert (await api.get(path)).status == 200
        assert await pairs[0][0].readline() == b"HTTP/1.1 200 OK\r\n"
        for one in flood:
            await one.__aexit__(None, None, None)

    async def test_a_turn_is_given_back_after_an_error(self, api: Api) -> None:
        """More failures than turns leave all turns free."""
        for _ in range(20):
            refused(await api.get("/v1/collections/nothing"), 404, "unknown_collection")
        assert (await api.get("/v1/collections/birds")).status == 200
