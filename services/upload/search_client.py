"""Asks the other services and waits for the answer: slip, publish, await, forget. No HTTP here."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from services.shared.contracts import (
    Embedding,
    Embeddings,
    EmbedRequest,
    Failure,
    Neighbors,
    Reply,
    Slip,
    Stages,
)
from services.shared.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    Internal,
    Overloaded,
    ShuttingDown,
    from_code,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Message
from services.shared.messaging.inbox import Answer, Embedded, Inbox
from services.upload.query import Question


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds by stage, and in all; what no stage accounts for is messaging."""

    stages: Stages
    total_seconds: float

    def seconds(self) -> Mapping[str, float]:
        """Every stage, messaging, and the total."""
        messaging = max(0.0, self.total_seconds - sum(self.stages.values()))
        return {**self.stages, "messaging": messaging, "total": self.total_seconds}


@dataclass(frozen=True, slots=True)
class Found:
    """The neighbours that answer a query."""

    neighbors: Neighbors
    timed: Timed


@dataclass(frozen=True, slots=True)
class Vector:
    """One vector to search by, float32 little-endian bytes of `dimension` values."""

    model_id: str
    dimension: int
    raw: bytes


class SearchClient:
    """The front's side of a query's walk."""

    def __init__(
        self, broker: Broker, inbox: Inbox, *, deadline_seconds: float, max_in_flight: int
    ) -> None:
        self._broker = broker
        self._inbox = inbox
        self._deadline_seconds = deadline_seconds
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self.draining = False

    @property
    def in_flight(self) -> int:
        """Queries being answered now."""
        return self._in_flight

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Around a whole query, its body's arrival included.

        Raises ShuttingDown, BrokerUnavailable or Overloaded: at once, so that refusing is cheap.
        """
        if self.draining:
            message = "this replica is stopping; another one will answer"
            raise ShuttingDown(message)
        if not (self._broker.ready and self._inbox.ready):
            message = "the message broker is away or blocked; try again soon"
            raise BrokerUnavailable(message)
        if self._in_flight >= self._max_in_flight:
            message = f"{self._max_in_flight} queries are on their way already; try again soon"
            raise Overloaded(message)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def search(
        self, query_id: str, image: bytes, question: Question, traceparent: str
    ) -> Found:
        """The neighbours of an image. Raises the named error that any stage answers with."""
        started = time.perf_counter()

        def request(slip: Slip) -> Message:
            return Message.of(EmbedRequest(slip, image))

        answer = await self._ask(
            query_id, topology.EMBED.name, topology.SEARCH.name, question, traceparent, request
        )
        return _found(answer, started)

    async def similar(
        self, query_id: str, vector: Vector, question: Question, traceparent: str
    ) -> Found:
        """The neighbours of a vector that is known already: no embedder needed."""
        started = time.perf_counter()

        def request(slip: Slip) -> Message:
            item = Embedding(slip, vector.raw)
            return Message.of(Embeddings(vector.model_id, vector.dimension, (item,)))

        answer = await self._ask(
            query_id, topology.SEARCH.name, self._inbox.queue, question, traceparent, request
        )
        return _found(answer, started)

    async def embed(self, query_id: str, image: bytes, traceparent: str) -> tuple[Embedded, Timed]:
        """An image's vector."""
        started = time.perf_counter()

        def request(slip: Slip) -> Message:
            return Message.of(EmbedRequest(slip, image))

        answer = await self._ask(
            query_id, topology.EMBED.name, self._inbox.queue, Question(), traceparent, request
        )
        if not isinstance(answer, Embedded):
            raise _unexpected(answer)
        return answer, Timed(answer.embedding.stages, time.perf_counter() - started)

    async def _ask(
        self,
        query_id: str,
        queue: str,
        reply_to: str,
        question: Question,
        traceparent: str,
        request: Callable[[Slip], Message],
    ) -> Answer:
        slip = Slip(
            correlation_id=query_id,
            reply_to=reply_to,
            final_reply_to=self._inbox.queue,
            deadline_unix_ms=time.time_ns() // 1_000_000 + round(1000 * self._deadline_seconds),
            traceparent=traceparent,
            collection=question.collection or "",
            k=question.k,
            max_distance=question.max_distance,
        )
        future = self._inbox.expect(query_id)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await self._broker.publish(queue, request(slip))
                answer = await future
        except TimeoutError:
            message = f"no answer within {self._deadline_seconds:g} s; try again, or add embedders"
            raise DeadlineExceeded(message) from None
        finally:
            self._inbox.forget(query_id)
            # A queue lost after we gave up must not shout about an error nobody collects.
            future.cancel()
        if isinstance(answer, Reply) and isinstance(answer.outcome, Failure):
            raise from_code(answer.outcome.code, answer.outcome.detail)
        return answer


def new_query_id() -> str:
    """A name for a query that no other query has."""
    return uuid.uuid4().hex


def _found(answer: Answer, started: float) -> Found:
    if not isinstance(answer, Reply) or not isinstance(answer.outcome, Neighbors):
        raise _unexpected(answer)
    return Found(answer.outcome, Timed(answer.stages, time.perf_counter() - started))


def _unexpected(answer: Answer) -> Internal:
    return Internal(f"the answer is a {type(answer).__name__} of another kind than was asked for")
