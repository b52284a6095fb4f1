"""Reads from HEVC and AV1 data the size and the number of the decoded pictures."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.shared.errors import UndecodableImage
from services.shared.imaging.reading import Bits, Fields

MAX_UNITS: Final = 20_000
"""The maximum of slices, headers and messages of a file. Encoders write a few for each tile."""

_HEVC_PARAMETERS: Final = 33
_HEVC_SLICES: Final = 32
_FIRST_SLICE: Final = 0x80
_HEADER_BYTES: Final = 1_000

_AV1_SEQUENCE: Final = 1
_AV1_FRAMES: Final = frozenset({3, 6})
_HAS_EXTENSION: Final = 4
_HAS_SIZE: Final = 2


@dataclass(frozen=True, slots=True)
class Coded:
    """The decoded size in pixels, and the number of pictures of that size."""

    pixels: int
    pictures: int


class Units:
    """Counts the units of the pictures of a file."""

    _count = 0

    def count(self) -> None:
        """Count a unit. Raises UndecodableImage if there are too many."""
        self._count += 1
        if self._count > MAX_UNITS:
            message = f"the image has more than {MAX_UNITS} pieces"
            raise UndecodableImage(message)


def hevc(configuration: bytes, data: bytes, counted: Units) -> Coded:
    """Read an HEVC picture: its configuration box, and its data in units with their lengths.

    Raises UndecodableImage, struct.error.
    """
    fields = Fields(configuration)
    fields.skip(21)
    length = (fields.number(1) & 3) + 1
    units = _configured(fields, counted)
    sizes = [_hevc_pixels(unit) for unit in units if _hevc_kind(unit) == _HEVC_PARAMETERS]
    fields, pictures = Fields(data), 0
    while fields.left >= length:
        counted.count()
        size = int.from_bytes(fields.raw(length), "big")
        start = fields.place
        fields.skip(size)
        unit = data[start : start + min(size, _HEADER_BYTES)]
        if _hevc_kind(unit) == _HEVC_PARAMETERS:
            sizes.append(_hevc_pixels(unit))
        elif _hevc_kind(unit) < _HEVC_SLICES:
            pictures += bool(unit[2:3] and unit[2] & _FIRST_SLICE)
    return Coded(_largest(sizes), pictures)


def av1(configuration: bytes, data: bytes, counted: Units) -> Coded:
    """Read an AV1 picture: its configuration box, and its data in units.

    Pictures that are layers of each other count as one. Raises UndecodableImage, struct.error.
    """
    sizes: list[int] = []
    layers: dict[int, int] = {}
    for part in (configuration[4:], data):
        fields = Fields(part)
        while fields.left:
            counted.count()
            head = fields.number(1)
            layer = fields.number(1) >> 3 & 3 if head & _HAS_EXTENSION else 0
            size = _leb128(fields) if head & _HAS_SIZE else fields.left
            start, kind = fields.place, head >> 3 & 15
            fields.skip(size)
            if kind == _AV1_SEQUENCE:
                sizes.append(_av1_pixels(part[start : start + min(size, _HEADER_BYTES)]))
            elif kind in _AV1_FRAMES:
                layers[layer] = layers.get(layer, 0) + 1
    return Coded(len(layers) * _largest(sizes), max(layers.values(), default=0))


def _configured(fields: Fields, counted: Units) -> Iterator[bytes]:
    """Yield the units of a configuration box."""
    for _ in range(fields.number(1)):
        fields.skip(1)
        for _ in range(fields.number(2)):
            counted.count()
            yield fields.raw(fields.number(2))


def _largest(sizes: list[int]) -> int:
    if not sizes:
        message = "a picture inside the image has no size"
        raise UndecodableImage(message)
    return max(sizes)


def _hevc_kind(unit: bytes) -> int:
    return unit[0] >> 1 & 63 if unit else _HEVC_SLICES


def _hevc_pixels(unit: bytes) -> int:
    """Return the luma samples of a sequence parameter set (H.265, 7.3.2.2)."""
    # Encoders insert a 3 after two zeros, so that no start code appears in a unit.
    bits = Bits(unit[2:_HEADER_BYTES].replace(b"\0\0\3", b"\0\0"))
    bits.number(4)
    sublayers = bits.number(3)
    bits.number(1 + 88 + 8)
    present = [bits.number(2) for _ in range(sublayers)]
    if sublayers:
        bits.number(2 * (8 - sublayers))
    for flags in present:
        bits.number((88 if flags & 2 else 0) + (8 if flags & 1 else 0))
    bits.golomb()
    if bits.golomb() == 3:  # noqa: PLR2004 (4:4:4, which may come as three planes)
        bits.number(1)
    return bits.golomb() * bits.golomb()


def _av1_pixels(unit: bytes) -> int:
    """Return the largest frame of a sequence header (AV1, 5.5.1)."""
    bits = Bits(unit)
    bits.number(4)
    if bits.number(1):  # the short header of a still picture
        bits.number(5)
    else:
        _skip_operating_points(bits)
    wide, high = bits.number(4) + 1, bits.number(4) + 1
    return (bits.number(wide) + 1) * (bits.number(high) + 1)


def _skip_operating_points(bits: Bits) -> None:
    delay_bits = 0
    if bits.number(1):  # timing
        bits.number(64)
        if bits.number(1):
            bits.golomb()
        if bits.number(1):  # the decoder's model
            delay_bits = bits.number(5) + 1
            bits.number(32 + 5 + 5)
    display_delays = bits.number(1)
    for _ in range(bits.number(5) + 1):
        bits.number(12)
        if bits.number(5) > 7:  # noqa: PLR2004 (levels from 4.0 on have tiers)
            bits.number(1)
        if delay_bits and bits.number(1):
            bits.number(2 * delay_bits + 1)
        if display_delays and bits.number(1):
            bits.number(4)


def _leb128(fields: Fields) -> int:
    value = 0
    for place in range(8):
        byte = fields.number(1)
        value |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return value
    message = "a length is too long"
    raise struct.error(message)
