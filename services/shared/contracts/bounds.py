"""Checks a message against its bounds before it costs memory.

Parsing protobuf can take 40 times the memory of the bytes, in objects for empty parts. Therefore
the size and the number of parts of a large body are checked first, without creating objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from services.shared import contracts
from services.shared.contracts import messages_pb2 as pb
from services.shared.errors import UndecodableMessage

_MAX_BODY_BYTES: Final[Mapping[str, int]] = {
    "simile.v1.EmbedRequest": 101 * 2**20,  # SIMILE_IMAGE_MAX_BYTES is at most 100 MiB
    "simile.v1.Embeddings": 16 * 2**20,
    "simile.v1.Replies": 16 * 2**20,
}
_SMALL_BYTES: Final = 256 * 2**10
"""A body of at most this size parses into at most 10 MiB, whatever it holds."""

_MAX_PARTS: Final = 256
_MAX_FACTS_BYTES: Final = 64 * 2**10
"""Bytes of an item's slip and stages, that is without its image, vector or neighbours."""

MAX_TEXT_BYTES: Final = 255
"""Bytes of a name: AMQP carries no longer name of a queue."""

_SHORT: Final = MAX_TEXT_BYTES // 4
"""A text of at most so many characters is within the bound, whatever the characters are."""

MAX_DETAIL_BYTES: Final = 4096
_MAX_FILTER_BYTES: Final = 4096
_MAX_FILTER_VALUES: Final = 100
_MAX_NEWER_BYTES: Final = 16 * 2**10
_MAX_STAGES: Final = 64
_MAX_DUPLICATES: Final = 1000
_FARTHEST: Final = 2.0
_BOX_SLACK: Final = 1e-5
"""A box computed in floating point may end that much after the image."""

_IMAGE, _VECTOR, _NEIGHBORS, _REPLY_VECTOR = 2, 2, 2, 5
_ITEMS: Final = {"simile.v1.Embeddings": 3, "simile.v1.Replies": 1}


def check_body(type_name: str, body: bytes) -> None:
    """Check a body's size and its number of parts.

    Raises:
        UndecodableMessage: a bound is exceeded; no service sends such a message.
    """
    limit = _MAX_BODY_BYTES.get(type_name, 0)
    require(len(body) <= limit, f"a {type_name} message has {len(body)} bytes, more than {limit}")
    if len(body) <= _SMALL_BYTES:
        return
    if type_name == "simile.v1.EmbedRequest":
        _check_facts(_parts(body, 0, len(body)), {_IMAGE})
        return
    item = _ITEMS[type_name]
    for number, start, end in _parts(body, 0, len(body)):
        if number == item and type_name == "simile.v1.Embeddings":
            _check_facts(_parts(body, start, end), {_VECTOR})
        elif number == item:
            inner = [*_parts(body, start, end)]
            _check_facts(inner, {_NEIGHBORS, _REPLY_VECTOR})
            for part, first, last in inner:
                if part == _NEIGHBORS:
                    _exhaust(_parts(body, first, last))


def check_slip(slip: contracts.Slip) -> None:
    """Check every text, list and number of a slip. Raises UndecodableMessage."""
    question = slip.question
    require(bool(slip.correlation_id), "a slip has no correlation id")
    require(bool(slip.reply_to and slip.final_reply_to), "a slip does not say where to reply")
    require(slip.deadline_unix_ms >= 0, "a slip has a negative deadline")
    if question.k > contracts.MAX_NEIGHBORS:
        message = f"a slip asks for {question.k} neighbours"
        raise UndecodableMessage(message)
    texts = {
        "correlation id": slip.correlation_id,
        "reply_to": slip.reply_to,
        "final_reply_to": slip.final_reply_to,
        "traceparent": slip.traceparent,
        "collection": question.collection,
        "excluded id": question.exclude,
    }
    if max(map(len, texts.values())) > _SHORT:
        for name, text in texts.items():
            check_text(name, text)
    require(len(question.cursor) <= contracts.MAX_CURSOR, "a slip has a cursor that is too long")
    for distance in (question.max_distance, question.collapse):
        valid = distance is None or 0.0 <= distance <= _FARTHEST
        require(valid, "a slip has a distance that is not within 0 to 2")
    if question.filter is not None:
        _check_filter(question.filter)
    if slip.box is not None:
        sides = (slip.box.left, slip.box.top, slip.box.width, slip.box.height)
        inside = all(0.0 <= side <= 1.0 + _BOX_SLACK for side in sides)
        require(inside, "a slip has a box that is not within 0 to 1")


