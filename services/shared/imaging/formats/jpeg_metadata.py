"""Removes unused metadata from a JPEG before Pillow opens it.

Pillow keeps every segment, and joins all EXIF segments: thousands of them take minutes. Only the
first EXIF and XMP segments and a colour profile stay; other segments stay within small bounds.
Bounds also apply to tables and frame headers, which Pillow reads in Python.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from services.shared.errors import UndecodableImage
from services.shared.imaging.formats import jpeg

_MARK: Final = b"\xff"
_FILL: Final = 0xFF
_COMMENT: Final = 0xFE
_TABLES: Final = 0xDB
_APPLICATIONS: Final = range(0xE0, 0xF0)
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH: Final = frozenset({0x00, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
"""Padding, restarts and other markers that Pillow skips without a length."""

_MAX_SEGMENTS: Final = 50_000
"""Pillow reads each in four calls, and `image_cost` limits the calls."""

_MAX_TABLE_BYTES: Final = 2**16
_MAX_FRAME_BYTES: Final = 2**10


class _Bound(NamedTuple):
    """The maximum of segments of a kind, and of their bytes together."""

    segments: int
    size: int


_OTHER: Final = b""
_BOUNDS: Final = {
    b"Exif\0\0": _Bound(1, 2**16 + 2),
    b"http://ns.adobe.com/xap/1.0/\0": _Bound(1, 2**16 + 2),
    b"ICC_PROFILE\0": _Bound(255, 2**20),
    # Pillow creates a number for each value there; real segments have some 100 bytes.
    b"MPF\0": _Bound(1, 2**10),
    _OTHER: _Bound(64, 2**20),
}
"""Bounds by the start of the segment."""


class _Segment(NamedTuple):
    marker: int
    start: int
    end: int


def without_metadata(image: bytes) -> bytes:
    """Return the JPEG without segments beyond the bounds; unchanged if there are none.

    Raises:
        UndecodableImage: there are more segments, tables or frame headers than in any valid file.
    """
    if not image.startswith(jpeg.START):
        return image
    left, kept, start = dict(_BOUNDS), list[memoryview](), 0
    view, tables, frames = memoryview(image), 0, 0
    for segment in _segments(image):
        if segment.marker == _TABLES:
            tables += segment.end - segment.start
        elif segment.marker in _FRAMES:
            frames += 1
            _check_frame(segment, frames)
        elif _is_metadata(segment) and not _stays(image, segment, left):
            kept.append(view[start : segment.start])
            start = segment.end
    if tables > _MAX_TABLE_BYTES:
        message = f"the JPEG has {tables} bytes of tables; {_MAX_TABLE_BYTES} are accepted"
        raise UndecodableImage(message)
    return b"".join([*kept, view[start:]]) if kept else image


def _segments(image: bytes) -> Iterator[_Segment]:
    """Yield the segments before the first scan as Pillow finds them: other bytes are skipped."""
    place = 2
    for _ in range(_MAX_SEGMENTS):
        place = image.find(_MARK, place)
        if place < 0 or place + 4 > len(image):
            return
        marker = image[place + 1]
        if marker == _FILL:
            place += 1
        elif marker in _WITHOUT_LENGTH:
            place += 2
        elif marker == jpeg.SCAN_START[1]:
            return
        else:
            length = max(2, struct.unpack_from(">H", image, place + 2)[0])
            end = place + 2 + length
            yield _Segment(marker, place, min(end, len(image)))
            place = end
    message = f"the JPEG has more than {_MAX_SEGMENTS} pieces"
    raise UndecodableImage(message)


def _check_frame(segment: _Segment, count: int) -> None:
    if count > 1 or segment.end - segment.start > _MAX_FRAME_BYTES:
        message = "the JPEG has more than one frame header, or an overlong one"
        raise UndecodableImage(message)


def _is_metadata(segment: _Segment) -> bool:
    return segment.marker in _APPLICATIONS or segment.marker == _COMMENT


def _stays(image: bytes, segment: _Segment, left: dict[bytes, _Bound]) -> bool:
    """Return true if the segment is within its kind's bound, and count it."""
    begin, kind = segment.start + 4, _OTHER
    if segment.marker != _COMMENT:
        kind = next((name for name in left if name and image.startswith(name, begin)), _OTHER)
    segments, size = left[kind]
    size -= segment.end - segment.start
    if segments < 1 or size < 0:
        return False
    left[kind] = _Bound(segments - 1, size)
    return True
