"""Records of the quarantine are written, limited in size, and read again."""

from __future__ import annotations

import hashlib

import pytest

from services.shared.contracts import EmbedRequest, Slip
from services.shared.errors import ImageQuarantined, SimileError, UndecodableMessage
from services.shared.messaging import topology
from services.shared.messaging.broker import Delivery, Message
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.quarantine import HEAD_BYTES, MAX_KEPT_BYTES, Quarantine, Record
from services.shared.telemetry import logs
from tests.support import pictures

IMAGE = pictures.plain_jpeg((1, 2, 3))


async def _delivery(broker: MemoryBroker, message: Message) -> Delivery:
    await broker.start(topology.ALL)
    await broker.publish(topology.EMBED.name, message)
    consumer = await broker.consume(topology.EMBED, prefetch=1)
    (delivery,) = await consumer.take(1)
    await consumer.cancel()
    return delivery


def _request() -> Message:
    return Message.of(
        EmbedRequest(Slip(correlation_id="q", reply_to="a", final_reply_to="b"), IMAGE)
    )


async def _record(broker: MemoryBroker) -> Record:
    (kept,) = await (await broker.consume(topology.QUARANTINE, prefetch=1)).take(1)
    return Record.of(kept.headers)


async def test_a_record_says_what_is_known() -> None:
    """A record holds the reason, queue, replica and model, and describes the image's bytes."""
    broker = MemoryBroker()
    poison = await _delivery(broker, _request())
    quarantined = Quarantine(broker, replica="pod-1", model_id="net@1", keeps_messages=False)
    await quarantined.put(poison, topology.EMBED, ImageQuarantined("x" * 9999), deaths=3)
    record = await _record(broker)
    assert (record.reason, record.queue, record.deaths) == ("image_quarantined", "simile.embed", 3)
    assert (record.replica, record.model_id, record.correlation_id) == ("pod-1", "net@1", "q")
    assert (record.format, record.size_bytes) == ("JPEG", len(IMAGE))
    assert record.sha256 == hashlib.sha256(IMAGE).hexdigest()
    assert len(record.detail) == 500
    assert record.set_aside_unix_ms > 0
    assert Record.of(record.headers) == record


async def _put(broker: MemoryBroker, message: Message, error: SimileError) -> None:
    """Quarantine a message with its body."""
    poison = await _delivery(broker, message)
    await Quarantine(broker, replica="pod-1", keeps_messages=True).put(
        poison, topology.EMBED, error
    )
    poison.ack()


async def test_large_junk_leaves_the_other_records_where_they_are() -> None:
    """An undecodable message keeps its head, and a large message only its description."""
    broker = MemoryBroker()
    await _put(broker, _request(), ImageQuarantined("first"))
    junk = Message("a.Type", bytes(range(256)) * 400_000)
    for _ in range(3):
        await _put(broker, junk, UndecodableMessage("junk"))
    slip = Slip(correlation_id="large", reply_to="a", final_reply_to="b")
    large = Message.of(EmbedRequest(slip, bytes(MAX_KEPT_BYTES + 1)))
    await _put(broker, large, ImageQuarantined("large"))
    consumer = await broker.consume(topology.QUARANTINE, prefetch=0)
    kept = await consumer.take(10)
    assert [len(one.body) for one in kept] == [len(_request().body), *[HEAD_BYTES] * 3, 0]
    records = [Record.of(one.headers) for one in kept]
    assert [one.detail for one in records] == ["first", "junk", "junk", "junk", "large"]
    assert records[1].size_bytes == len(junk.body)
    assert records[1].sha256 == hashlib.sha256(junk.body).hexdigest()


async def test_a_flood_of_junk_does_not_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Undecodable messages share a log line, and images that killed embedders have one each."""
    logs.configure("info", "json")
    broker = MemoryBroker()
    quarantined = Quarantine(broker, replica="pod-1", keeps_messages=True)
    for error in [UndecodableMessage("junk")] * 50 + [ImageQuarantined("died")] * 3:
        poison = await _delivery(broker, _request())
        await quarantined.put(poison, topology.EMBED, error)
        poison.ack()
    lines = capsys.readouterr().out
    assert lines.count('"reason":"undecodable_message"') == 1
    assert lines.count('"reason":"image_quarantined"') == 3
    assert await broker.depth(topology.QUARANTINE.name) == 53


@pytest.mark.parametrize("value", ["9" * 5000, "9" * 19])
def test_a_number_that_is_too_long_has_its_default(value: str) -> None:
    """A foreign header does not keep an operator from listing the records."""
    assert Record.of({"deaths": value}).deaths == 0


def test_foreign_headers_make_a_record_all_the_same() -> None:
    """A foreign message can be listed and dropped."""
    record = Record.of({"deaths": "many", "size_bytes": "-1", "reason": "why", "other": "header"})
    assert record == Record(record_id="?", reason="why")


async def test_a_blocked_broker_is_tried_again_and_then_given_up() -> None:
    """A quarantined message does not stop the work after it: the log has the facts."""
    broker = MemoryBroker()
    poison = await _delivery(broker, _request())
    quarantined = Quarantine(broker, replica="pod-1", keeps_messages=True, retry_seconds=0.0)
    broker.block()
    await quarantined.put(poison, topology.EMBED, ImageQuarantined("died"))
    broker.unblock()
    assert await broker.depth(topology.QUARANTINE.name) == 0
    await quarantined.put(poison, topology.EMBED, ImageQuarantined("died"))
    assert (await _record(broker)).detail == "died"