def check_newer(newer: bytes) -> None:
    """Check the fields of a newer peer. Raises UndecodableMessage."""
    require(len(newer) <= _MAX_NEWER_BYTES, "a slip has too many fields of a newer release")


def check_stages(stages: contracts.Stages, count: int) -> None:
    """Check the stages of an item. Raises UndecodableMessage."""
    require(count <= _MAX_STAGES, f"an item has {count} stages")
    for stage in stages:
        check_text("stage", stage)
    if not math.isfinite(sum(stages.values())):
        message = "the seconds of a stage are not a number"
        raise UndecodableMessage(message)


def check_answer(found: pb.Neighbors) -> None:
    """Check an answer, before its neighbours are read. Raises UndecodableMessage."""
    count = len(found.neighbors)
    require(count <= contracts.MAX_NEIGHBORS, f"an answer has {count} neighbours")
    require(len(found.next_cursor) <= contracts.MAX_CURSOR, "an answer has a cursor too long")
    require(-1 <= found.close_above <= 1, "an answer has a close_above that is no similarity")
    for text in (found.collection, found.index_version, found.model_id):
        check_text("name of an answer", text)


def check_neighbors(neighbors: Iterable[contracts.Neighbor]) -> None:
    """Check the neighbours of an answer. Raises UndecodableMessage."""
    for neighbor in neighbors:
        if not math.isfinite(neighbor.distance + neighbor.similarity):
            message = "a distance is not a number"
            raise UndecodableMessage(message)
        if len(neighbor.duplicates) > _MAX_DUPLICATES:
            message = "a neighbour has too many duplicates"
            raise UndecodableMessage(message)


def check_text(name: str, text: str, limit: int = MAX_TEXT_BYTES) -> None:
    """Check the length of a text, in bytes of UTF-8. Raises UndecodableMessage."""
    # A character has at most four bytes: a short text need not be encoded.
    if 4 * len(text) > limit:
        size = len(text.encode())
        require(size <= limit, f"a {name} has {size} bytes, more than {limit}")


def truncate(text: str, limit: int = MAX_DETAIL_BYTES) -> str:
    """Return the beginning of a text, at most `limit` bytes of it."""
    return text if 4 * len(text) <= limit else text.encode()[:limit].decode(errors="ignore")


def require(condition: bool, message: str) -> None:  # noqa: FBT001 (the condition of an assertion)
    """Raise UndecodableMessage unless the condition holds."""
    if not condition:
        raise UndecodableMessage(message)


def _check_filter(wanted: contracts.Filter) -> None:
    texts = [*wanted.labels, *wanted.attributes]
    for values in wanted.attributes.values():
        texts += values
    require(len(texts) <= 2 * _MAX_FILTER_VALUES, f"a filter has {len(texts)} names and values")
    size = sum(len(text.encode()) for text in texts)
    require(size <= _MAX_FILTER_BYTES, f"a filter has {size} bytes")


_Part = tuple[int, int, int]
"""A field's number, and the offsets where its content starts and ends."""


def _check_facts(parts: Iterable[_Part], payloads: set[int]) -> None:
    size = sum(end - start for number, start, end in parts if number not in payloads)
    require(size <= _MAX_FACTS_BYTES, f"an item has {size} bytes beside its content")


def _exhaust(parts: Iterator[_Part]) -> None:
    for _ in parts:
        pass


def _parts(body: bytes, start: int, end: int) -> Iterator[_Part]:
    """Yield the fields between two offsets. Raises UndecodableMessage for too many fields."""
    for _ in range(_MAX_PARTS):
        if start == end:
            return
        tag, start = _varint(body, start, end)
        match tag & 7:
            case 0:
                after = _varint(body, start, end)[1]
            case 1:
                after = start + 8
            case 2:
                size, start = _varint(body, start, end)
                after = start + size
            case 5:
                after = start + 4
            case _:
                after = end + 1
        require(after <= end, "a message ends in the middle of a field")
        yield tag >> 3, start, after
        start = after
    require(start == end, f"a part of a message has more than {_MAX_PARTS} fields")


def _varint(body: bytes, start: int, end: int) -> tuple[int, int]:
    """Return a number and the offset after it."""
    number = 0
    for offset in range(start, min(start + 10, end)):
        byte = body[offset]
        number |= (byte & 0x7F) << 7 * (offset - start)
        if byte < 0x80:  # noqa: PLR2004 (the bit that marks a continuation)
            return number, offset + 1
    message = "a message ends in the middle of a number"
    raise UndecodableMessage(message)
