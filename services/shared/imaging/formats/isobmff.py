"""Reads the boxes of HEIF and AVIF files: items, their properties, references and tracks.

Decodes nothing and uses no library. Everything that a few bytes can repeat is bounded:
items, extents, references, properties.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.shared.errors import UndecodableImage
from services.shared.imaging.formats.boxes import Box, at_most, boxes, by_kind, full
from services.shared.imaging.formats.tracks import Track, read_tracks
from services.shared.imaging.reading import Fields

MAX_ITEMS: Final = 4_096
MAX_REFERENCES: Final = 8_192
MAX_EXTENTS: Final = 8_192
MAX_ASSOCIATIONS: Final = 32_768
MAX_METADATA_ITEMS: Final = 64
"""The maximum of EXIF and XMP items: of the picture, its depth map and other layers of phones."""

_SLACK_BYTES: Final = 2**20
_MAX_TIMES_READ: Final = 2
"""Encoders let equal tiles share bytes: a valid file may reference a little more than it has."""

_METADATA: Final = frozenset({b"Exif", b"mime", b"uri "})
_IN_IDAT: Final = 1


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the file: a coded picture, a derived picture, or metadata."""

    kind: bytes
    extents: Sequence[tuple[int, int]]
    """Start and end of each part in the file, in order."""
    properties: Sequence[Box]

    def property(self, kind: bytes) -> Box | None:
        """Return the first property of that kind."""
        return next((box for box in self.properties if box.kind == kind), None)


@dataclass(frozen=True, slots=True)
class Container:
    """The parts of a file that determine the work of a decoder."""

    image: bytes
    brand: bytes
    primary: int
    items: Mapping[int, Item]
    references: Mapping[tuple[bytes, int], Sequence[int]]
    """Targets by the reference's type and its source item."""
    tracks: Sequence[Track]

    def content(self, item: Item) -> bytes:
        """Return the item's bytes."""
        return b"".join(self.image[start:end] for start, end in item.extents)


def container(image: bytes) -> Container:
    """Read a file's boxes.

    Raises UndecodableImage if they are broken or repeat too much, struct.error if they end
    too early.
    """
    top = by_kind(image, 0, len(image), {b"ftyp", b"meta", b"moov"}, cut=True)
    brand = image[top[b"ftyp"].start : top[b"ftyp"].start + 4] if b"ftyp" in top else b""
    tracks = read_tracks(image, top[b"moov"]) if b"moov" in top else []
    if b"meta" not in top:
        return Container(image, brand, 0, {}, {}, tracks)
    meta = top[b"meta"]
    kinds = {b"pitm", b"iloc", b"iinf", b"iref", b"iprp", b"idat"}
    _, _, fields = full(image, meta)
    inside = by_kind(image, fields.place, meta.end, kinds)
    types = _item_types(image, inside.get(b"iinf"))
    extents = _extents(image, inside.get(b"iloc"), inside.get(b"idat"))
    owned = _properties(image, inside.get(b"iprp"))
    items = {
        number: Item(kind, extents.get(number, ()), owned.get(number, ()))
        for number, kind in types.items()
    }
    metadata = sum(item.kind in _METADATA for item in items.values())
    at_most(metadata, MAX_METADATA_ITEMS, "metadata items")
    references = _references(image, inside.get(b"iref"))
    return Container(image, brand, _primary(image, inside.get(b"pitm")), items, references, tracks)


def _primary(image: bytes, box: Box | None) -> int:
    if box is None:
        return 0
    version, _, fields = full(image, box)
    return fields.number(4 if version else 2)


def _item_types(image: bytes, box: Box | None) -> dict[int, bytes]:
    if box is None:
        return {}
    version, _, fields = full(image, box)
    fields.skip(4 if version else 2)
    types: dict[int, bytes] = {}
    for entry in boxes(image, fields.place, box.end):
        if entry.kind != b"infe":
            continue
        version, _, inside = full(image, entry)
        number = inside.number(2 if version <= 2 else 4)  # noqa: PLR2004 (as the standard has it)
        inside.skip(2)
        types[number] = inside.raw(4) if version >= 2 else b""  # noqa: PLR2004
    at_most(len(types), MAX_ITEMS, "items")
    return types


