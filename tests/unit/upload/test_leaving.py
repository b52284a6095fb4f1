"""A replica of upload becomes ready, and ends without refusing a caller."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

import aiohttp
import pytest

from services.shared.telemetry.health import lasting
from services.upload.http.listener import Listener
from services.upload.settings import UploadSettings
from tests.support.waiting import until
from tests.unit.upload.conftest import Api, refused

CONNECTIONS = 20
REQUEST = b"GET /v1/collections HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _unready(api: Api) -> bool:
    return "upload" in api.telemetry.health.not_ready()


async def _answered(connection: socket.socket) -> bytes:
    connection.setblocking(False)  # noqa: FBT003 (the signature of sockets)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, REQUEST)
    return await loop.sock_recv(connection, 64)


async def test_connections_that_wait_at_the_stop_are_answered(api: Api) -> None:
    """A connection that the kernel accepted before the port was closed gets an answer."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    # Without an await, the event loop can't accept the connections before the stop.
    waiting = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS)]
    api.stop.set()
    await until(lambda: _unready(api))
    async with asyncio.timeout(20):
        heads = await asyncio.gather(*map(_answered, waiting))
    assert all(head.startswith(b"HTTP/1.1 200") for head in heads)
    for connection in waiting:
        connection.close()
    await api.running


@pytest.fixture
def _patient_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the listener wait long for the first head of a connection."""
    patient = partial(Listener, first_head_seconds=20.0)
    monkeypatch.setattr("services.upload.app.Listener", patient)


@pytest.mark.usefixtures("_patient_listener")
async def test_a_request_in_transit_at_the_stop_is_answered(api: Api) -> None:
    """The connection was accepted, and its request arrives after the port is closed."""
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
    """Tests a replica behind load balancers that learn of the stop later."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with a lame duck period."""
        return UploadSettings(port=0, lame_duck_seconds=0.5)

    async def test_callers_are_answered_as_before(self, api: Api, picture: bytes) -> None:
        """The replica is not ready, but answers a new connection, and closes the connection."""
        api.stop.set()
        await until(lambda: _unready(api))
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
    """Tests readiness without a broker, when no replica is better than another."""

    @pytest.fixture
    def upload_settings(self, monkeypatch: pytest.MonkeyPatch) -> UploadSettings:
        """Return settings, and let a moment without a reply queue count as long."""
        monkeypatch.setattr("services.upload.app.lasting", lambda check, _: lasting(check, 0.0))
        return UploadSettings(port=0)

    async def test_a_replica_stays_ready_and_answers_503(
        self, api: Api, picture: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A query gets 503 with Retry-After; the page, facts and images are served."""
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
        """A wrong password affects this replica alone, since others may be accepted."""
        reason = "RabbitMQ refuses: check SIMILE_AMQP_URL"
        monkeypatch.setattr(type(api.broker), "refusal", reason)
        assert api.telemetry.health.not_ready() == {"broker": reason}

    async def test_a_replica_without_a_reply_queue_is_not_ready(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Replies can't reach the replica, though the broker receives its messages."""
        _take_away(api, monkeypatch)
        api.broker.unblock()
        await until(lambda: "reply queue" in api.telemetry.health.not_ready())
