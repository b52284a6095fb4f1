"""Writes and reads the cursor of a list of items: the position that its next page begins at."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Final

from services.shared.contracts import Filter
from services.shared.errors import CursorExpired, MalformedRequest

_FORMAT: Final = struct.Struct(">IIq")
"""Checksums of the index version and of the filter, then the position."""


def encode(position: int, version: str, wanted: Filter) -> str:
    """Return the cursor of the page that begins at a position; URL-safe text."""
    raw = _FORMAT.pack(*_checksums(version, wanted), position)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(cursor: str, version: str, wanted: Filter) -> int:
    """Return the position that a page begins at; 0 without a cursor.

    A cursor is not signed: a forged one begins the page elsewhere, as any caller may.

    Raises:
        CursorExpired: the index changed since the page before.
        MalformedRequest: no answer with this filter gave the cursor.
    """
    if not cursor:
        return 0
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        of_version, of_filter, position = _FORMAT.unpack(raw)
    except (ValueError, struct.error) as error:
        message = "the cursor is not one that a list of items gave; start again without a cursor"
        raise MalformedRequest(message) from error
    expected = _checksums(version, wanted)
    if of_version != expected[0]:
        message = "the index changed since the page before; start again without a cursor"
        raise CursorExpired(message)
    if of_filter != expected[1]:
        message = "the cursor belongs to another filter; keep every other parameter the same"
        raise MalformedRequest(message)
    return max(0, int(position))


def _checksums(version: str, wanted: Filter) -> tuple[int, int]:
    asked = sorted(wanted.labels), sorted(wanted.attributes.items())
    return zlib.crc32(version.encode()), zlib.crc32(repr(asked).encode())
