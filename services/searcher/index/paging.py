"""Encodes and decodes the cursor of a page: the items shown before, the version, the question."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from typing import Final

import numpy as np

from services.searcher.index.scan import Positions
from services.shared.contracts import MAX_CURSOR, Question
from services.shared.errors import CursorExpired, MalformedRequest

MAX_SHOWN: Final = 1000
"""The maximum of items that can be reached by paging."""

_HEAD_BYTES: Final = 8
_SEVEN_BITS: Final = 0x7F


def encode(version: str, question: Question, shown: Iterable[int]) -> str:
    """Return the cursor of the page after those items; URL-safe text.

    The cursor lists the items instead of a number, so that no page repeats or skips an item.
    """
    body, last = b"", 0
    for position in sorted(set(shown)):
        body += _varint(position - last)
        last = position
    return _text(_head(version, question) + body)


def decode(cursor: str, version: str, question: Question, count: int) -> Positions:
    """Return the items shown before: ascending positions below `count`, none of them twice.

    A cursor is not signed. A valid cursor names at most MAX_SHOWN items of this version, and
    costs no more than an issued one. A forger can only hide items from the own answer.

    Args:
        cursor: from an earlier answer.
        version: the index version of this answer.
        question: the question of this request.
        count: the number of items in the version.

    Raises:
        CursorExpired: the cursor is of another version.
        MalformedRequest: `encode` can't have made the cursor for this question.
    """
    try:
        raw = _raw(cursor)
        shown = _positions(raw[_HEAD_BYTES:], count)
    except ValueError as error:
        message = f"the cursor is not one that an answer gave: {error}"
        raise MalformedRequest(message) from error
    expected = _head(version, question)
    if raw[:4] != expected[:4]:
        message = "the index changed since the page before; start again without a cursor"
        raise CursorExpired(message)
    if raw[4:_HEAD_BYTES] != expected[4:]:
        message = "the cursor belongs to another question; keep every other parameter the same"
        raise MalformedRequest(message)
    return np.array(shown, np.int64)


def _head(version: str, question: Question) -> bytes:
    asked = question.filter
    parts = (
        question.collection, question.max_distance, question.collapse, question.exclude,
        None if asked is None else (sorted(asked.labels), sorted(asked.attributes.items())),
    )  # fmt: skip
    return b"".join(zlib.crc32(repr(part).encode()).to_bytes(4, "big") for part in (version, parts))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > _SEVEN_BITS:
        out.append(0x80 | number & _SEVEN_BITS)
        number >>= 7
    out.append(number)
    return bytes(out)


def _raw(cursor: str) -> bytes:
    """Decode the text. Raises ValueError for text that `encode` would not write."""
    _require(len(cursor) <= MAX_CURSOR, "it is too long")
    raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    # Python's decoder skips characters outside base64, and ignores bits after the end.
    _require(_text(raw) == cursor.rstrip("="), "it is not base64")
    return raw


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _positions(raw: bytes, count: int) -> list[int]:
    """Add up the steps as Python integers, which can't overflow."""
    positions, number, shift = list[int](), 0, 0
    for byte in raw:
        number |= (byte & _SEVEN_BITS) << shift
        shift += 7
        _require(number < count, "it names an item that does not exist")
        if byte <= _SEVEN_BITS:
            _require(byte > 0 or shift == 7, "it holds a number in a longer form")  # noqa: PLR2004
            _require(number > 0 or not positions, "it names an item twice")
            positions.append(number + positions[-1] if positions else number)
            number, shift = 0, 0
    _require(not shift, "it ends in the middle of a number")
    _require(not positions or positions[-1] < count, "it names an item that does not exist")
    _require(len(positions) <= MAX_SHOWN, "it names too many items")
    return positions


def _require(condition: bool, fault: str) -> None:  # noqa: FBT001 (an assertion's condition)
    if not condition:
        raise ValueError(fault)
