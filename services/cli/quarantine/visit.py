"""Reads the quarantine, and keeps, replays or drops its records.

During a visit every record is held; records that are not dropped return to their position.
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
_MAX_TAKEN: Final = 64
_ORIGINS: Final = {queue.name for queue in (topology.EMBED, topology.EMBED_BULK)}


@dataclass(frozen=True, slots=True)
class Held:
    """A record that is held, with its message."""

    record: Record
    delivery: Delivery

    @property
    def request(self) -> EmbedRequest | None:
        """The quarantined request; None where it was not kept, or is of another type."""
        try:
            message = codec.decode(self.delivery.type, self.delivery.body)
        except UndecodableMessage:
            return None
        return message if isinstance(message, EmbedRequest) else None

    def drop(self) -> None:
        """Drop the record."""
        self.delivery.ack()


@contextlib.asynccontextmanager
async def visit(broker: Broker) -> AsyncIterator[Sequence[Held]]:
    """Yield every record that no other visit holds, oldest first; the others return at the end."""
    count = await broker.depth(topology.QUARANTINE.name)
    consumer = await broker.consume(topology.QUARANTINE, prefetch=0)
    try:
        yield await _all(consumer, count)
    finally:
        await consumer.close()


async def _all(consumer: Consumer, count: int) -> Sequence[Held]:
    held: list[Held] = []
    with contextlib.suppress(TimeoutError):  # another visit holds some of the records
        async with asyncio.timeout(_LOOK_SECONDS):
            while len(held) < count:
                taken = await consumer.take(min(_MAX_TAKEN, count - len(held)))
                held += [Held(Record.of(delivery.headers), delivery) for delivery in taken]
    return held


def find(held: Sequence[Held], record_id: str) -> Held:
    """Return the record of that id. Raises UnknownRecord."""
    for one in held:
        if one.record.record_id == record_id:
            return one
    message = f"no record {record_id} in quarantine: `simile quarantine list` shows what there is"
    raise UnknownRecord(message)


async def replay(broker: Broker, held: Held, *, timeout_seconds: float) -> str | Failure:
    """Send the image to the embedders again, and drop the record once there is an answer.

    A failure that repeats makes a new record. After an exception the record stays.

    Returns:
        The id of the model that embedded the image, or the failure.

    Raises:
        NotReplayable: the record holds no image.
        DeadlineExceeded: there is no answer in time.
        SimileError: the message can't be published.
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
