"""The decisions of simile_client about repeated requests, without a network or a wait."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from simile_client import (
    ApiError,
    AsyncSimile,
    Collections,
    Retries,
    Simile,
    UnexpectedAnswer,
    Unreachable,
    calls,
    problems,
)
from simile_client.exchange import Outcome, Send, Wait, exchange
from simile_client.images import Upload
from tests.support.clock import Clock
from tests.support.streams import Unseekable
from tests.unit.upload.conftest import OPENAPI

CALL = calls.collections()
EXAMPLE = OPENAPI["paths"]["/v1/collections"]["get"]["responses"]["200"]["content"]
ANSWER = EXAMPLE["application/json"]["example"]
REQUEST = httpx.Request("GET", "http://simile.test/v1/collections")
REFUSED = httpx.ConnectError("connection refused")


def _problem(code: str, retry_after: str | None = None) -> httpx.Response:
    status = f"Problem{503 if code == 'overloaded' else 400}"
    content = OPENAPI["components"]["responses"][status]["content"]["application/problem+json"]
    body = content["examples"][code]["value"]
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return httpx.Response(body["status"], json=body, headers=headers, request=REQUEST)


def _success() -> httpx.Response:
    return httpx.Response(200, json=ANSWER, request=REQUEST)


def _run(
    outcomes: list[Outcome], call: calls.Call[Collections] = CALL, deadline_seconds: float = 60
) -> tuple[Collections, list[float]]:
    """Return the answer to a call with these outcomes, and the waits before it."""
    clock, waits = Clock(), list[float]()
    steps = exchange(call, Retries(draw=lambda: 1.0), deadline_seconds, clock)
    left = iter(outcomes)
    outcome: Outcome = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as done:
            assert next(left, None) is None
            answer: Collections = done.value
            return answer, waits
        if isinstance(step, Wait):
            waits.append(step.seconds)
            clock.now += step.seconds
            outcome = None
        else:
            outcome = next(left)


def test_retry_after_is_obeyed_with_a_random_part() -> None:
    """The wait is never shorter; its random part doubles with each attempt."""
    answer, waits = _run([_problem("overloaded", "1"), _problem("overloaded", "3"), _success()])
    assert answer.default_collection == ANSWER["default_collection"]
    assert waits == [1 + 0.25, 3 + 0.5]


def test_lost_connections_and_silent_proxies_are_tried_again() -> None:
    """With random waits up to a bound that doubles."""
    gateway = httpx.Response(502, text="<html>", request=REQUEST)
    _, waits = _run([REFUSED, httpx.ReadError(""), gateway, _success()])
    assert waits == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (_problem("malformed_request"), problems.MalformedRequest),
        (_problem("overloaded"), problems.Overloaded),
        (httpx.Response(200, text="hello", request=REQUEST), UnexpectedAnswer),
        (httpx.Response(404, text="hello", request=REQUEST), UnexpectedAnswer),
        (httpx.Response(302, request=REQUEST), UnexpectedAnswer),
    ],
)
def test_what_a_retry_cannot_mend_is_raised_at_once(
    outcome: httpx.Response, error: type[Exception]
) -> None:
    """Errors without Retry-After, and answers of other servers."""
    with pytest.raises(error):
        _run([outcome])


def test_attempts_are_bounded() -> None:
    """The sixth failure is raised."""
    with pytest.raises(Unreachable, match="connection refused"):
        _run([REFUSED] * 6)


def test_no_wait_goes_beyond_the_deadline() -> None:
    """An error whose wait would end later is raised at once."""
    with pytest.raises(problems.Overloaded):
        _run([_problem("overloaded", "30")], deadline_seconds=30)


def test_each_attempt_sends_the_time_that_is_left() -> None:
    """The server does not start what would be late."""
    clock = Clock()
    steps = exchange(CALL, Retries(draw=lambda: 0.0), 10, clock)
    first = next(steps)
    clock.now += 2
    steps.send(_problem("overloaded", "3"))
    clock.now += 3
    second = steps.send(None)
    assert isinstance(first, Send)
    assert isinstance(second, Send)
    sent = [step.headers["Request-Timeout"] for step in (first, second)]
    assert sent == ["10.000", "5.000"]
    assert second.timeout.read == 5


def test_a_stream_that_was_read_is_not_sent_again() -> None:
    """The error of the only attempt is raised, although a retry could help."""
    call = calls.Call(CALL.path, CALL.read, uploads=[Upload.of(io.BufferedReader(Unseekable(b"")))])
    with pytest.raises(problems.Overloaded):
        _run([_problem("overloaded", "1")], call)


def test_newer_codes_and_fields_are_accepted() -> None:
    """An unknown code is an ApiError with that code; unknown fields are kept."""
    newer = httpx.Response(
        200, json={**ANSWER, "colour": "blue", "limits": {**ANSWER["limits"], "formats": ["JXL"]}}
    )
    answer, _ = _run([newer])
    assert answer.limits.formats == ["JXL"]
    assert answer.model_dump()["colour"] == "blue"
    body = {**_problem("overloaded").json(), "code": "too_blue"}
    with pytest.raises(ApiError) as seen:
        _run([httpx.Response(418, json=body, request=REQUEST)])
    assert seen.value.code == "too_blue"


@dataclass
class Server:
    """Refuses the first request, answers the second, and keeps both."""

    requests: list[tuple[httpx.Request, bytes]]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        self.requests.append((request, request.read()))
        return _problem("overloaded", "0") if len(self.requests) == 1 else _success()


AT_ONCE = Retries(draw=lambda: 0.0)


def _requests(server: Server) -> Iterator[httpx.Request]:
    return (request for request, _ in server.requests)


def test_the_blocking_client_sends_again() -> None:
    """With its key, below the path prefix of the address."""
    server = Server([])
    http = httpx.Client(transport=httpx.MockTransport(server))
    with Simile("https://simile.test/prefix/", api_key="key", retries=AT_ONCE, http=http) as simile:
        assert simile.collections().collections
    for request in _requests(server):
        assert request.url == "https://simile.test/prefix/v1/collections"
        assert request.headers["Authorization"] == "Bearer key"
    assert len(server.requests) == 2
    http.close()


async def test_the_asynchronous_client_sends_again() -> None:
    """As the blocking client."""
    server = Server([])
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(server)) as http,
        AsyncSimile("https://simile.test", retries=AT_ONCE, http=http) as simile,
    ):
        assert (await simile.collections()).collections
    assert len(server.requests) == 2


def test_a_file_is_sent_whole_again() -> None:
    """The second attempt has the bytes of the first, from the same position of the file."""
    server, file = Server([]), io.BytesIO(b"head" + bytes(100_000))
    file.seek(4)
    http = httpx.Client(transport=httpx.MockTransport(server))
    with Simile(retries=AT_ONCE, http=http) as simile, pytest.raises(UnexpectedAnswer):
        simile.embed(file)
    first, second = (body for _, body in server.requests)
    assert bytes(100_000) in first
    assert b"head" not in first
    assert len(first) == len(second)
    http.close()


@pytest.mark.parametrize("kind", [Simile, AsyncSimile])
def test_an_address_without_a_scheme_is_refused(kind: Callable[[str], object]) -> None:
    """The message has the address as it should be."""
    with pytest.raises(Unreachable, match="write http://localhost:8080"):
        kind("localhost:8080")


def test_a_file_in_text_mode_is_refused() -> None:
    """Before anything is sent."""
    with Simile() as simile, pytest.raises(TypeError, match="'rb'"):
        simile.search(io.StringIO("x"))  # type: ignore[arg-type]
