"""Decides when a request is sent, repeated and given up; it sends nothing itself.

`exchange` yields its steps to a client, which sends, waits, and returns the outcome: the blocking
and the asynchronous client share all decisions.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, TypeVar

import httpx
from pydantic import ValidationError

from simile_client.calls import Call
from simile_client.errors import ApiError, SimileError, UnexpectedAnswer, Unreachable
from simile_client.models import Problem
from simile_client.problems import BY_CODE

T = TypeVar("T")

_GATEWAY: Final = frozenset({502, 503, 504})
"""Statuses of a proxy whose server does not answer."""

_CONNECT_SECONDS: Final = 10.0
_MIN_SECONDS: Final = 0.001


@dataclass(frozen=True, slots=True)
class Retries:
    """Defines how often and when a request is repeated.

    Attributes:
        attempts: the number of times that a request is sent at most; 1 repeats nothing.
        base_seconds: the bound of the first random wait; it doubles with each attempt.
        max_seconds: the bound of every random wait.
        draw: returns a random number from 0 to 1.
    """

    attempts: int = 6
    base_seconds: float = 0.25
    max_seconds: float = 10.0
    draw: Callable[[], float] = random.random

    def delay(self, error: SimileError, attempt: int) -> float | None:
        """Return the wait before the next attempt; None where the error is final.

        Retry-After is obeyed, with a random part added so that callers do not return at once.
        """
        if isinstance(error, ApiError) and error.retry_after_seconds is not None:
            at_least = error.retry_after_seconds
        elif isinstance(error, Unreachable) and not isinstance(error.__cause__, httpx.InvalidURL):
            at_least = 0.0
        else:
            return None
        if attempt >= self.attempts:
            return None
        bound = min(self.max_seconds, self.base_seconds * 2.0 ** (attempt - 1))
        return at_least + self.draw() * bound


@dataclass(frozen=True, slots=True)
class Send:
    """A step: send the request, and return its response or the error of sending it."""

    left_seconds: float

    @property
    def headers(self) -> dict[str, str]:
        """The time that the caller still waits: the server does not start what would be late."""
        return {"Request-Timeout": f"{self.left_seconds:.3f}"}

    @property
    def timeout(self) -> httpx.Timeout:
        """The timeouts of this attempt."""
        return httpx.Timeout(self.left_seconds, connect=min(self.left_seconds, _CONNECT_SECONDS))


@dataclass(frozen=True, slots=True)
class Wait:
    """A step: wait."""

    seconds: float


Failed = httpx.RequestError | httpx.InvalidURL | UnexpectedAnswer | TimeoutError
"""The error of an attempt without a whole answer."""

Outcome = httpx.Response | Failed | None
"""The outcome of a step; None of a wait."""


def exchange(
    call: Call[T],
    retries: Retries,
    deadline_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Send | Wait, Outcome, T]:
    """Yield the steps of a call, and return its answer.

    Raises:
        ApiError: Simile answers with an error.
        Unreachable: no server answers, or not within the deadline.
        UnexpectedAnswer: the answer is none of Simile's.
    """
    give_up = clock() + deadline_seconds
    attempt = 0
    while True:
        attempt += 1
        outcome = yield Send(max(give_up - clock(), _MIN_SECONDS))
        try:
            return call.read(_successful(outcome, call.path))
        except SimileError as error:
            delay = retries.delay(error, attempt) if call.repeatable else None
            if delay is None or clock() + delay >= give_up:
                raise
        yield Wait(delay)


def _successful(outcome: Outcome, path: str) -> httpx.Response:
    """Return the response of a request that succeeded; raise the error of another outcome."""
    if isinstance(outcome, UnexpectedAnswer):
        raise outcome
    if isinstance(outcome, httpx.RequestError) and not isinstance(outcome, httpx.TransportError):
        message = f"the answer to {path} can't be read ({outcome}): check the address"
        raise UnexpectedAnswer(message) from outcome
    if not isinstance(outcome, httpx.Response):
        reason = str(outcome) or type(outcome).__name__
        message = f"no Simile answers to {path} ({reason}): is it running at this address?"
        raise Unreachable(message) from outcome
    if not outcome.is_success:
        raise _error_of(outcome)
    return outcome


def _error_of(outcome: httpx.Response) -> SimileError:
    try:
        problem = Problem.model_validate_json(outcome.content)
    except ValidationError:
        message = f"{outcome.url} answers {outcome.status_code}, and not as Simile does"
        kind = Unreachable if outcome.status_code in _GATEWAY else UnexpectedAnswer
        return kind(f"{message}: check the address")
    return BY_CODE.get(problem.code, ApiError)(problem, _retry_after(outcome))


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of Retry-After; a date, which Simile does not send, counts as none."""
    seconds = response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdecimal() else None
