"""Reads what a JPEG 2000 says of its picture: sizes, tiles, and the resolutions that it holds.

Only the few bytes before the first tile are read. OpenJPEG would make room for what they name.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from services.shared.errors import UndecodableImage

FORMAT: Final = "JPEG2000"
"""Pillow's name of it."""

_START: Final = b"\xff\x4f\xff\x51"
_BOXES: Final = b"\0\0\0\x0cjP  "
_CODESTREAM: Final = b"jp2c"
_SIZES: Final = struct.Struct(">HH8LH")
_CODING: Final = 0x52
_OWN_CODING: Final = 0x53
_TILE: Final = 0x90

_MAX_BOXES: Final = 1000
_MAX_SEGMENTS: Final = 1000
_MAX_TILES: Final = 4096
"""OpenJPEG makes 6 KB of room for each before it reads one."""

_MAX_PACKETS: Final = 4_000_000
"""Room is made for each, by quality layer, resolution, component and place; 64 megapixels in five
layers and small precincts have 600,000."""

_ONE_PRECINCT: Final = 0xFF
_MAX_COMPONENTS: Final = 4
_MAX_REDUCTION: Final = 5


class Codestream(NamedTuple):
    """The picture's size, how often it can be halved, and how many packets it may have."""

    width: int
    height: int
    tiles: int
    components: int
    halvings: int
    packets: int


def check(image: bytes, size: tuple[int, int]) -> None:
    """Refuse a JPEG 2000 whose codestream holds anything else than its container says.

    Args:
        image: the file.
        size: width and height as Pillow read them from the container.

    Raises:
        UndecodableImage: also for more tiles than are accepted.
    """
    found = codestream(image)
    if found is None:
        message = "the JPEG 2000's header is truncated or corrupt"
        raise UndecodableImage(message)
    if (found.width, found.height) != size or found.components > _MAX_COMPONENTS:
        message = f"the JPEG 2000 says {size[0]} x {size[1]} pixels and holds "
        message += f"{found.width} x {found.height} in {found.components} components"
        raise UndecodableImage(message)
    if found.tiles > _MAX_TILES:
        message = f"the JPEG 2000 is made of {found.tiles} tiles; {_MAX_TILES} are accepted"
        raise UndecodableImage(message)
    if found.packets > _MAX_PACKETS:
        message = f"the JPEG 2000 has {found.packets} packets; {_MAX_PACKETS} are accepted"
        raise UndecodableImage(message)


def codestream(image: bytes) -> Codestream | None:
    """The codestream's own header; None where it is not as encoders write it."""
    try:
        start = _start(image)
        return None if start is None else _header(image, start)
    except (struct.error, IndexError, ZeroDivisionError):
        return None


def reduction(image: bytes, wanted: tuple[int, int]) -> int:
    """How often to halve the picture, so that it keeps at least the wanted width and height."""
    found = codestream(image)
    if found is None:
        return 0
    many = 0
    for times in range(1, min(found.halvings, _MAX_REDUCTION) + 1):
        sides = [(found.width, wanted[0]), (found.height, wanted[1])]
        # Pillow rounds where the codestream rounds up: only where these agree it can decode.
        if all(-(-side >> times) >= least and _agrees(side, times) for side, least in sides):
            many = times
    return many


def _agrees(side: int, times: int) -> bool:
    return (side + (1 << times >> 1)) >> times == -(-side >> times)


def _start(image: bytes) -> int | None:
    """Where the codestream begins, in the container or without one."""
    if image.startswith(_START):
        return 0
    place = 0
    for _ in range(_MAX_BOXES if image.startswith(_BOXES) else 0):
        length, name = struct.unpack_from(">L4s", image, place)
        head = 8
        if length == 1:
            (length,), head = struct.unpack_from(">Q", image, place + 8), 16
        if name == _CODESTREAM:
            return place + head if image.startswith(_START, place + head) else None
        if length < head:
            return None
        place += length
    return None


def _header(image: bytes, start: int) -> Codestream | None:
    size, _, x1, y1, x0, y0, tile_width, tile_height, tile_x, tile_y, components = (
        _SIZES.unpack_from(image, start + 4)
    )
    tiles = -(-(x1 - tile_x) // tile_width) * -(-(y1 - tile_y) // tile_height)
    tile = min(tile_width, x1 - x0), min(tile_height, y1 - y0)
    # A picture that begins elsewhere, or a component of its own coding, is decoded whole.
    halvings, layers, packets, even, place = 0, 1, 0, not (x0 or y0), start + 4 + size
    for _ in range(_MAX_SEGMENTS):
        marker, length = struct.unpack_from(">HH", image, place)
        if marker == 0xFF00 | _CODING:
            (layers,), halvings = struct.unpack_from(">H", image, place + 6), image[place + 9]
            packets = max(packets, _packets(image, place + 9, tile, own=image[place + 4] & 1))
        if marker == 0xFF00 | _OWN_CODING:
            even = False
            packets = max(packets, _packets(image, place + 7, tile, own=image[place + 6] & 1))
        if marker == 0xFF00 | _TILE:
            size_all = x1 - x0, y1 - y0
            packets *= layers * components * tiles
            return Codestream(*size_all, tiles, components, halvings if even else 0, packets)
        place += 2 + length
    return None


def _packets(image: bytes, place: int, tile: tuple[int, int], *, own: int) -> int:
    """How many packets a layer of a component of a tile has, at most.

    Args:
        image: the file.
        place: where the number of halvings stands; sizes of precincts follow five bytes later.
        tile: width and height.
        own: the coding has sizes of precincts of its own.
    """
    halvings, many = image[place], 0
    for number in range(halvings + 1):
        powers = image[place + 5 + number] if own else _ONE_PRECINCT
        across = -(-(tile[0] >> halvings - number) >> (powers & 0xF)) + 1
        down = -(-(tile[1] >> halvings - number) >> (powers >> 4)) + 1
        many += across * down
    return many