def _extents(
    image: bytes, box: Box | None, idat: Box | None
) -> dict[int, Sequence[tuple[int, int]]]:
    """Return the place of each item's bytes; their sum is bounded by the file's size."""
    if box is None:
        return {}
    version, _, fields = full(image, box)
    sizes = fields.number(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    if not {offset, length, base, index if version else 0} <= {0, 4, 8}:
        message = "the image's table of items is corrupt"
        raise UndecodableImage(message)
    wide = 4 if version == 2 else 2  # noqa: PLR2004 (as the standard has it)
    found: dict[int, Sequence[tuple[int, int]]] = {}
    named, extents = 0, 0
    items = fields.number(wide)
    at_most(items, MAX_ITEMS, "items")
    for _ in range(items):
        number, method = fields.number(wide), fields.number(2) & 15 if version else 0
        fields.skip(2)
        origin, count = fields.number(base), fields.number(2)
        extents += count
        at_most(extents, MAX_EXTENTS, "pieces of items")
        whole = _source(image, method, idat)
        pieces = []
        for _ in range(count):
            fields.skip(index if version else 0)
            start = whole[0] + origin + fields.number(offset)
            size = fields.number(length)
            end = start + size if size else whole[1]
            if start > end or end > whole[1]:
                message = "the image is cut short: an item lies outside of the file"
                raise UndecodableImage(message)
            named += end - start
            pieces.append((start, end))
        found[number] = pieces
    _check_repeats(named, len(image), "items")
    return found


def _source(image: bytes, method: int, idat: Box | None) -> tuple[int, int]:
    """Return the part of the file that an item's offsets count from."""
    if method == 0:
        return 0, len(image)
    if method == _IN_IDAT and idat is not None:
        return idat.start, idat.end
    message = "the image builds its items in an unsupported way"
    raise UndecodableImage(message)


def _check_repeats(named: int, size: int, noun: str) -> None:
    """Refuse a file whose parts reference far more bytes than it has. Raises UndecodableImage."""
    if named > _MAX_TIMES_READ * size + _SLACK_BYTES:
        message = f"the image's {noun} name {named} bytes, but the file has {size}"
        raise UndecodableImage(message)


def _references(image: bytes, box: Box | None) -> dict[tuple[bytes, int], Sequence[int]]:
    found: dict[tuple[bytes, int], Sequence[int]] = {}
    if box is None:
        return found
    version, _, fields = full(image, box)
    wide = 4 if version else 2
    total = 0
    for entry in boxes(image, fields.place, box.end):
        inside = Fields(image, entry.start, entry.end)
        origin, count = inside.number(wide), inside.number(2)
        total += count
        at_most(total, MAX_REFERENCES, "references between items")
        targets = [inside.number(wide) for _ in range(count)]
        found[entry.kind, origin] = [*found.get((entry.kind, origin), ()), *targets]
    return found


def _properties(image: bytes, box: Box | None) -> dict[int, Sequence[Box]]:
    """Return each item's properties; a shared property counts for each item."""
    if box is None:
        return {}
    inside = list(boxes(image, box.start, box.end))
    shared = [one for part in inside if part.kind == b"ipco" for one in
              boxes(image, part.start, part.end)]  # fmt: skip
    found: dict[int, list[Box]] = {}
    named, total = 0, 0
    for part in inside:
        if part.kind != b"ipma":
            continue
        for number, indices in _associations(image, part):
            total += 1 + len(indices)
            at_most(total, MAX_ASSOCIATIONS, "properties")
            owned = [shared[index - 1] for index in indices if 0 < index <= len(shared)]
            named += sum(one.end - one.start for one in owned)
            found.setdefault(number, []).extend(owned)
    _check_repeats(named, len(image), "properties")
    for owned in found.values():
        profiles = [one for one in owned if one.kind == b"colr"]
        icc = sum(image[one.start : one.start + 4] in {b"prof", b"rICC"} for one in profiles)
        at_most(icc, 1, "colour profile for one picture")
    return {**found}


def _associations(image: bytes, box: Box) -> Iterator[tuple[int, Sequence[int]]]:
    version, flags, fields = full(image, box)
    wide, mask = (2, 0x7FFF) if flags & 1 else (1, 0x7F)
    entries = fields.number(4)
    at_most(entries, MAX_ITEMS, "items with properties")
    for _ in range(entries):
        number, count = fields.number(4 if version else 2), fields.number(1)
        yield number, [fields.number(wide) & mask for _ in range(count)]
