"""Reads a TIFF's first directory, and refuses a TIFF that costs far more than its picture.

A few bytes can reference the same strip or tile thousands of times, or tiles far larger than the
picture; a decoder unpacks each.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from services.shared.errors import UndecodableImage

MAX_TILES: Final = 100_000
"""The maximum of tiles. Each is a Python object; 64 megapixels are 977 of the usual tiles."""

MAX_TAGS: Final = 1_000

MAX_VALUES: Final = 1_000
"""The maximum of values of a tag that Pillow reads at opening: each becomes an object."""

MAX_TIMES_SHOWN: Final = 4
"""The maximum of pixels in tiles for each of the picture: tiles extend beyond its edges."""

FLOOR_PIXELS: Final = 2**20
"""Always permitted: a tiny picture may have a tile of this size."""

_SLACK_BYTES: Final = 2**20
_MAX_TIMES_READ: Final = 2

_VALUES_READ: Final = 16
_ORDERS: Final[Mapping[bytes, str]] = {b"II": "<", b"MM": ">"}
_BIG_TIFF: Final = 43
_WIDTH, _HEIGHT, _SAMPLES, _PLANES = 256, 257, 277, 284
_STRIP_OFFSETS, _ROWS_PER_STRIP = 273, 278
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 322, 323, 324
_SEPARATE_PLANES: Final = 2
_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
                      13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
_NUMBERS: Final = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q",
                   18: "Q"}  # fmt: skip
_USED: Final = frozenset({_WIDTH, _HEIGHT, _SAMPLES, _PLANES, _STRIP_OFFSETS, _ROWS_PER_STRIP,
                          _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS})  # fmt: skip


_OPENED: Final = frozenset({_WIDTH, _HEIGHT, 258, 259, 262, 266, 274, _SAMPLES, _ROWS_PER_STRIP,
                            282, 283, _PLANES, 296, _TILE_WIDTH, _TILE_HEIGHT, 338, 339,
                            530})  # fmt: skip
"""Tags that Pillow reads at opening, besides offsets and colours."""

_COLOURS: Final = 320
_MAX_COLOURS: Final = 3 * 2**16
_BLOCKS: Final = frozenset({700, 34675})
"""XMP and the colour profile, which Pillow also reads."""
_BYTES: Final = frozenset({1, 2, 7})
"""Types that Pillow reads as a single value."""


class Tag(NamedTuple):
    """An entry of a directory: type, number of values, and the first values that are integers."""

    kind: int
    many: int
    values: tuple[int, ...]

    @property
    def value(self) -> int:
        """The first value; 0 where it is no integer."""
        return self.values[0] if self.values else 0


class _Layout(NamedTuple):
    """The layout of a directory in TIFF or BigTIFF; formats of `struct`."""

    order: str
    start: int
    """The position of the directory's offset."""
    head: str
    offset: str
    entry: str


def check(image: bytes) -> None:
    """Refuse a TIFF that costs far more than its picture, before it is opened.

    Ignores other formats. Raises UndecodableImage.
    """
    try:
        tags = directory(image)
    except struct.error:
        return
    _check_tags(tags, len(image))
    _check_tiles(tags)


def directory(image: bytes) -> Mapping[int, Tag]:
    """Return the first directory's entries, as far as the file goes.

    Raises UndecodableImage for too many of them; struct.error.
    """
    layout, place, count = _begin(image)
    if count > MAX_TAGS:
        message = f"the TIFF has {count} tags; {MAX_TAGS} are accepted"
        raise UndecodableImage(message)
    tags = dict[int, Tag]()
    for name, tag in _entries(image, layout, place, count):
        if name in tags and name in _USED:
            message = f"the TIFF has tag {name} twice"
            raise UndecodableImage(message)
        tags[name] = tag
    return tags


def readable_tags(image: bytes, start: int | None = None) -> Mapping[int, Tag]:
    """Return the entries of the directory at `start`, by default of the first, however broken."""
    try:
        layout, place, count = _begin(image, start)
    except struct.error:
        return {}
    return dict(_entries(image, layout, place, min(count, MAX_TAGS)))


