"""Sends queries to the other services and waits for their answers; independent of HTTP."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Final

from services.shared.contracts import Embedding, Embeddings, EmbedRequest, Slip
from services.shared.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    ImageTooLarge,
    ModelMismatch,
    NoEmbedder,
    Overloaded,
    ShuttingDown,
    Unsendable,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Message
from services.shared.messaging.request_reply import Answer, Embedded, Inbox
from services.shared.telemetry.stopwatch import clock
from services.upload.metrics import UploadMetrics
from services.upload.search.admission import Admission
from services.upload.search.admission_control import AdmissionControl
from services.upload.search.deadlines import patience
from services.upload.search.embedding_cache import EmbeddingCache, Vector
from services.upload.search.queries import Found, QueryLimits, SearchQuery, found_in, unexpected
from services.upload.search.reservations import Reservation
from services.upload.search.workers import Workers

_SLOW_SHARE: Final = 0.8
"""The share of the deadline after which a failed query shows how slow answers are."""

Prepare = Callable[[bytes], Awaitable[bytes]]
"""Converts an image to the bytes that are sent to an embedder."""


class SearchClient:
    """Sends queries to embedders and searchers, within the limits of admission.

    Attributes:
        admission: the slots of the queries.
        deadline_seconds: how long a query may take, unless its caller waits for less.
    """

    def __init__(
        self,
        broker: Broker,
        inbox: Inbox,
        embeddings: EmbeddingCache,
        workers: Workers,
        limits: QueryLimits,
        metrics: UploadMetrics,
    ) -> None:
        """Create a client without queries.

        Args:
            broker: carries requests to the other services.
            inbox: receives their answers.
            embeddings: caches the vectors of recent images.
            workers: knows which services have consumers.
            limits: of the queries of this replica.
            metrics: the metrics of upload.
        """
        self._on_expired = metrics.expired.labels(before="publish").inc
        self._broker = broker
        self._inbox = inbox
        self._embeddings = embeddings
        self._workers = workers
        self.deadline_seconds = limits.deadline_seconds
        self.admission = AdmissionControl(
            limits, require_open=self._require_open, on_admission=metrics.count_admission
        )
        self.leaving = False
        """True while the replica stops: it still answers, once per connection."""
        self.draining = False
        """True while new queries are refused."""

    @property
    def in_flight(self) -> int:
        """The queries being answered now."""
        return self.admission.embedding.in_flight + self.admission.searching.in_flight

    @contextlib.contextmanager
    def reserve(
        self, caller: str, deadline: float | None = None, *, may_be_known: bool = False
    ) -> Iterator[Reservation]:
        """Reserve a slot while a query's image arrives; only the request's headers are known.

        Args:
            caller: the API key or the address of the sender.
            deadline: when the caller stops waiting, on the monotonic clock; None for never.
            may_be_known: the image's vector may be cached.

        Raises Overloaded if no slot is free, or as `require_open`.
        """
        known = may_be_known and self._embeddings.held_bytes > 0
        with self.admission.reserve(caller, patience(deadline), may_be_known=known) as reservation:
            yield reservation

    async def admit_batch(self, batch: str, deadline: float | None) -> None:
        """Wait until a batch may send images. Raises Overloaded, or as `require_open`."""
        await self.admission.admit_batch(batch, self.left_seconds(deadline))

    def require_open(self) -> None:
        """Raise ShuttingDown or BrokerUnavailable if no query can be sent now."""
        self._require_open(begun=False)

    def _require_open(self, begun: bool) -> None:  # noqa: FBT001 (whether the request was let in)
        if self.draining and not begun:
            message = "this replica is stopping; another one will answer"
            raise ShuttingDown(message)
        if not (self._broker.ready and self._inbox.ready):
            message = "the message broker is unavailable or blocked; try again soon"
            raise BrokerUnavailable(message)

    def left_seconds(self, deadline: float | None) -> float:
        """Return the seconds left for an answer. Raises DeadlineExceeded if none are."""
        left = patience(deadline)
        if left <= 0:
            self._on_expired()
            message = "the deadline passed before the query could be sent to another service"
            raise DeadlineExceeded(message)
        return min(left, self.deadline_seconds)

    async def search(
        self,
        query: SearchQuery,
        image: bytes,
        reservation: Reservation | None = None,
        prepare: Prepare | None = None,
    ) -> Found:
        """Find the neighbours of an image.

        A cached vector needs no embedder. Where the index has another model than that vector, the
        image is embedded again, in the next free slot.

        Args:
            query: the query.
            image: its bytes.
            reservation: the slot reserved for the query; without one the query waits for a slot.
            prepare: converts the image for sending; called when the query has its slot.

        Raises:
            Overloaded: no slot became free in time, or a queue is full.
            NoEmbedder, NoSearcher: a queue has had no consumer for seconds.
            BrokerUnavailable: the broker is unavailable; ReplyQueueLost: it was lost meanwhile.
            DeadlineExceeded: there is no answer in time.
            SimileError: another failure, mostly one that a service answered with.
        """
        reservation = reservation or Reservation()
        if not self._embeddings.on:
            return await self._search(query, image, reservation, prepare)
        key = await self._embeddings.key(image, query.box)
        vector = self._embeddings.get(key)
        query.timeline.lap("sniff")
        if vector is not None:
            self.admission.embedding.release(reservation)
            try:
                return await self.similar(query, vector, reservation.batch)
            except ModelMismatch:
                self._embeddings.drop(key)
        found = await self._search(query, image, reservation, prepare)
        if found.vector is not None:
            self._embeddings.put(key, found.vector)
        return found

    async def _search(
        self, query: SearchQuery, image: bytes, reservation: Reservation, prepare: Prepare | None
    ) -> Found:
        async with self._admitted(query, reservation) as admitted:
            sent = image if prepare is None else await prepare(image)

            def request(slip: Slip) -> Message:
                return Message.of(EmbedRequest(slip, sent))

            with self.admission.embedding.measure():
                answer = await self._ask(
                    self.admission.embedding, admitted, topology.EMBED.name, topology.SEARCH.name,
                    request, return_vector=self._embeddings.on,
                )  # fmt: skip
        return found_in(answer)

    async def similar(self, query: SearchQuery, vector: Vector, batch: str = "") -> Found:
        """Find the neighbours of a vector, without an embedder. Raises as `search`.

        batch: the batch that the query is part of, if any.
        """

        def request(slip: Slip) -> Message:
            item = Embedding(slip, vector.raw)
            return Message.of(Embeddings(vector.model_id, vector.dimension, (item,)))

        async with self.admission.admit_search(batch, patience(query.deadline)):
            answer = await self._ask(
                self.admission.searching, query, topology.SEARCH.name, self._inbox.queue, request
            )
        return found_in(answer)

    async def embed(
        self, query: SearchQuery, image: bytes, reservation: Reservation | None = None
    ) -> Embedded:
        """Return an image's vector from an embedder. Arguments and errors are those of `search`."""

        def request(slip: Slip) -> Message:
            return Message.of(EmbedRequest(slip, image))

        async with self._admitted(query, reservation or Reservation()) as admitted:
            with self.admission.embedding.measure():
                answer = await self._ask(
                    self.admission.embedding, admitted, topology.EMBED.name, self._inbox.queue,
                    request,
                )  # fmt: skip
        if not isinstance(answer, Embedded):
            raise unexpected(answer)
        return answer

    @contextlib.asynccontextmanager
    async def _admitted(
        self, query: SearchQuery, reservation: Reservation
    ) -> AsyncIterator[SearchQuery]:
        """Take a slot for a query that needs an embedder; yield the query with its deadline.

        The deadline includes the wait for the slot; an image of a batch may wait for longer.
        """
        left = self.left_seconds(query.deadline)
        if reservation.batch:
            async with self.admission.admit_embedding(reservation, patience(query.deadline)):
                yield query
            return
        deadline = time.monotonic() + left
        async with self.admission.admit_embedding(reservation, left):
            yield replace(query, deadline=deadline)

    async def _ask(
        self,
        admission: Admission,
        query: SearchQuery,
        queue: str,
        reply_to: str,
        request: Callable[[Slip], Message],
        *,
        return_vector: bool = False,
    ) -> Answer:
        """Send a query that has a slot, and wait for its answer. Raises as `search`.

        Args:
            admission: the slots of such queries; gives the retry time, and notes a missed deadline.
            query: the query; its deadline bounds the wait.
            queue: the queue of the first service.
            reply_to: the queue for the vectors of that service.
            request: makes the message from the slip.
            return_vector: the answer includes the query's vector.
        """
        timeout = self.left_seconds(query.deadline)
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
            arrival = await self._inbox.request(
                queue, slip, message, timeout, on_sent=lambda: query.timeline.lap("publish")
            )
            reply = arrival.reply
            query.timeline.add_remote_stages(arrival.received, reply.stages, reply.batch_images)
            return arrival.result()
        except Overloaded as error:
            raise admission.overloaded(str(error)) from error
        except Unsendable as error:
            raise ImageTooLarge(str(error)) from error
        except TimeoutError:
            query.timeline.add_remote_stages(clock(), {}, 0)
            await self._workers.require(queue)
            await self._workers.require(reply_to)
            # A caller's own, shorter deadline shows nothing about the pace.
            if timeout >= _SLOW_SHARE * self.deadline_seconds:
                admission.too_late()
            late = f"no answer within {timeout:.3g} s; try again, or add embedders"
            raise admission.later(DeadlineExceeded(late)) from None

    async def _require_workers(self, queue: str, reply_to: str, message: Message) -> None:
        """Raise NoEmbedder or NoSearcher if no service would take the query."""
        try:
            await self._workers.require(queue)
        except NoEmbedder:
            await self._workers.wake(queue, message)
            raise
        await self._workers.require(reply_to)
