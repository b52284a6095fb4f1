"""Content headers from RabbitMQ that aiormq can't read lose their properties."""

from __future__ import annotations

import datetime as dt
import struct

import pytest
from pamqp import commands as spec
from pamqp import frame as frames
from pamqp.header import ContentHeader

from services.shared.messaging.rabbitmq.transport import _Reader, drop_unreadable_properties

END = b"\xce"
START = struct.pack(">HHQ", 60, 0, 1234)
HEADERS, TIMESTAMP, TYPE = (struct.pack(">H", 1 << bit) for bit in (13, 6, 5))


def _table(entries: bytes) -> bytes:
    return struct.pack(">I", len(entries)) + entries


def _properties(payload: bytes) -> ContentHeader:
    header = ContentHeader()
    header.unmarshal(payload[:-1])
    return header


@pytest.mark.parametrize(
    "raw",
    [
        TIMESTAMP + b"\xff" * 8,
        TYPE + b"\x02\xff\xfe",
        HEADERS + _table(b"\x02\xff\xfeV"),
        HEADERS + _table(b"\x01k?"),
        HEADERS + _table(b"\x01kA" + _table(b"V" * 40_000)),
        HEADERS + b"\x00\x00",
    ],
    ids=["time", "type", "name", "kind", "voids", "short"],
)
def test_unreadable_properties_are_left_out(raw: bytes) -> None:
    """The frame keeps its length and the size of the body, so that later frames can be read."""
    frame = START + raw + END
    clean = drop_unreadable_properties(frame)
    assert len(clean) == len(frame)
    header = _properties(clean)
    assert header.body_size == 1234
    assert header.properties.message_type is None
    assert header.properties.headers is None


@pytest.mark.parametrize(
    "properties",
    [
        spec.Basic.Properties(
            message_type="simile.v1.Replies", delivery_mode=2, message_id="a" * 32
        ),
        spec.Basic.Properties(message_type="é", headers={"detail": "é" * 3000, "n": "1"}),
        spec.Basic.Properties(headers={"x-death": [{"count": 1, "time": dt.datetime.now(dt.UTC)}]}),
        spec.Basic.Properties(timestamp=dt.datetime.now(dt.UTC)),
        spec.Basic.Properties(),
    ],
    ids=["usual", "headers", "dead letter", "time", "none"],
)
def test_readable_properties_are_kept(properties: spec.Basic.Properties) -> None:
    """The frame passes unchanged."""
    frame = ContentHeader(body_size=5, properties=properties).marshal() + END
    assert drop_unreadable_properties(frame) == frame


@pytest.mark.parametrize("pieces", [(1, 6), (7,), (3, 4)], ids=str)
async def test_the_frames_around_it_are_read_unchanged(pieces: tuple[int, ...]) -> None:
    """The reader changes only the content header, however the frame's head is read."""
    header = ContentHeader(body_size=4, properties=spec.Basic.Properties(message_type="a.Type"))
    sound = [frames.marshal(one, 1) for one in (spec.Basic.GetEmpty(), header)]
    broken = struct.pack(">BHI", 2, 1, len(START) + 10) + START + TIMESTAMP + b"\xff" * 8 + END
    reader = _Reader(lambda: None)
    reader.feed_data(sound[0] + broken + sound[1] + sound[0])
    seen = []
    for size in (len(sound[0]), len(broken), len(sound[1]), len(sound[0])):
        parts = [*pieces, size - sum(pieces)]
        seen.append(b"".join([await reader.readexactly(part) for part in parts]))
    assert [seen[0], seen[2], seen[3]] == [sound[0], sound[1], sound[0]]
    assert seen[1] != broken
    assert frames.unmarshal(seen[1])[0] == len(broken)
