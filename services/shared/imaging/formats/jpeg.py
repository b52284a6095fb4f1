"""Reads the segments of a JPEG before its first scan, without a library.

Only of a JPEG as cameras and encoders write it. What is odd is left to the decoder, which looks at
every image again.
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
"""The markers of baseline, extended and progressive ones, and whether that is progressive."""

FRAME_MARKERS: Final = frozenset(_FRAMES)

_PLAIN: Final = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
"""Tables, restart intervals, comments, and what applications add."""


class Frame(NamedTuple):
    """The picture's size as stored. in_scans: it comes in several, of which each adds something."""

    width: int
    height: int
    in_scans: bool


def frame(image: bytes) -> Frame | None:
    """The frame of a JPEG; None where there is anything but plain segments, all in a row."""
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
    """A marker, and where what it holds begins, after its length."""

    marker: int
    start: int

    @property
    def is_scan(self) -> bool:
        """A scan begins here."""
        return self.marker == _SCAN


def segments(image: bytes) -> Iterator[Segment]:
    """The segments from the first to the first scan's, as far as they stand in a row."""
    place = 2
    for _ in range(_MAX_SEGMENTS):
        if place + 4 > len(image) or image[place] != START[0]:
            return
        marker, length = image[place + 1], struct.unpack_from(">H", image, place + 2)[0]
        yield Segment(marker, place + 4)
        if marker == _SCAN:
            return
        place += 2 + length
