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

from services.shared.contracts import Embeddings, EmbedRequest, Failure, Replies, Slip, codec
from services.shared.errors import (
    DeadlineExceeded,
    NotReplayable,
    UndecodableMessage,
    UnknownRecord,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Consumer, Delivery, Message
from services.shared.messaging.quarantine import Record

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
    back = topology.reply_queue("quarantine")
    consumer = await broker.consume(back, prefetch=0, auto_ack=True)
    try:
        slip = Slip(
            correlation_id=f"replay-{held.record.record_id}",
            reply_to=back.name,
            final_reply_to=back.name,
            deadline_unix_ms=time.time_ns() // 1_000_000 + round(1000 * timeout_seconds),
            box=request.slip.box,
        )
        message = Message.of(EmbedRequest(slip, request.image))
        await broker.publish(held.record.queue, message)
        async with asyncio.timeout(timeout_seconds):
            outcome = await _outcome(consumer)
    except TimeoutError:
        reason = f"no embedder answered within {timeout_seconds:g} s; the record stays"
        raise DeadlineExceeded(reason) from None
    finally:
        await consumer.close()
    held.drop()
    return outcome


async def _outcome(consumer: Consumer) -> str | Failure:
    while True:
        for delivery in await consumer.take(1):
            match codec.decode(delivery.type, delivery.body):
                case Embeddings(model_id):
                    return model_id
                case Replies(items):
                    for reply in items:
                        if isinstance(reply.outcome, Failure):
                            return reply.outcome
                case _:
                    continue