def _begin(image: bytes, start: int | None = None) -> tuple[_Layout, int, int]:
    """Return the layout, the position of a directory's entries, and their number."""
    order = _ORDERS.get(image[:2])
    if order is None:
        return _layout("<", big=False), 0, 0
    layout = _layout(order, big=struct.unpack_from(f"{order}H", image, 2)[0] == _BIG_TIFF)
    if start is None:
        (start,) = struct.unpack_from(layout.offset, image, layout.start)
    if not 0 <= start <= len(image):
        return layout, 0, 0
    (count,) = struct.unpack_from(layout.head, image, start)
    return layout, start + struct.calcsize(layout.head), count


def _entries(image: bytes, layout: _Layout, place: int, count: int) -> Iterator[tuple[int, Tag]]:
    width = struct.calcsize(layout.entry) + struct.calcsize(layout.offset)
    # Pillow also reads a truncated directory.
    for _ in range(min(count, (len(image) - place) // width)):
        tag, kind, many = struct.unpack_from(layout.entry, image, place)
        field = place + struct.calcsize(layout.entry)
        yield tag, Tag(kind, many, _values(image, layout, (kind, many), field))
        place += width


def _layout(order: str, *, big: bool) -> _Layout:
    if big:
        return _Layout(order, 8, f"{order}Q", f"{order}Q", f"{order}HHQ")
    return _Layout(order, 4, f"{order}H", f"{order}L", f"{order}HHL")


def _values(image: bytes, layout: _Layout, values: tuple[int, int], place: int) -> tuple[int, ...]:
    """Return the first values of an entry that are in the file; none that are no integers."""
    kind, many = values
    if kind not in _NUMBERS:
        return ()
    size = struct.calcsize(f"={_NUMBERS[kind]}")
    if size * many > struct.calcsize(layout.offset):
        (place,) = struct.unpack_from(layout.offset, image, place)
    read = min(many, _VALUES_READ, max(0, len(image) - place) // size)
    return struct.unpack_from(
        f"{layout.order}{read}{_NUMBERS[kind]}", image, min(place, len(image))
    )


def _check_tags(tags: Mapping[int, Tag], size: int) -> None:
    """Refuse tags that reference the same bytes repeatedly: Pillow copies them for each."""
    tiles = _tiles(tags)
    if tiles > MAX_TILES:
        message = f"the TIFF is made of {tiles} strips or tiles; {MAX_TILES} are accepted"
        raise UndecodableImage(message)
    for name, tag in tags.items():
        if tag.many > _most_values(name, tag):
            message = f"the TIFF has {tag.many} values in tag {name}; too many to be sound"
            raise UndecodableImage(message)
    named = sum(_TYPE_BYTES.get(tag.kind, 1) * tag.many for tag in tags.values())
    if named > _MAX_TIMES_READ * size + _SLACK_BYTES:
        message = f"the TIFF's tags name {named} bytes, but the file has {size}"
        raise UndecodableImage(message)


def _most_values(name: int, tag: Tag) -> float:
    if name == _COLOURS:
        return _MAX_COLOURS
    if name in _OPENED or (name in _BLOCKS and tag.kind not in _BYTES):
        return MAX_VALUES
    return math.inf


def _check_tiles(tags: Mapping[int, Tag]) -> None:
    """Refuse strips and tiles that together have far more pixels than the picture."""
    width, height = _value(tags, _WIDTH), _value(tags, _HEIGHT)
    if width < 1 or height < 1:
        return
    tile_width = max(0, _value(tags, _TILE_WIDTH)) or width
    rows = max(0, _value(tags, _ROWS_PER_STRIP)) or height
    tile_height = max(0, _value(tags, _TILE_HEIGHT)) or min(height, rows)
    planes = _value(tags, _SAMPLES) if _value(tags, _PLANES) == _SEPARATE_PLANES else 1
    needed = math.ceil(width / tile_width) * math.ceil(height / tile_height)
    pixels = max(needed, _tiles(tags) // max(1, planes)) * tile_width * tile_height
    if pixels > MAX_TIMES_SHOWN * width * height + FLOOR_PIXELS:
        message = f"the TIFF's strips or tiles have {pixels} pixels, the picture {width * height}"
        raise UndecodableImage(message)


def _tiles(tags: Mapping[int, Tag]) -> int:
    """Return the number of strips or tiles in the directory."""
    return max(tags[tag].many if tag in tags else 0 for tag in (_STRIP_OFFSETS, _TILE_OFFSETS))


def _value(tags: Mapping[int, Tag], tag: int) -> int:
    return tags[tag].value if tag in tags else 0
