"""Sends canaries: queries whose answer is known, through the real queues and services.

A health check sees one process; only a query shows that callers get right answers.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.shared.contracts import AnyMessage, Neighbors, Question, Reply, Slip
from services.shared.errors import DeadlineExceeded, Internal, SimileError, WrongAnswer
from services.shared.messaging.broker import Message
from services.shared.messaging.request_reply import Answer, Inbox
from services.shared.telemetry.metrics import DURATION_BUCKETS

_log = structlog.get_logger(__name__)

_JITTER: Final = 0.2
_SOONER: Final = 0.2
"""The share of the period between canaries while they fail, to see a recovery soon."""

_FAILURES: Final = 3
_SUCCESSES: Final = 2
_SAME: Final = 0.1
"""The distance up to which another item is right too: near-duplicates exist, and bf16 rounds."""


class CanaryMetrics:
    """Defines the metrics of a service's canaries, which no other metric counts."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self.tried = Counter(
            f"simile_{service}_canary_total",
            "Canaries by kind of query (image or vector) and code (ok, or that of an error).",
            ["asked_by", "code"],
            registry=registry,
        )
        self.seconds = Histogram(
            f"simile_{service}_canary_seconds",
            "Time until the right answer to a canary.",
            ["asked_by"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.succeeded = Gauge(
            f"simile_{service}_canary_success_timestamp_seconds",
            "Unix time of the last right answer to a canary; 0 before the first.",
            registry=registry,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Describes a canary: an item whose own image or vector must find it, or one just like it.

    Attributes:
        asked_by: the kind of query.
        collection: the collection to search.
        item_id: the item that the answer must contain.
        queue: the queue of the request.
        reply_to: the queue of the next service.
        message: makes the request of its slip.
    """

    asked_by: Literal["image", "vector"]
    collection: str
    item_id: str
    queue: str
    reply_to: str
    message: Callable[[Slip], AnyMessage]


Choose = Callable[[], Awaitable[Known | None]]
"""Returns the next canary; None while there is nothing to search."""

Judge = Callable[[str], Awaitable[bool | None]]
"""Returns whether a code means that this replica works; None where it shows neither."""


class Hysteresis:
    """Fails after some failures in a row, and recovers after some successes in a row."""

    def __init__(self, *, failures: int, successes: int) -> None:
        self._failures = failures
        self._successes = successes
        self._against = 0
        self.failing = False

    def note(self, *, success: bool) -> None:
        """Count the result of one trial."""
        if success != self.failing:
            self._against = 0
            return
        self._against += 1
        if self._against >= (self._successes if self.failing else self._failures):
            self.failing, self._against = not self.failing, 0


class Canary:
    """Sends canaries, counts them, and fails readiness after several failures in a row."""

    def __init__(
        self,
        inbox: Inbox,
        metrics: CanaryMetrics,
        choose: Choose,
        judge: Judge,
        *,
        period_seconds: float,
        timeout_seconds: float,
    ) -> None:
        """Start ready.

        Args:
            inbox: where answers come to.
            metrics: of the canaries.
            choose: returns the next canary.
            judge: says what a code means for this replica.
            period_seconds: between two canaries.
            timeout_seconds: how long an answer may take.
        """
        self._inbox = inbox
        self._metrics = metrics
        self._choose = choose
        self._judge = judge
        self._period_seconds = period_seconds
        self._timeout_seconds = timeout_seconds
        self._verdict = Hysteresis(failures=_FAILURES, successes=_SUCCESSES)
        self._code = self._logged = "ok"
        self._well = True

    @property
    def unready(self) -> str | None:
        """The reason why this replica is not ready, as its canaries show; None while it is."""
        return f"canaries fail, at last with {self._code}" if self._verdict.failing else None

    async def run(self) -> None:
        """Send canaries until cancelled, at random intervals, so that replicas spread them."""
        while True:
            spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 (no secret)
            calm = self._well and not self._verdict.failing
            await asyncio.sleep(self._period_seconds * spread * (1 if calm else _SOONER))
            try:
                await self.ask()
            except Exception:  # noqa: BLE001 (a trial must not end what it tries)
                _log.exception("a canary failed", action=Internal.code)
                self._metrics.tried.labels("none", Internal.code).inc()

    async def ask(self) -> None:
        """Send a canary, and count its result."""
        known = await self._choose()
        if known is None or not self._inbox.ready:
            return
        started = time.perf_counter()
        error = await self._failure(known)
        code = "ok" if error is None else error.code
        self._metrics.tried.labels(known.asked_by, code).inc()
        if error is None:
            self._metrics.seconds.labels(known.asked_by).observe(time.perf_counter() - started)
            self._metrics.succeeded.set_to_current_time()
        self._log_change(known, code, error)
        well = await self._judge(code)
        self._well = well is not False
        if well is not None:
            self._verdict.note(success=well)

    async def _failure(self, known: Known) -> SimileError | None:
        slip = Slip(
            correlation_id=uuid.uuid4().hex,
            reply_to=known.reply_to,
            final_reply_to=self._inbox.queue,
            deadline_unix_ms=time.time_ns() // 1_000_000 + round(1000 * self._timeout_seconds),
            question=Question(collection=known.collection),
            canary=True,
        )
        message = Message.of(known.message(slip))
        try:
            arrival = await self._inbox.request(known.queue, slip, message, self._timeout_seconds)
            answer = arrival.result()
        except TimeoutError:
            return DeadlineExceeded(f"no answer within {self._timeout_seconds:g} s")
        except SimileError as error:
            return error
        return _fault(known, answer)

    def _log_change(self, known: Known, code: str, error: SimileError | None) -> None:
        """Log a changed result, not every canary; a single failure is not logged."""
        if code == self._logged or (error is not None and self._code == "ok"):
            self._code = code
            return
        self._code = self._logged = code
        facts = {"collection": known.collection, "item_id": known.item_id, "code": code}
        if error is None:
            _log.info("canaries are answered again", action="canary", **facts)
        else:
            _log.warning(f"a canary failed: {error}", action="canary", **facts)


def _fault(known: Known, answer: Answer) -> SimileError | None:
    if not isinstance(answer, Reply) or not isinstance(answer.outcome, Neighbors):
        return Internal("the answer is of the wrong kind")
    found = answer.outcome.neighbors
    nearest = found[0].distance if found else float("inf")
    if nearest <= _SAME or any(
        one.item_id == known.item_id and one.distance <= nearest + _SAME for one in found
    ):
        return None
    return WrongAnswer(
        f"index version {answer.outcome.index_version} of {known.collection} does not find item "
        f"{known.item_id} by its own {known.asked_by}"
    )
