"""Tokens allow a burst, then a steady rate, for each caller, in limited memory."""

from __future__ import annotations

import asyncio

import pytest

from services.shared.errors import RateLimited
from services.upload.security.rate_limit import RateLimit
from services.upload.settings import UploadSettings
from tests.support.clock import Clock
from tests.support.pictures import plain_jpeg
from tests.unit.upload.conftest import Api, form_of, refused


def _taken(limit: RateLimit, caller: str) -> int:
    """Return the number of tokens available at once."""
    taken = 0
    try:
        while taken < 1000:
            limit.take(caller)
            taken += 1
    except RateLimited:
        pass
    return taken


def test_a_burst_and_then_the_rate() -> None:
    """A rested caller has the burst, and afterwards the tokens that time has added."""
    clock = Clock()
    limit = RateLimit(2.0, 5, clock=clock)
    assert _taken(limit, "a") == 5
    clock.now += 1.5
    assert _taken(limit, "a") == 3
    clock.now += 1000
    assert _taken(limit, "a") == 5


def test_each_caller_has_a_bucket() -> None:
    """A caller over its rate takes no tokens from others."""
    limit = RateLimit(1.0, 2, clock=Clock())
    assert (_taken(limit, "a"), _taken(limit, "b")) == (2, 2)


def test_the_refusal_says_when_there_is_a_token_again() -> None:
    """Retry-After is the time to the next token, in whole seconds, when a token exists."""
    clock = Clock()
    limit = RateLimit(0.25, 1, clock=clock)
    limit.take("a")
    clock.now += 1
    with pytest.raises(RateLimited) as seen:
        limit.take("a")
    assert seen.value.retry_after_seconds == 3
    clock.now += 3
    limit.take("a")


def test_refused_requests_cost_no_tokens() -> None:
    """A caller that keeps sending requests does not delay its next token."""
    clock = Clock()
    limit = RateLimit(1.0, 1, clock=clock)
    limit.take("a")
    for _ in range(10):
        clock.now += 0.09
        with pytest.raises(RateLimited):
            limit.take("a")
    clock.now += 0.11
    limit.take("a")


def test_zero_is_without_a_limit() -> None:
    """By default nothing is counted or stored."""
    limit = RateLimit(0.0, 1)
    assert _taken(limit, "a") == 1000
    assert len(limit) == 0


def test_the_table_is_bounded() -> None:
    """Beyond the limit, the quietest caller is forgotten, never the active one."""
    limit = RateLimit(1.0, 2, clock=Clock(), max_callers=3)
    _taken(limit, "loud")
    for number in range(100):
        limit.take(f"passer-by {number}")
        with pytest.raises(RateLimited):
            limit.take("loud")
    assert len(limit) == 3


class TestTwoTokens:
    """Tests a service with two tokens that are practically not replenished."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with a burst of two queries."""
        return UploadSettings(port=0, rate_per_second=0.01, rate_burst=2)

    async def test_the_third_query_is_refused_before_its_body(
        self, api: Api, picture: bytes
    ) -> None:
        """The answer is 429 before the body is sent; images of items need no token."""
        for _ in range(2):
            assert (await api.search(picture)).status == 200

        host, port = api.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        )
        assert b" 429 " in await reader.readline()
        writer.close()
        refused(
            await api.get(f"/v1/items/birds/{api.items[0].item_id}/similar"), 429, "rate_limited"
        )
        thumbnail = await api.get(f"/v1/items/birds/{api.items[0].item_id}/thumbnail")
        assert thumbnail.status == 200

    async def test_each_image_of_a_batch_is_a_query(self, api: Api) -> None:
        """A batch of three images is refused where two tokens are left."""
        pictures = [plain_jpeg((9, 90 * number, 9)) for number in range(3)]
        refused(
            await api.ask("POST", "/v1/search/batch", data=form_of(*pictures)), 429, "rate_limited"
        )
        assert api.embedder.embedded == []
