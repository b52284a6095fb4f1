"""The cursor of a page: which items were shown before it, of which version, for which question."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable
from typing import Final

import numpy as np

from services.searcher.scan import Positions
from services.shared.contracts import Question
from services.shared.errors import CursorExpired, MalformedRequest

MOST_SHOWN: Final = 1000
"""Paging ends after so many items."""

_HEAD_BYTES: Final = 8
_SEVEN_BITS: Final = 0x7F


def encode(version: str, question: Question, shown: Iterable[int]) -> str:
    """The cursor of the page after those items; url-safe text.

    It names the items rather than how many they are, so that no page repeats or skips one.
    """
    body, last = b"", 0
    for position in sorted(shown):
        body += _varint(position - last)
        last = position
    return base64.urlsafe_b64encode(_head(version, question) + body).rstrip(b"=").decode()


def decode(cursor: str, version: str, question: Question) -> Positions:
    """The items shown before.

    Raises CursorExpired when another version answers now, MalformedRequest for what `encode`
    didn't make for this question.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        shown = np.cumsum(_numbers(raw[_HEAD_BYTES:]))
    except (binascii.Error, ValueError, OverflowError) as error:
        message = "the cursor is none that an answer gave"
        raise MalformedRequest(message) from error
    expected = _head(version, question)
    if raw[:4] != expected[:4]:
        message = "the index changed since the page before; start again without a cursor"
        raise CursorExpired(message)
    if raw[4:_HEAD_BYTES] != expected[4:]:
        message = "the cursor belongs to another question; keep every other parameter the same"
        raise MalformedRequest(message)
    if len(shown) > MOST_SHOWN or (len(shown) and shown[-1] >= 2**40):
        message = "the cursor is none that an answer gave"
        raise MalformedRequest(message)
    return shown


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


def _numbers(raw: bytes) -> Positions:
    numbers, number, shift = list[int](), 0, 0
    for byte in raw:
        number |= (byte & _SEVEN_BITS) << shift
        shift += 7
        if byte <= _SEVEN_BITS:
            numbers.append(number)
            number, shift = 0, 0
    if shift:
        message = "it ends in the middle of a number"
        raise ValueError(message)
    return np.array(numbers, np.int64)
