"""What is written of a culprit, and read again."""

from __future__ import annotations

import hashlib

import pytest

from services.shared.contracts import EmbedRequest, Slip
from services.shared.errors import ImageQuarantined
from services.shared.messaging import quarantine, topology
from services.shared.messaging.broker import Delivery, Message
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.quarantine import Quarantine, Record
from tests.support import pictures

IMAGE = pictures.plain_jpeg((1, 2, 3))


async def _delivery(broker: MemoryBroker, message: Message) -> Delivery:
    await broker.start(topology.ALL)
    await broker.publish(topology.EMBED.name, message)
    (delivery,) = await (await broker.consume(topology.EMBED, prefetch=1)).take(1)
    return delivery


def _request() -> Message:
    return Message.of(
        EmbedRequest(Slip(correlation_id="q", reply_to="a", final_reply_to="b"), IMAGE)
    )


async def _record(broker: MemoryBroker) -> Record:
    (kept,) = await (await broker.consume(topology.QUARANTINE, prefetch=1)).take(1)
    return Record.of(kept.headers)


async def test_a_record_says_what_is_known() -> None:
    """Why, where, when, by whom, and what the image is by its bytes."""
    broker = MemoryBroker()
    culprit = await _delivery(broker, _request())
    aside = Quarantine(broker, replica="pod-1", model_id="net@1", keeps_messages=False)
    await aside.put(culprit, topology.EMBED, ImageQuarantined("x" * 9999), deaths=3)
    record = await _record(broker)
    assert (record.reason, record.queue, record.deaths) == ("image_quarantined", "simile.embed", 3)
    assert (record.replica, record.model_id, record.correlation_id) == ("pod-1", "net@1", "q")
    assert (record.format, record.size_bytes) == ("JPEG", len(IMAGE))
    assert record.sha256 == hashlib.sha256(IMAGE).hexdigest()
    assert len(record.detail) == 500
    assert record.set_aside_unix_ms > 0
    assert Record.of(record.headers) == record


def test_foreign_headers_make_a_record_all_the_same() -> None:
    """Whatever somebody published there can be listed, and dropped."""
    record = Record.of({"deaths": "many", "size_bytes": "-1", "reason": "why", "other": "header"})
    assert record == Record(record_id="?", reason="why")


async def test_a_blocked_broker_is_tried_again_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A culprit must not stop the work that comes after it: the log has the facts."""
    monkeypatch.setattr(quarantine, "_RETRY_SECONDS", 0.0)
    broker = MemoryBroker()
    culprit = await _delivery(broker, _request())
    aside = Quarantine(broker, replica="pod-1", keeps_messages=True)
    broker.block()
    await aside.put(culprit, topology.EMBED, ImageQuarantined("died"))
    broker.unblock()
    assert await broker.depth(topology.QUARANTINE.name) == 0
    await aside.put(culprit, topology.EMBED, ImageQuarantined("died"))
    assert (await _record(broker)).detail == "died"
