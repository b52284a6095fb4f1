"""Writes HEIC and AVIF files box by box, so that tests choose each box."""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from tests.support import pictures

_DATA_STARTS = 28 + 8
"""The size of the brand's box and of the data box's head; the data comes before its description."""


@dataclass(frozen=True)
class Part:
    """Describes an item: its type, its extents in the data, and its properties' numbers from 1."""

    kind: bytes
    extents: Sequence[tuple[int, int]]
    properties: Sequence[int] = ()


@dataclass(frozen=True)
class File:
    """Describes a file: data, items numbered from 1 (the first is shown), references."""

    data: bytes
    parts: Sequence[Part]
    properties: Sequence[bytes]
    references: Sequence[tuple[bytes, int, Sequence[int]]] = field(default=())
    brand: bytes = b"heic"

    def encoded(self) -> bytes:
        """Return the file's bytes."""
        head = box(b"ftyp", self.brand + bytes(4) + b"mif1" + self.brand + b"miaf")
        inside = [
            full(b"hdlr", 0, bytes(4) + b"pict" + bytes(13)),
            full(b"pitm", 0, struct.pack(">H", 1)),
            self._places(),
            self._types(),
            full(b"iref", 0, *map(_reference, self.references)) if self.references else b"",
            box(b"iprp", box(b"ipco", *self.properties), self._associations()),
        ]
        return head + box(b"mdat", self.data) + full(b"meta", 0, *inside)

    def _places(self) -> bytes:
        rows = []
        for number, part in enumerate(self.parts, 1):
            rows.append(struct.pack(">HHHH", number, 0, 0, len(part.extents)))
            rows += [struct.pack(">II", _DATA_STARTS + start, size) for start, size in part.extents]
        return full(b"iloc", 1, b"\x44\0" + struct.pack(">H", len(self.parts)), *rows)

    def _types(self) -> bytes:
        entries = [
            full(b"infe", 2, struct.pack(">HH", number, 0) + part.kind + b"\0")
            for number, part in enumerate(self.parts, 1)
        ]
        return full(b"iinf", 0, struct.pack(">H", len(entries)), *entries)

    def _associations(self) -> bytes:
        owned = [(number, part.properties) for number, part in enumerate(self.parts, 1)]
        rows = [struct.pack(">HB", number, len(own)) + bytes(own) for number, own in owned if own]
        return full(b"ipma", 0, struct.pack(">I", len(rows)), *rows)


def box(kind: bytes, *parts: bytes) -> bytes:
    """Return a box of these bytes."""
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def full(kind: bytes, version: int, *parts: bytes) -> bytes:
    """Return a box with a version and no flags."""
    return box(kind, struct.pack(">I", version << 24), *parts)


def size(width: int, height: int) -> bytes:
    """Return the property that gives the size at which a picture is shown."""
    return full(b"ispe", 0, struct.pack(">II", width, height))


def depth() -> bytes:
    """Return the property that gives three channels of 8 bits."""
    return full(b"pixi", 0, b"\x03\x08\x08\x08")


def grid(rows: int, columns: int, width: int, height: int) -> bytes:
    """Return the data of an item that joins tiles."""
    return struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)


def overlay(layers: int, width: int, height: int) -> bytes:
    """Return the data of an item that lays pictures over one another, each at the top left."""
    return struct.pack(">BB8xHH", 0, 0, width, height) + bytes(4 * layers)


@functools.cache
def coded(name: str, side: int) -> tuple[bytes, bytes]:
    """Return a square picture's configuration box and data as the HEIF or AVIF encoder does."""
    picture = pictures.scene(side, side)
    options = {"quality": 50} if name == "HEIF" else {"speed": 10}
    made = pictures.encoded(picture, name, **options)
    return _found(made, b"hvcC" if name == "HEIF" else b"av1C", whole=True), _found(made, b"mdat")


def animated(frames: int, side: int = 64) -> bytes:
    """Return an AVIF of that number of frames."""
    others = [Image.new("RGB", (side, side), (number % 250, 0, 0)) for number in range(frames - 1)]
    scene = pictures.scene(side, side)
    return pictures.encoded(scene, "AVIF", save_all=True, append_images=others, speed=10)


def _found(image: bytes, kind: bytes, *, whole: bool = False) -> bytes:
    start = image.index(kind) - 4
    (length,) = struct.unpack_from(">I", image, start)
    return image[start if whole else start + 8 : start + length]


def _reference(reference: tuple[bytes, int, Sequence[int]]) -> bytes:
    kind, origin, targets = reference
    return box(kind, struct.pack(f">HH{len(targets)}H", origin, len(targets), *targets))
