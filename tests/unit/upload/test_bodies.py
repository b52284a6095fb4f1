"""Bodies that arrive slowly have limits of their own, and do not block other callers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest

from services.shared.errors import Overloaded, RateLimited
from services.upload.http.bodies import Bodies, BodyBounds
from services.upload.settings import UploadSettings
from tests.unit.upload.conftest import Api, form_of, refused

HEAD = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"


def _metric(api: Api, name: str) -> float:
    return api.telemetry.registry.get_sample_value(f"simile_upload_{name}") or 0


@contextlib.asynccontextmanager
async def _slow_bodies(api: Api, count: int, content: bytes = b"\xff") -> AsyncIterator[None]:
    """Open that many connections, each with a body that has begun and does not continue."""
    host, port = api.url.removeprefix("http://").split(":")
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(HEAD + content)
        writers.append(writer)
    while _metric(api, "arriving_bodies") < count:
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        for writer in writers:
            writer.close()


class TestFewSlots:
    """Tests a service with four slots."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with four queries in flight, and half a minute for a body."""
        return UploadSettings(port=0, max_in_flight=4, embedding_cache_bytes=0)

    async def test_slow_bodies_do_not_block_others(self, api: Api, picture: bytes) -> None:
        """Other callers are answered while more incomplete bodies arrive than slots exist."""
        async with _slow_bodies(api, 12):
            for _ in range(10):
                assert (await api.search(picture)).status == 200
            batch = form_of(picture, picture + b"\0")
            assert (await api.ask("POST", "/v1/search/batch", data=batch)).status == 200
            assert (await api.search(picture, "/v1/embed")).status == 200
            assert _metric(api, "arriving_bodies") == 12


class TestFewBodies:
    """Tests a service with a limit of a few bodies."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with at most four arriving bodies."""
        return UploadSettings(port=0, max_bodies=4)

    async def test_one_caller_may_send_three_quarters_of_the_bodies(
        self, api: Api, picture: bytes
    ) -> None:
        """The caller's fourth body is refused from its head, until another has ended."""
        async with _slow_bodies(api, 3):
            refused(await api.search(picture), 429, "rate_limited")
        while _metric(api, "arriving_bodies"):
            await asyncio.sleep(0.005)
        assert (await api.search(picture)).status == 200


class TestSlowBody:
    """Tests a service with a minimum rate for bodies."""

    @pytest.fixture
    def upload_settings(self, monkeypatch: pytest.MonkeyPatch) -> UploadSettings:
        """Return settings that demand a megabyte in each tenth of a second."""
        quick = partial(BodyBounds, pace_seconds=0.1)
        monkeypatch.setattr("services.upload.app.BodyBounds", quick)
        return UploadSettings(port=0, body_bytes_per_second=2**20)

    @pytest.mark.parametrize("path", ["/v1/search", "/v1/search/batch", "/v1/embed"])
    async def test_a_body_that_comes_too_slowly_is_given_up(self, api: Api, path: str) -> None:
        """The answer is 408 long before the body's whole time is over, with the reason."""

        async def slow() -> AsyncIterator[bytes]:
            yield b"--x\r\n"
            while True:
                await asyncio.sleep(0.02)
                yield b"a"

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = await api.search(slow(), path, headers=headers)
        refused(answer, 408, "body_timeout")
        assert "1048576 bytes a second" in answer.json["detail"]
        assert _metric(api, "arriving_bodies") == 0

    async def test_a_session_has_the_same_bounds(self, api: Api) -> None:
        """The route of sessions, which needs no key, takes no slow body either."""

        async def stuck() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.sleep(20)

        headers = {"Content-Type": "application/json"}
        answer = await api.search(stuck(), "/v1/session", headers=headers)
        refused(answer, 408, "body_timeout")


def _bodies(count: int = 8, held_bytes: int = 1000) -> Bodies:
    return Bodies(BodyBounds(count, held_bytes, bytes_per_second=0, timeout_seconds=30))


def test_bodies_of_all_callers_are_bounded() -> None:
    """The limit counts the bodies of all callers, until they have arrived."""
    bodies = _bodies(count=2)
    with bodies.arriving("a", 0) as one, bodies.arriving("b", 0):
        with pytest.raises(Overloaded), bodies.arriving("c", 0):
            pytest.fail("a third body was accepted")
        one.arrived()
        with bodies.arriving("c", 0):
            assert bodies.used.count == 2
    assert (bodies.used.count, bodies.callers) == (0, 0)


async def test_a_new_caller_replaces_the_slowest_body_of_the_busiest() -> None:
    """When two addresses use all bodies, the slowest of the busiest is refused for a new caller."""
    refusals = list[str]()
    bounds = BodyBounds(6, 1000, bytes_per_second=0, timeout_seconds=30)
    bodies, reading = Bodies(bounds, refusals.append), asyncio.Event()

    async def slow(caller: str, size: int) -> None:
        with bodies.arriving(caller, 0) as body:
            body.add_bytes(size)
            async with body.time_limit():
                await reading.wait()

    tasks = [
        asyncio.create_task(slow(*one)) for one in zip("aaaabb", (9, 1, 9, 9, 2, 2), strict=True)
    ]
    await asyncio.sleep(0)
    with bodies.arriving("new", 0):
        assert bodies.used.count == 6
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [task.done() for task in tasks] == [False, True, False, False, False, False]
        with pytest.raises(Overloaded, match="most of them yours"):
            await tasks[1]
        # A caller with as many bodies as the busiest replaces none of them.
        with pytest.raises((Overloaded, RateLimited)), bodies.arriving("a", 0):
            pytest.fail("a body of the busiest was accepted")
    assert refusals[0] == "overloaded"
    reading.set()
    await asyncio.wait(tasks)
    assert (bodies.used.count, bodies.callers) == (0, 0)


def test_bytes_count_from_their_arrival_to_the_answer() -> None:
    """Announced bytes are refused from the head, further bytes as they arrive."""
    bodies = _bodies()
    with bodies.arriving("a", 0) as one, bodies.arriving("b", 0) as other:
        one.add_bytes(700)
        with pytest.raises(RateLimited):
            one.add_bytes(51)
        with pytest.raises(Overloaded):
            other.add_bytes(301)
        with pytest.raises(Overloaded), bodies.arriving("b", 301):
            pytest.fail("a body above the limit was accepted")
        one.arrived()
        other.add_bytes(300)
        assert bodies.used.held_bytes == 1000
    assert (bodies.used.held_bytes, bodies.callers) == (0, 0)


async def test_the_rate_is_measured_all_the_time() -> None:
    """A body at the minimum rate continues for its whole time, and a stalled body is given up."""
    bodies = Bodies(
        BodyBounds(8, 10**6, bytes_per_second=1000, timeout_seconds=30, pace_seconds=0.2)
    )
    with bodies.arriving("a", 0) as body:
        ended = asyncio.Event()

        async def read() -> None:
            async with body.time_limit():
                for _ in range(6):
                    body.add_bytes(200)
                    await asyncio.sleep(0.05)
                ended.set()
                await asyncio.sleep(30)

        with pytest.raises(Exception, match="1000 bytes a second"):
            await read()
        assert ended.is_set()
