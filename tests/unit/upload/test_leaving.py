"""When a replica of upload is ready, and how it ends without turning a caller away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from services.upload.settings import UploadSettings
from tests.unit.upload.conftest import Api, refused

CONNECTIONS = 20
REQUEST = b"GET /v1/collections HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def _unready(api: Api) -> bool:
    return "upload" in api.telemetry.health.not_ready()


async def _answered(connection: socket.socket) -> bytes:
    connection.setblocking(False)  # noqa: FBT003 (the socket's own signature)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, REQUEST)
    return await loop.sock_recv(connection, 64)


async def test_connections_that_wait_at_the_end_are_answered(api: Api) -> None:
    """What the kernel has accepted before the port is closed is not reset, nor left unanswered."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    # Without an await: the event loop has no chance to accept them before it learns of the end.
    waiting = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS)]
    api.stop.set()
    await _until(lambda: _unready(api))
    async with asyncio.timeout(20):
        heads = await asyncio.gather(*map(_answered, waiting))
    assert all(head.startswith(b"HTTP/1.1 200") for head in heads)
    for connection in waiting:
        connection.close()
    await api.running


async def test_a_request_on_its_way_at_the_end_is_answered(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection was accepted, and its request comes after the port is closed."""
    monkeypatch.setattr("services.upload.http.listener._FIRST_HEAD_SECONDS", 20.0)
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as early:
        api.stop.set()
        async with asyncio.timeout(20), aiohttp.ClientSession() as late:
            with pytest.raises(aiohttp.ClientConnectorError):
                while True:
                    await late.get(f"{api.url}/v1/collections")
            head = await _answered(early)
    assert head.startswith(b"HTTP/1.1 200")
    await api.running


class TestLameDuck:
    """Where load balancers learn of the end later than the replica."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """They take a moment."""
        return UploadSettings(port=0, lame_duck_seconds=0.5)

    async def test_callers_are_answered_as_before(self, api: Api, picture: bytes) -> None:
        """Not ready, but a new connection is accepted, its query answered, and then closed."""
        api.stop.set()
        await _until(lambda: _unready(api))
        answer = await api.search(picture)
        assert answer.status == 200
        assert answer.headers["Connection"] == "close"
        await api.running


def _take_away(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(api.broker, "consume", never)
    api.broker.block()
    api.broker.sever()
    assert not api.broker.ready


class TestBrokerAway:
    """Without a broker each replica is as good as the next."""

    @pytest.fixture
    def upload_settings(self, monkeypatch: pytest.MonkeyPatch) -> UploadSettings:
        """A moment without a reply queue is long."""
        monkeypatch.setattr("services.upload.app._UNHEARD_SECONDS", 0.0)
        return UploadSettings(port=0)

    async def test_it_stays_ready_and_says_why(
        self, api: Api, picture: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A query gets 503 with Retry-After; page, facts and images are there."""
        _take_away(api, monkeypatch)
        answer = await api.search(picture)
        refused(answer, 503, "broker_unavailable")
        assert not api.telemetry.health.not_ready()
        item = api.items[0].item_id
        for path in ("/", "/v1/collections", f"/v1/items/birds/{item}/image"):
            assert (await api.get(path)).status == 200, path

    async def test_a_replica_that_the_broker_refuses_is_not_ready(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Others may be let in: a wrong password is this replica's own."""
        reason = "RabbitMQ refuses: check SIMILE_AMQP_URL"
        monkeypatch.setattr(type(api.broker), "refusal", reason)
        assert api.telemetry.health.not_ready() == {"broker": reason}

    async def test_a_replica_without_a_reply_queue_is_not_ready(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The broker hears it, and no answer reaches it."""
        _take_away(api, monkeypatch)
        api.broker.unblock()
        await _until(lambda: "reply queue" in api.telemetry.health.not_ready())
