"""The same image in other bytes: no two are alike, and every one decodes to the same pixels."""

from __future__ import annotations

import struct
from typing import Final

_JPEG: Final = b"\xff\xd8"
_COMMENT: Final = b"\xff\xfe"
_NUMBER: Final = struct.Struct(">Q")


def varied(image: bytes, number: int) -> bytes:
    """A JPEG gets a comment with the number; any other format has it behind its end."""
    counted = _NUMBER.pack(number)
    if image.startswith(_JPEG):
        length = struct.pack(">H", 2 + len(counted))
        return b"".join((_JPEG, _COMMENT, length, counted, image[2:]))
    return image + counted
