"""Reads the segments of a JPEG before its first scan, without a library.

Reads only JPEGs as cameras and encoders write them. The decoder, which checks every image again,
handles the others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

START: Final = b"\xff\xd8\xff"
SCAN_START: Final = b"\xff\xda"

FAMILY: Final = ("JPEG", "MPO")
"""Pillow's names: a JPEG of several pictures, as many phones write it, is an MPO."""

_MAX_SEGMENTS: Final = 1_000
_SCAN: Final = 0xDA
_BITS: Final = 8
_COMPONENTS: Final = frozenset({1, 3, 4})
_FRAMES: Final = {0xC0: False, 0xC1: False, 0xC2: True}
"""The markers of baseline, extended and progressive frames; true for progressive."""

FRAME_MARKERS: Final = frozenset(_FRAMES)

_PLAIN: Final = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
"""The markers of tables, restart intervals, comments and application data."""


class Frame(NamedTuple):
    """The picture's stored size. in_scans: the data comes in several scans."""

    width: int
    height: int
    in_scans: bool


def frame(image: bytes) -> Frame | None:
    """Return the frame of a JPEG; None if other segments come before the first scan."""
    try:
        return _frame(image) if image.startswith(START) else None
    except (struct.error, IndexError):
        return None


def _frame(image: bytes) -> Frame | None:
    size, components, in_scans = (0, 0), 0, False
    place = len(START) - 1
    for _ in range(_MAX_SEGMENTS):
        start, marker, length = struct.unpack_from(">BBH", image, place)
        if marker == _SCAN and start == START[0] and components:
            return Frame(*size, in_scans or image[place + 4] < components)
        if marker in _FRAMES and start == START[0] and not components:
            bits, height, width, components = struct.unpack_from(">BHHB", image, place + 4)
            if bits != _BITS or components not in _COMPONENTS or not (width and height):
                return None
            size, in_scans = (width, height), _FRAMES[marker]
        elif marker not in _PLAIN or start != START[0]:
            return None
        place += 2 + length
    return None


class Segment(NamedTuple):
    """A marker, and the start of its data after the length."""

    marker: int
    start: int

    @property
    def is_scan(self) -> bool:
        """The segment begins a scan."""
        return self.marker == _SCAN


def segments(image: bytes) -> Iterator[Segment]:
    """Yield the segments up to the first scan, as far as they are contiguous."""
    place = 2
    for _ in range(_MAX_SEGMENTS):
        if place + 4 > len(image) or image[place] != START[0]:
            return
        marker, length = image[place + 1], struct.unpack_from(">H", image, place + 2)[0]
        yield Segment(marker, place + 4)
        if marker == _SCAN:
            return
        place += 2 + length
