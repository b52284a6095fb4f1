"""Where answers arrive: futures by correlation id, and the replica's own reply queue.

When the queue is lost every waiting future fails at once, and a fresh queue is opened.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from services.shared.contracts import (
    Embedding,
    Embeddings,
    Failure,
    Neighbors,
    Replies,
    Reply,
    codec,
)
from services.shared.errors import (
    BrokerUnavailable,
    ConsumerLost,
    ReplyQueueLost,
    SimileError,
    UndecodableMessage,
    from_code,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Delivery, Message
from services.shared.telemetry.log_limit import LogLimit

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector that came back as the answer itself; `dimension` float32 values of `model_id`."""

    model_id: str
    dimension: int
    embedding: Embedding


Answer = Reply | Embedded


@dataclass(frozen=True, slots=True)
class Arrival:
    """An answer, and when it came into this process by `time.perf_counter()`."""

    answer: Answer
    received: float

    @property
    def told(self) -> Reply | Embedding:
        """What says which stages the query took."""
        return self.answer.embedding if isinstance(self.answer, Embedded) else self.answer

    def unfailed(self) -> Answer:
        """The answer. Raises the named error that it is."""
        if isinstance(self.answer, Reply) and isinstance(self.answer.outcome, Failure):
            raise from_code(self.answer.outcome.code, self.answer.outcome.detail)
        return self.answer


class Inbox:
    """The futures that wait, and the queue they wait for; `run` is a supervised stage."""

    def __init__(
        self,
        broker: Broker,
        replica: str,
        *,
        on_late: Callable[[], None],
        on_undecodable: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_late` is called for each answer that nobody waits for any more.

        `on_undecodable` is called for each message that is dropped since it holds no answer.
        """
        self._broker = broker
        self._replica = replica
        self._on_late = on_late
        self._on_undecodable = on_undecodable
        self._drops = LogLimit()
        self._queue: str | None = None
        self._opened = asyncio.Event()
        self.once_open = False
        """Whether there has been a queue since the start."""
        self._waiting: dict[str, asyncio.Future[Arrival]] = {}

    @property
    def queue(self) -> str:
        """The reply queue's name now. Raises BrokerUnavailable when there is none."""
        if self._queue is None:
            raise _no_way_back()
        return self._queue

    @property
    def ready(self) -> bool:
        """Whether answers can arrive."""
        return self._queue is not None

    @property
    def pending(self) -> int:
        """How many futures wait."""
        return len(self._waiting)

    def expect(self, correlation_id: str) -> asyncio.Future[Arrival]:
        """A future for the answer; it fails with ReplyQueueLost when the queue is lost.

        Raises BrokerUnavailable when there is no queue. `forget` the id in the end, always.
        """
        if self._queue is None:
            raise _no_way_back()
        future: asyncio.Future[Arrival] = asyncio.get_running_loop().create_future()
        self._waiting[correlation_id] = future
        return future

    def forget(self, correlation_id: str) -> None:
        """Wait no more; an answer that comes later is counted as late."""
        self._waiting.pop(correlation_id, None)

    async def ask(
        self, queue: str, correlation_id: str, message: Message, timeout_seconds: float
    ) -> Answer:
        """Publish a message whose slip has that id, and wait for the answer.

        Raises what the publish raises, ReplyQueueLost, the named error that any stage answers
        with, or TimeoutError.
        """
        arrival = await self.asked(
            queue, correlation_id, message, timeout_seconds, on_sent=lambda: None
        )
        return arrival.unfailed()

    async def asked(
        self,
        queue: str,
        correlation_id: str,
        message: Message,
        timeout_seconds: float,
        *,
        on_sent: Callable[[], object],
    ) -> Arrival:
        """As `ask`, but a failure is an answer, too; on_sent: once it is published, or was not.

        Raises what the publish raises, ReplyQueueLost, or TimeoutError.
        """
        future = self.expect(correlation_id)
        try:
            async with asyncio.timeout(timeout_seconds):
                try:
                    await self._broker.publish(queue, message)
                finally:
                    on_sent()
                return await future
        finally:
            self.forget(correlation_id)
            # A queue lost after we gave up must not shout about an error nobody collects.
            future.cancel()

    async def hears_itself(self, timeout_seconds: float) -> bool:
        """Whether what it publishes to its own queue arrives: its half of the path works."""
        name = f"echo-{secrets.token_hex(8)}"
        echo = Replies((Reply(name, Neighbors("", "", "", ())),))
        try:
            await self.ask(self.queue, name, Message.of(echo), timeout_seconds)
        except (SimileError, TimeoutError):
            return False
        return True

    async def opened(self) -> None:
        """Wait until there is a queue."""
        await self._opened.wait()

    async def run(self) -> None:
        """Consume for ever, under a fresh queue after each loss."""
        while True:
            queue = topology.reply_queue(self._replica)
            consumer = await self._broker.consume(queue, prefetch=0, auto_ack=True)
            self._queue = consumer.queue
            self.once_open = True
            self._opened.set()
            try:
                while True:
                    for delivery in await consumer.take(_AT_ONCE):
                        self._receive(delivery)
            except ConsumerLost as error:
                _log.warning(str(error), action="reply_queue_lost", failed=len(self._waiting))
            finally:
                self._lose()
                await consumer.close()

    def _lose(self) -> None:
        self._queue = None
        self._opened.clear()
        for future in self._waiting.values():
            if not future.done():
                message = "the connection to the broker was lost while the query was on its way"
                future.set_exception(ReplyQueueLost(message))
        self._waiting.clear()

    def _receive(self, delivery: Delivery) -> None:
        try:
            message = codec.decode(delivery.type, delivery.body)
        except UndecodableMessage as error:
            self._drop(error)
            return
        match message:
            case Replies(items, refused):
                self._drop_refused(refused)
                for reply in items:
                    self._resolve(reply.correlation_id, reply, delivery.received)
            case Embeddings(model_id, dimension, items, refused):
                self._drop_refused(refused)
                for item in items:
                    embedded = Embedded(model_id, dimension, item)
                    self._resolve(item.slip.correlation_id, embedded, delivery.received)
            case _:
                self._drop(UndecodableMessage("a request came to a reply queue"))

    def _drop_refused(self, refused: Sequence[str]) -> None:
        for reason in refused:
            self._drop(UndecodableMessage(reason))

    def _drop(self, error: UndecodableMessage) -> None:
        """Count a message that is no answer; log some of them, lest they fill the log."""
        self._on_undecodable()
        if (left_out := self._drops.left_out()) is not None:
            _log.error(str(error), action=error.code, queue=self._queue, left_out=left_out)

    def _resolve(self, correlation_id: str, answer: Answer, received: float) -> None:
        future = self._waiting.pop(correlation_id, None)
        if future is None or future.done():
            self._on_late()
        else:
            future.set_result(Arrival(answer, received))


def _no_way_back() -> BrokerUnavailable:
    return BrokerUnavailable("there is no way back for an answer now: the broker is away")
