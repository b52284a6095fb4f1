"""Removes the text of a PNG before it is read: the text is not used, and Pillow limits it."""

from __future__ import annotations

import struct
import zlib
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_PROFILE: Final = b"iCCP"
_LOOKED_AT: Final = _TEXTS | {_PROFILE}
_WITH_TURN: Final = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Keywords of texts that may have the orientation."""

_MAX_UNPACKED: Final = 2**20
"""The maximum size of a text in Pillow."""

_MAX_CHUNKS: Final = 200_000
"""A file with more chunks is refused later."""

_HEAD: Final = struct.Struct(">L4s")
_FRAME_BYTES: Final = 12
"""The bytes of a chunk's length, name and checksum."""


def without_text(image: bytes) -> bytes:
    """Return the PNG without its texts and without a colour profile that is too large.

    The first colour profile stays, and the first text of each keyword that may have an orientation,
    if it is small: at most three are unpacked. Bytes that are not a PNG, or
    are broken, are returned unchanged: the decoder reports the fault.
    """
    if not image.startswith(SIGNATURE):
        return image
    kept, start, place = list[memoryview](), 0, len(SIGNATURE)
    wanted = {*_WITH_TURN, _PROFILE}
    view = memoryview(image)
    for _ in range(_MAX_CHUNKS):
        if place + _FRAME_BYTES > len(image):
            break
        length, name = _HEAD.unpack_from(image, place)
        end = place + _FRAME_BYTES + length
        if name in _LOOKED_AT and _is_dropped(name, image[place + 8 : end - 4], wanted):
            kept.append(view[start:place])
            start = end
        place = end
    return b"".join([*kept, view[start:]]) if kept else image


def _is_dropped(name: bytes, body: bytes, wanted: set[bytes]) -> bool:
    if name == _PROFILE:
        if name not in wanted:
            return True
        wanted.discard(name)
        return not _unpacks(body[body.find(b"\0") + 2 :])
    keyword = next((one for one in _WITH_TURN if body.startswith(one)), b"")
    if keyword not in wanted:
        return True
    wanted.discard(keyword)
    return len(body) > _MAX_UNPACKED or not _is_small(name, body[len(keyword) :])


def _is_small(name: bytes, rest: bytes) -> bool:
    """Return whether the data after a text's keyword unpacks to a small size."""
    if name == b"zTXt":
        return _unpacks(rest[1:])
    if name == b"iTXt" and rest[:1] != b"\0":
        return _unpacks(rest[2:].split(b"\0", 2)[-1])
    return True


def _unpacks(packed: bytes) -> bool:
    """Return whether the bytes unpack to less than Pillow's limit; unpack no more than that."""
    try:
        return len(zlib.decompressobj().decompress(packed, _MAX_UNPACKED)) < _MAX_UNPACKED
    except zlib.error:
        return False
