"""Reads the header of a JPEG 2000: size, tiles, and resolutions.

Reads only the few bytes before the first tile. OpenJPEG would allocate memory for all they declare.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from services.shared.errors import UndecodableImage

FORMAT: Final = "JPEG2000"
"""Pillow's name of the format."""

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
"""OpenJPEG allocates 6 KB for each tile before it reads any."""

_MAX_PACKETS: Final = 4_000_000
"""OpenJPEG allocates memory for each, by quality layer, resolution, component and place; 64
megapixels in five layers and small precincts have 600,000."""

_ONE_PRECINCT: Final = 0xFF
_MAX_COMPONENTS: Final = 4
_MAX_REDUCTION: Final = 5


class Codestream(NamedTuple):
    """The picture's size, its number of halvings, and its maximum of packets."""

    width: int
    height: int
    tiles: int
    components: int
    halvings: int
    packets: int


def check(image: bytes, size: tuple[int, int]) -> None:
    """Refuse a JPEG 2000 whose codestream contradicts its container.

    Args:
        image: the file.
        size: width and height as Pillow read them from the container.

    Raises:
        UndecodableImage: they differ, or there are too many tiles.
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
    """Return the codestream's header; None if it is not as encoders write it."""
    try:
        start = _start(image)
        return None if start is None else _header(image, start)
    except (struct.error, IndexError, ZeroDivisionError):
        return None


def reduction(image: bytes, wanted: tuple[int, int]) -> int:
    """Return how often to halve the picture, so that it keeps at least the wanted size."""
    found = codestream(image)
    if found is None:
        return 0
    many = 0
    for times in range(1, min(found.halvings, _MAX_REDUCTION) + 1):
        sides = [(found.width, wanted[0]), (found.height, wanted[1])]
        # Pillow rounds to the nearest, the codestream up: decoding works only if they agree.
        if all(-(-side >> times) >= least and _agrees(side, times) for side, least in sides):
            many = times
    return many


def _agrees(side: int, times: int) -> bool:
    return (side + (1 << times >> 1)) >> times == -(-side >> times)


def _start(image: bytes) -> int | None:
    """Return the start of the codestream, in a container or without."""
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
    # A picture with an offset, or a component with its own coding, is decoded whole.
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
    """Return the maximum of packets in a layer of a component of a tile.

    Args:
        image: the file.
        place: of the number of halvings; sizes of precincts follow five bytes later.
        tile: width and height.
        own: the coding defines sizes of precincts.
    """
    halvings, many = image[place], 0
    for number in range(halvings + 1):
        powers = image[place + 5 + number] if own else _ONE_PRECINCT
        across = -(-(tile[0] >> halvings - number) >> (powers & 0xF)) + 1
        down = -(-(tile[1] >> halvings - number) >> (powers >> 4)) + 1
        many += across * down
    return many
