"""Asks the other services and waits for the answer: slip, publish, await, forget. No HTTP here."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from services.shared.contracts import (
    Box,
    Embedding,
    Embeddings,
    EmbedRequest,
    Neighbors,
    Question,
    Reply,
    Slip,
)
from services.shared.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    ImageTooLarge,
    Internal,
    ModelMismatch,
    NoEmbedder,
    Overloaded,
    ShuttingDown,
    SimileError,
    Unsendable,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Message
from services.shared.messaging.inbox import Answer, Embedded, Inbox
from services.shared.telemetry.stopwatch import clock
from services.upload.admission import Admission
from services.upload.embedding_memory import EmbeddingMemory, Vector
from services.upload.timeline import Timeline
from services.upload.workers import Workers

_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query by its name: what is asked of which collection, by which part of an image.

    give_up_at: when its caller waits no more, on the monotonic clock. timeline: gets what the
    query's way takes.
    """

    query_id: str
    traceparent: str = ""
    question: Question = field(default_factory=Question)
    box: Box | None = None
    give_up_at: float | None = None
    timeline: Timeline = field(default_factory=Timeline)


@dataclass(frozen=True, slots=True)
class Found:
    """The neighbours that answer a query, and its vector where that came along."""

    neighbors: Neighbors
    vector: Vector | None = None


