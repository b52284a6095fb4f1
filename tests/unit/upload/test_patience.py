"""Callers set deadlines of their own, and callers that disconnect free their slots."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from services.shared.lifecycle import cancel
from services.shared.messaging import topology
from services.upload.settings import UploadSettings
from tests.support.waiting import until
from tests.unit.upload.conftest import Api, form_of, refused


def _count(api: Api, name: str, **labels: str) -> float:
    return api.telemetry.registry.get_sample_value(f"simile_upload_{name}", labels) or 0.0


def _gone(api: Api) -> float:
    labels = {"route": "/v1/search", "status": "499", "code": "disconnected"}
    return _count(api, "requests_total", **labels)


@pytest.mark.parametrize("path", ["/v1/search", "/v1/embed"])
async def test_request_timeout_is_the_querys_deadline(api: Api, picture: bytes, path: str) -> None:
    """Request-Timeout ends the wait with 504; the server's setting is the maximum."""
    api.embedder.ignoring.add(picture)
    started = time.monotonic()
    answer = await api.search(picture, path, headers={"Request-Timeout": "0.05"})
    refused(answer, 504, "deadline_exceeded")
    assert time.monotonic() - started < 10  # the server's own deadline


async def test_the_deadline_travels_with_the_query(api: Api, picture: bytes) -> None:
    """Searchers see the caller's deadline, and never a later one than the server allows."""
    for given, at_most in (("2.5", 2.5), ("1e9", 10)):
        before = time.time_ns() // 1_000_000
        answer = await api.search(picture, headers={"Request-Timeout": given})
        assert answer.status == 200
        deadline = api.searcher.slips[-1].deadline_unix_ms
        after = time.time_ns() // 1_000_000
        assert before < deadline <= after + 1000 * at_most
    item = api.items[0].item_id
    headers = {"Request-Timeout": "2"}
    assert (await api.get(f"/v1/items/birds/{item}/similar", headers=headers)).status == 200
    assert api.searcher.slips[-1].deadline_unix_ms <= time.time_ns() // 1_000_000 + 2000


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", "1_0", ""])
async def test_a_request_timeout_that_is_no_number_is_refused(
    api: Api, picture: bytes, given: str
) -> None:
    """The header is refused by name, before the body is read."""
    answer = await api.search(picture, headers={"Request-Timeout": given})
    refused(answer, 400, "malformed_request")
    assert "Request-Timeout" in answer.json["detail"]


async def test_a_query_past_its_deadline_is_not_sent(api: Api, picture: bytes) -> None:
    """A body that took all of the caller's time costs no embedder, and is counted as expired."""
    over = asyncio.Event()

    async def slow() -> Any:
        yield picture[:10]
        await over.wait()
        yield picture[10:]

    asking = asyncio.create_task(api.search(slow(), headers={"Request-Timeout": "0.05"}))
    await asyncio.sleep(0.1)
    over.set()
    refused(await asking, 504, "deadline_exceeded")
    assert api.embedder.embedded == []
    assert _count(api, "expired_total", before="publish") == 1


async def test_a_caller_that_disconnects_is_forgotten(api: Api, picture: bytes) -> None:
    """The query ends with the connection, and is counted with status 499."""
    api.embedder.ignoring.add(picture)
    asking = asyncio.create_task(api.search(picture))
    await until(lambda: _count(api, "in_flight_queries") == 1)
    while await api.broker.depth(topology.EMBED.name):
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    await cancel(asking)
    await until(lambda: _count(api, "in_flight_queries") == 0)
    await until(lambda: _gone(api) == 1)


async def test_a_caller_that_disconnects_during_its_body_is_forgotten(
    api: Api, picture: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """The body's slot and bytes are released, no image is sent, and no traceback is logged."""

    async def stuck() -> Any:
        yield picture[:10]
        await asyncio.Event().wait()

    asking = asyncio.create_task(api.search(stuck()))
    await until(lambda: _count(api, "held_bytes") > 0)
    await cancel(asking)
    await until(lambda: _gone(api) == 1)
    assert _count(api, "arriving_bodies") == _count(api, "held_bytes") == 0
    assert api.embedder.embedded == []
    assert "Traceback" not in capsys.readouterr().out


class TestDraining:
    """Tests a service that stops."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with a deadline of 10 s."""
        return UploadSettings(port=0, deadline_seconds=10)

    async def test_a_connection_in_use_is_closed_after_its_answer(
        self, api: Api, picture: bytes
    ) -> None:
        """The answer in flight has Connection: close, so that no request follows."""
        api.embedder.ignoring.add(picture)
        item = api.items[0].item_id
        async with aiohttp.ClientSession() as session:
            first = await session.get(f"{api.url}/v1/collections")
            assert first.headers.get("Connection") != "close"
            held = asyncio.Event()

            async def slow() -> Any:
                yield picture[:10]
                await held.wait()
                yield picture[10:]

            asking = asyncio.create_task(session.post(f"{api.url}/v1/search", data=slow()))
            await until(lambda: _count(api, "arriving_bodies") == 1)
            api.stop.set()
            await until(lambda: "upload" in api.telemetry.health.not_ready())
            async with asyncio.timeout(20), aiohttp.ClientSession() as another:
                with pytest.raises(aiohttp.ClientConnectorError):
                    while True:
                        await another.get(f"{api.url}/v1/items/birds/{item}")
            api.embedder.ignoring.clear()
            held.set()
            answer = await asking
            assert answer.status == 200
            assert answer.headers["Connection"] == "close"
        await api.running

    async def test_an_admitted_batch_is_answered_completely(self, api: Api, picture: bytes) -> None:
        """Images of a form that arrive after the stop belong to a request from before the stop."""
        boundary, head = b"--x\r\n", b'Content-Disposition: form-data; name="image"\r\n\r\n'
        held = asyncio.Event()

        async def slow() -> Any:
            yield boundary + head + picture + b"\r\n"
            await held.wait()
            yield boundary + head + picture + b"\r\n--x--\r\n"

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        asking = asyncio.create_task(api.search(slow(), "/v1/search/batch", headers=headers))
        await until(lambda: _count(api, "arriving_bodies") == 1)
        api.stop.set()
        await until(lambda: "upload" in api.telemetry.health.not_ready())
        held.set()
        answer = await asking
        assert answer.status == 200
        assert [set(result) for result in answer.json["results"]] == [{"name", "answer"}] * 2


async def test_each_image_of_a_batch_has_the_callers_deadline(api: Api, picture: bytes) -> None:
    """The header applies to every image of the form."""
    headers = {"Request-Timeout": "3"}
    answer = await api.ask(
        "POST", "/v1/search/batch", data=form_of(picture, picture + b"\0"), headers=headers
    )
    assert answer.status == 200
    latest = time.time_ns() // 1_000_000 + 3000
    assert all(slip.deadline_unix_ms <= latest for slip in api.searcher.slips)
