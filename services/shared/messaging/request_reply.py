"""Sends requests and receives their answers on a reply queue of this replica's own.

When the queue is lost every pending request fails immediately, and a fresh queue is opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from services.shared import lifecycle
from services.shared.contracts import (
    Embedding,
    Embeddings,
    Failure,
    Neighbors,
    Replies,
    Reply,
    Slip,
)
from services.shared.errors import BrokerUnavailable, ReplyQueueLost, SimileError, from_code
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Message, Queue
from services.shared.messaging.subscription import BadMessages, Subscription

_log = structlog.get_logger(__name__)

_MAX_TAKEN: Final = 64


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector that is the answer itself: `dimension` float32 values of model `model_id`."""

    model_id: str
    dimension: int
    embedding: Embedding


Answer = Reply | Embedded


@dataclass(frozen=True, slots=True)
class Arrival:
    """An answer, and when this process received it, by `time.perf_counter()`."""

    answer: Answer
    received: float

    @property
    def reply(self) -> Reply | Embedding:
        """The part of the answer that holds the seconds of the query's stages."""
        return self.answer.embedding if isinstance(self.answer, Embedded) else self.answer

    def result(self) -> Answer:
        """Return the answer; where it is a failure, raise the error that it names."""
        if isinstance(self.answer, Reply) and isinstance(self.answer.outcome, Failure):
            raise from_code(self.answer.outcome.code, self.answer.outcome.detail)
        return self.answer


def _ignore() -> None:
    """Do nothing."""


class Inbox:
    """The pending requests of a replica, and its reply queue; `run` is a supervised stage.

    Attributes:
        once_open: whether there has been a reply queue since the start.
    """

    def __init__(
        self,
        broker: Broker,
        replica: str,
        *,
        on_late: Callable[[], object] = _ignore,
        on_undecodable: Callable[[], object] = _ignore,
    ) -> None:
        """Create an inbox that receives once `run` runs.

        Args:
            broker: publishes the requests and holds the reply queue.
            replica: the name of this process, part of the queue's name.
            on_late: is called for each answer whose request is no longer pending.
            on_undecodable: is called for each message that holds an unreadable answer.
        """
        self._broker = broker
        self._subscription = Subscription[Replies | Embeddings](
            broker,
            lambda: topology.reply_queue(replica),
            (Replies, Embeddings),
            BadMessages(on_undecodable),
            on_change=self._change,
        )
        self._on_late = on_late
        self._queue: str | None = None
        self._opened = asyncio.Event()
        self.once_open = False
        self._pending: dict[str, asyncio.Future[Arrival]] = {}

    @property
    def queue(self) -> str:
        """The reply queue's present name. Raises BrokerUnavailable when there is none."""
        if self._queue is None:
            raise _no_reply_queue()
        return self._queue

    @property
    def ready(self) -> bool:
        """True if answers can arrive."""
        return self._queue is not None

    @property
    def pending(self) -> int:
        """How many requests are pending."""
        return len(self._pending)

    def stalled(self) -> str | None:
        """Return why there is no reply queue although the broker is ready, or None."""
        return self._subscription.stalled() and "no reply queue"

    def expect(self, correlation_id: str) -> asyncio.Future[Arrival]:
        """Return a future for the answer; call `forget` with the same id in the end, always.

        The future fails with ReplyQueueLost when the queue is lost.

        Raises:
            BrokerUnavailable: there is no reply queue.
        """
        if self._queue is None:
            raise _no_reply_queue()
        future: asyncio.Future[Arrival] = asyncio.get_running_loop().create_future()
        self._pending[correlation_id] = future
        return future

    def forget(self, correlation_id: str) -> None:
        """Make a request no longer pending; an answer that comes later counts as late."""
        self._pending.pop(correlation_id, None)

    async def request(
        self,
        queue: str,
        slip: Slip,
        message: Message,
        timeout_seconds: float,
        *,
        on_sent: Callable[[], object] = _ignore,
    ) -> Arrival:
        """Publish a message and wait for its answer, which may be a failure: see `result`.

        Args:
            queue: the queue to publish to.
            slip: the routing slip of the message, which names this inbox's queue.
            message: the encoded message.
            timeout_seconds: how long publishing and answering may take together.
            on_sent: is called once the message is published, or could not be.

        Raises:
            ReplyQueueLost: the reply queue is lost, and the answer with it.
            TimeoutError: there is no answer in time.
            SimileError: any error that `Broker.publish` raises.
        """
        future = self.expect(slip.correlation_id)
        try:
            async with asyncio.timeout(timeout_seconds):
                try:
                    await self._broker.publish(queue, message)
                finally:
                    on_sent()
                return await future
        finally:
            self.forget(slip.correlation_id)
            # asyncio logs the error of a future that nothing awaits, as after a timeout.
            future.cancel()

    async def loopback_ok(self, timeout_seconds: float) -> bool:
        """Check that a message which this inbox publishes to its own queue arrives."""
        if self._queue is None:
            return False
        slip = Slip(
            correlation_id=f"loopback-{secrets.token_hex(8)}",
            reply_to=self._queue,
            final_reply_to=self._queue,
        )
        reply = Reply(slip.correlation_id, Neighbors("", "", "", ()))
        try:
            await self.request(self._queue, slip, Message.of(Replies((reply,))), timeout_seconds)
        except (SimileError, TimeoutError):
            return False
        return True

    async def opened(self) -> None:
        """Wait until there is a reply queue."""
        await self._opened.wait()

    async def run(self) -> None:
        """Receive answers until cancelled, on a fresh queue after each loss."""
        try:
            while received := await self._subscription.take(_MAX_TAKEN):
                for delivery, message in received:
                    self._receive(message, delivery.received)
        finally:
            self._change(None)
            await self._subscription.close()

    def _change(self, queue: Queue | None) -> None:
        """Note the reply queue that is open, or fail all pending requests with the lost one."""
        self._queue = None if queue is None else queue.name
        if queue is not None:
            self.once_open = True
            self._opened.set()
            return
        self._opened.clear()
        if self._pending:
            _log.warning(
                "pending requests fail: their reply queue is lost",
                action=ReplyQueueLost.code,
                failed=len(self._pending),
            )
        for future in self._pending.values():
            if not future.done():
                message = "the connection to the broker was lost while the query was in flight"
                future.set_exception(ReplyQueueLost(message))
        self._pending.clear()

    def _receive(self, message: Replies | Embeddings, received: float) -> None:
        if isinstance(message, Replies):
            for reply in message.items:
                self._resolve(reply.correlation_id, Arrival(reply, received))
            return
        for item in message.items:
            embedded = Embedded(message.model_id, message.dimension, item)
            self._resolve(item.slip.correlation_id, Arrival(embedded, received))

    def _resolve(self, correlation_id: str, arrival: Arrival) -> None:
        future = self._pending.pop(correlation_id, None)
        if future is None or future.done():
            self._on_late()
        else:
            future.set_result(arrival)


@contextlib.asynccontextmanager
async def open_inbox(broker: Broker, replica: str) -> AsyncIterator[Inbox]:
    """Run an inbox inside the context; it has a reply queue when the context begins."""
    inbox = Inbox(broker, replica)
    running = asyncio.create_task(inbox.run(), name="inbox")
    try:
        await inbox.opened()
        yield inbox
    finally:
        await lifecycle.cancel(running)


def _no_reply_queue() -> BrokerUnavailable:
    return BrokerUnavailable(
        "there is no reply queue now: the broker is unavailable; try again soon"
    )