class SearchClient:
    """The front's side of a query's walk."""

    def __init__(
        self,
        broker: Broker,
        inbox: Inbox,
        embeddings: EmbeddingMemory,
        workers: Workers,
        *,
        deadline_seconds: float,
        max_in_flight: int,
        on_expired: Callable[[], None] = lambda: None,
        on_admission: Callable[[str], None] = lambda _: None,
    ) -> None:
        """on_expired is called for each query whose caller gave up before it was sent on.

        on_admission gets the code of each refusal, and ok for each query let in.
        """
        self._on_expired = on_expired
        self._on_admission = on_admission
        self._broker = broker
        self._inbox = inbox
        self._embeddings = embeddings
        self._workers = workers
        self._deadline_seconds = deadline_seconds
        self._admission = Admission(max_in_flight=max_in_flight, deadline_seconds=deadline_seconds)
        self.leaving = False
        """Whether the replica is about to end: it still answers, once on each connection."""
        self.draining = False
        """Whether it takes no new query."""

    @property
    def in_flight(self) -> int:
        """Queries being answered now."""
        return self._admission.in_flight

    @property
    def in_flight_limit(self) -> int:
        """How many may be, for all of them to be answered in time."""
        return self._admission.limit

    @contextlib.contextmanager
    def admitted(self, give_up_at: float | None = None, *, begun: bool = False) -> Iterator[None]:
        """Around a whole query, its body's arrival included.

        give_up_at: when its caller waits no more. begun: it is of a request that was let in.
        Raises ShuttingDown, BrokerUnavailable or Overloaded: at once, so that refusing is cheap.
        """
        patience = math.inf if give_up_at is None else give_up_at - time.monotonic()
        with contextlib.ExitStack() as place:
            try:
                self._require_open(begun=begun)
                place.enter_context(self._admission.admitted(patience))
            except SimileError as refusal:
                self._on_admission(refusal.code)
                raise
            self._on_admission("ok")
            yield

    def _require_open(self, *, begun: bool) -> None:
        if self.draining and not begun:
            message = "this replica is stopping; another one will answer"
            raise ShuttingDown(message)
        if not (self._broker.ready and self._inbox.ready):
            message = "the message broker is away or blocked; try again soon"
            raise BrokerUnavailable(message)

    def left_seconds(self, give_up_at: float | None) -> float:
        """How long an answer may take from now. Raises DeadlineExceeded when nobody waits."""
        if give_up_at is None:
            return self._deadline_seconds
        left = give_up_at - time.monotonic()
        if left <= 0:
            self._on_expired()
            message = "the Request-Timeout was over before the query could be sent on"
            raise DeadlineExceeded(message)
        return min(left, self._deadline_seconds)

    async def search(self, query: Query, image: bytes) -> Found:
        """The neighbours of an image. Raises the named error that any stage answers with."""
        if not self._embeddings.on:
            return await self._search(query, image)
        key = await self._embeddings.key(image, query.box)
        vector = self._embeddings.get(key)
        query.timeline.lap("sniff")
        if vector is not None:
            try:
                return await self.similar(query, vector)
            except ModelMismatch:
                self._embeddings.drop(key)
        found = await self._search(query, image)
        if found.vector is not None:
            self._embeddings.put(key, found.vector)
        return found

    async def _search(self, query: Query, image: bytes) -> Found:
        def request(slip: Slip) -> Message:
            return Message.of(EmbedRequest(slip, image))

        with self._admission.paced():
            answer = await self._ask(
                query, topology.EMBED.name, topology.SEARCH.name, request,
                return_vector=self._embeddings.on,
            )  # fmt: skip
        return _found(answer)

    async def similar(self, query: Query, vector: Vector) -> Found:
        """The neighbours of a vector that is known already: no embedder needed."""

        def request(slip: Slip) -> Message:
            item = Embedding(slip, vector.raw)
            return Message.of(Embeddings(vector.model_id, vector.dimension, (item,)))

        answer = await self._ask(query, topology.SEARCH.name, self._inbox.queue, request)
        return _found(answer)

    async def embed(self, query: Query, image: bytes) -> Embedded:
        """An image's vector."""

        def request(slip: Slip) -> Message:
            return Message.of(EmbedRequest(slip, image))

        with self._admission.paced():
            answer = await self._ask(query, topology.EMBED.name, self._inbox.queue, request)
        if not isinstance(answer, Embedded):
            raise _unexpected(answer)
        return answer

    async def _ask(
        self,
        query: Query,
        queue: str,
        reply_to: str,
        request: Callable[[Slip], Message],
        *,
        return_vector: bool = False,
    ) -> Answer:
        timeout = self.left_seconds(query.give_up_at)
        slip = Slip(
            correlation_id=query.query_id,
            reply_to=reply_to,
            final_reply_to=self._inbox.queue,
            deadline_unix_ms=time.time_ns() // 1_000_000 + round(1000 * timeout),
            traceparent=query.traceparent,
            question=query.question,
            box=query.box,
            return_vector=return_vector,
        )
        message = request(slip)
        await self._require_workers(queue, reply_to, message)
        try:
            arrival = await self._inbox.asked(
                queue,
                query.query_id,
                message,
                timeout,
                on_sent=lambda: query.timeline.lap("publish"),
            )
            told = arrival.told
            query.timeline.away(arrival.received, told.stages, told.batch_images)
            return arrival.unfailed()
        except Overloaded as error:
            raise self._admission.overloaded(str(error)) from error
        except Unsendable as error:
            raise ImageTooLarge(str(error)) from error
        except TimeoutError:
            query.timeline.away(clock(), {}, 0)
            self._workers.require(queue)
            self._workers.require(reply_to)
            # A caller's own, shorter patience says nothing about the pace.
            if timeout == self._deadline_seconds:
                self._admission.too_late()
            late = f"no answer within {timeout:.3g} s; try again, or add embedders"
            raise self._admission.later(DeadlineExceeded(late)) from None

    async def _require_workers(self, queue: str, reply_to: str, message: Message) -> None:
        """Raises NoEmbedder or NoSearcher when nobody would take the query."""
        try:
            self._workers.require(queue)
        except NoEmbedder:
            await self._workers.wake(queue, message)
            raise
        self._workers.require(reply_to)


def new_query_id() -> str:
    """A name for a query that no other query has; no secret."""
    # Not uuid4: the system's random numbers cost a system call, and a wait for other threads.
    return f"{random.getrandbits(128):032x}"


def _found(answer: Answer) -> Found:
    if not isinstance(answer, Reply) or not isinstance(answer.outcome, Neighbors):
        raise _unexpected(answer)
    if not answer.vector:
        return Found(answer.outcome)
    dimension = len(answer.vector) // _FLOAT_BYTES
    return Found(answer.outcome, Vector(answer.outcome.model_id, dimension, answer.vector))


def _unexpected(answer: Answer) -> Internal:
    return Internal(f"the answer is a {type(answer).__name__} of another kind than was asked for")
