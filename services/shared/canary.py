"""A query whose answer is known, asked now and then through the real path, queues and all.

A health check sees one process; whether a person would get the right answer only a query tells.
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
"""Of the period, while something is wrong: then it is wanted soon whether it still is."""

_FAILURES: Final = 3
_SUCCESSES: Final = 2
_SAME: Final = 0.1
"""As near is as good as the item itself: near-duplicates exist, and so does bf16."""


class CanaryMetrics:
    """What a service tells of its canaries, which are counted nowhere else."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self.tried = Counter(
            f"simile_{service}_canary_total",
            "Canaries, by what they asked by (image or vector) and code: ok, or an error's.",
            ["asked_by", "code"],
            registry=registry,
        )
        self.seconds = Histogram(
            f"simile_{service}_canary_seconds",
            "Time to the right answer of a canary.",
            ["asked_by"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.succeeded = Gauge(
            f"simile_{service}_canary_success_timestamp_seconds",
            "When a canary was answered rightly last, in Unix time; 0: never.",
            registry=registry,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An item, and how to ask by it: its own image or vector must find it, or one just like it.

    asked_by: image | vector. queue and reply_to: the queues that it takes. message makes the body
    of its slip.
    """

    asked_by: Literal["image", "vector"]
    collection: str
    item_id: str
    queue: str
    reply_to: str
    message: Callable[[Slip], AnyMessage]


Choose = Callable[[], Awaitable[Known | None]]
"""What to ask next; None while there is nothing to search."""

Judge = Callable[[str], Awaitable[bool | None]]
"""What a code says of this replica: well, not well, or (None) nothing."""


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
    """Asks, counts, and remembers for readiness what a few in a row said; `run` is a stage."""

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
        """timeout_seconds: how long an answer may take."""
        self._inbox = inbox
        self._metrics = metrics
        self._choose = choose
        self._judge = judge
        self._period_seconds = period_seconds
        self._timeout_seconds = timeout_seconds
        self._verdict = Hysteresis(failures=_FAILURES, successes=_SUCCESSES)
        self._code = self._told = "ok"
        self._well = True

    @property
    def unready(self) -> str | None:
        """Why this replica can't do its job, as far as canaries tell."""
        return f"canaries fail, at last with {self._code}" if self._verdict.failing else None

    async def run(self) -> None:
        """Ask for ever, replicas not all at once."""
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
        """One canary."""
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
        self._tell(known, code, error)
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

    def _tell(self, known: Known, code: str, error: SimileError | None) -> None:
        """One log line when it becomes another matter, not one a canary; one failure is no news."""
        if code == self._told or (error is not None and self._code == "ok"):
            self._code = code
            return
        self._code = self._told = code
        facts = {"collection": known.collection, "item_id": known.item_id, "code": code}
        if error is None:
            _log.info("canaries are answered again", action="canary", **facts)
        else:
            _log.warning(f"a canary failed: {error}", action="canary", **facts)


def _fault(known: Known, answer: Answer) -> SimileError | None:
    if not isinstance(answer, Reply) or not isinstance(answer.outcome, Neighbors):
        return Internal("the answer is of another kind than was asked for")
    found = answer.outcome.neighbors
    nearest = found[0].distance if found else float("inf")
    if nearest <= _SAME or any(
        one.item_id == known.item_id and one.distance <= nearest + _SAME for one in found
    ):
        return None
    return WrongAnswer(
        f"asked by the {known.asked_by} of item {known.item_id}, "
        f"{answer.outcome.index_version} of {known.collection} answers with others"
    )
