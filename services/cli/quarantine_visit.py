"""A look into the quarantine, and what can be done with a record: keep, try again, drop.

While somebody looks every record is held; what is not taken out goes back to its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from services.shared.contracts import EmbedRequest, Failure, Slip, codec
from services.shared.errors import (
    DeadlineExceeded,
    Internal,
    NotReplayable,
    UndecodableMessage,
    UnknownRecord,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Consumer, Delivery, Message
from services.shared.messaging.quarantine import Record
from services.shared.messaging.request_reply import Answer, Embedded, open_inbox

_LOOK_SECONDS: Final = 5.0
_AT_ONCE: Final = 64
_ORIGINS: Final = {queue.name for queue in (topology.EMBED, topology.EMBED_BULK)}


@dataclass(frozen=True, slots=True)
class Held:
    """One record in the hand, with its message."""

    record: Record
    delivery: Delivery

    @property
    def request(self) -> EmbedRequest | None:
        """The request that was set aside; None where it was not kept, or was none."""
        try:
            message = codec.decode(self.delivery.type, self.delivery.body)
        except UndecodableMessage:
            return None
        return message if isinstance(message, EmbedRequest) else None

    def drop(self) -> None:
        """Forget the record."""
        self.delivery.ack()


@contextlib.asynccontextmanager
async def visit(broker: Broker) -> AsyncIterator[Sequence[Held]]:
    """Every record that nobody else holds, oldest first; those not dropped go back at the end."""
    count = await broker.depth(topology.QUARANTINE.name)
    consumer = await broker.consume(topology.QUARANTINE, prefetch=0)
    try:
        yield await _all(consumer, count)
    finally:
        await consumer.close()


async def _all(consumer: Consumer, count: int) -> Sequence[Held]:
    held: list[Held] = []
    with contextlib.suppress(TimeoutError):  # somebody else was quicker
        async with asyncio.timeout(_LOOK_SECONDS):
            while len(held) < count:
                taken = await consumer.take(min(_AT_ONCE, count - len(held)))
                held += [Held(Record.of(delivery.headers), delivery) for delivery in taken]
    return held


def find(held: Sequence[Held], record_id: str) -> Held:
    """The record of that id. Raises UnknownRecord."""
    for one in held:
        if one.record.record_id == record_id:
            return one
    message = f"no record {record_id} in quarantine: `simile quarantine list` shows what there is"
    raise UnknownRecord(message)


async def replay(broker: Broker, held: Held, *, timeout_seconds: float) -> str | Failure:
    """Let an embedder try the image again: the id of the model that embedded it, or the failure.

    Once it is answered the record is dropped: what breaks something again makes a new one. Raises
    NotReplayable, DeadlineExceeded, or what publishing raises; then the record stays.
    """
    request = held.request
    if request is None or held.record.queue not in _ORIGINS:
        reason = (
            f"record {held.record.record_id} holds no image; those to come do where "
            "SIMILE_EMBEDDER_QUARANTINE_IMAGES is true"
        )
        raise NotReplayable(reason)
    async with open_inbox(broker, "quarantine") as inbox:
        slip = Slip(
            correlation_id=f"replay-{held.record.record_id}",
            reply_to=inbox.queue,
            final_reply_to=inbox.queue,
            deadline_unix_ms=time.time_ns() // 1_000_000 + round(1000 * timeout_seconds),
            box=request.slip.box,
        )
        message = Message.of(EmbedRequest(slip, request.image))
        try:
            arrival = await inbox.request(held.record.queue, slip, message, timeout_seconds)
        except TimeoutError:
            reason = f"no embedder answered within {timeout_seconds:g} s; the record stays"
            raise DeadlineExceeded(reason) from None
    held.drop()
    return _outcome(arrival.answer)


def _outcome(answer: Answer) -> str | Failure:
    if isinstance(answer, Embedded):
        return answer.model_id
    if isinstance(answer.outcome, Failure):
        return answer.outcome
    return Failure(Internal.code, "the embedder answered with neighbours instead of a vector")
