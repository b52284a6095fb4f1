"""Sends the searcher's replies to the waiting replicas, and counts the outcome of each query."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import structlog

from services.searcher.answerer import VectorQuery
from services.searcher.metrics import SearcherMetrics
from services.shared.contracts import MAX_ITEMS, Failure, Replies, Reply
from services.shared.errors import Internal, Overloaded, Unroutable, Unsendable
from services.shared.messaging.broker import Broker, Message
from services.shared.telemetry.tracing import Tracer, sampled, trace_id
from services.shared.telemetry.watchdog import Watchdog

_log = structlog.get_logger(__name__)

Answered = Sequence[tuple[VectorQuery, Reply]]


class ReplySender:
    """Publishes replies: for each waiting replica messages of at most MAX_ITEMS replies."""

    def __init__(
        self, broker: Broker, metrics: SearcherMetrics, tracer: Tracer, watchdog: Watchdog
    ) -> None:
        """Create the sender; `watchdog` watches each publish."""
        self._broker = broker
        self._metrics = metrics
        self._tracer = tracer
        self._watchdog = watchdog

    async def send(self, queries: Sequence[VectorQuery], replies: Sequence[Reply]) -> None:
        """Send every reply. Raises BrokerUnavailable when the broker accepts none."""
        for queue, answered in _by_reply_queue(queries, replies).items():
            for start in range(0, len(answered), MAX_ITEMS):
                await self._send(queue, answered[start : start + MAX_ITEMS])

    async def _send(self, queue: str, answered: Answered) -> None:
        for message, some in _encoded(answered):
            try:
                with self._watchdog.work():
                    await self._broker.publish(queue, message)
            except (Unroutable, Overloaded, Unsendable) as error:
                # The waiting replica has ended, and its callers with it.
                self._metrics.unanswerable.inc(len(some))
                _log.info(str(error), action="unanswerable", queue=queue)
            for query, _ in some:
                query.watch.lap("publish")
                if not query.item.slip.canary:
                    self._account(query)

    def _account(self, query: VectorQuery) -> None:
        """Count a query by its code and its time, and record its span where it is traced."""
        slip = query.item.slip
        traced = sampled(slip.traceparent)
        self._metrics.count(query.code, query.watch, trace_id(slip.traceparent) if traced else "")
        if traced:
            facts = {
                "simile.code": query.code,
                "simile.correlation_id": slip.correlation_id,
                "simile.collection": slip.question.collection,
            }
            self._tracer.record("search", query.watch, slip.traceparent, facts)


def _encoded(answered: Answered) -> Iterator[tuple[Message, Answered]]:
    """Encode the replies together; where that fails each alone, so that only the bad one fails."""
    try:
        message = Message.of(Replies(tuple(reply for _, reply in answered)))
    except Exception:  # noqa: BLE001 (one reply must not fail the others of its message)
        if len(answered) > 1:
            for pair in answered:
                yield from _encoded([pair])
            return
        message = _unencodable(*answered[0])
    yield message, answered


def _unencodable(query: VectorQuery, reply: Reply) -> Message:
    _log.exception("a reply can't be encoded", action=Internal.code, query=reply.correlation_id)
    query.code = Internal.code
    failure = Failure(Internal.code, "the answer can't be sent; the log says why")
    return Message.of(Replies((Reply(reply.correlation_id, failure),)))


def _by_reply_queue(
    queries: Sequence[VectorQuery], replies: Sequence[Reply]
) -> Mapping[str, list[tuple[VectorQuery, Reply]]]:
    grouped: dict[str, list[tuple[VectorQuery, Reply]]] = defaultdict(list)
    for query, reply in zip(queries, replies, strict=True):
        grouped[query.item.slip.final_reply_to].append((query, reply))
    return grouped
