"""Builds files whose metadata costs a decoder far more than their pixels.

Each has the maximum size of an image, unless a small file costs as much.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from tests.hostile.bombs import MANY, chunk, tiff, with_chunks
from tests.support import pictures

_EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_UNPACKED: Final = 2**20 - 2
"""The maximum number of bytes that a compressed text or profile may hold."""


def segment(marker: int, body: bytes) -> bytes:
    """Return a JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_with(one: bytes, count: int = MANY) -> bytes:
    """Return a small JPEG with this segment before its own, repeated up to `count` bytes."""
    small = pictures.encoded(pictures.scene(), "JPEG")
    return small[:2] + one * min(count, (MANY - len(small)) // len(one)) + small[2:]


def packed(size: int = _UNPACKED) -> bytes:
    """Return zeros, compressed a thousand times."""
    return zlib.compress(bytes(size), 9)


def directory(tag: int, kind: int, many: int, size: int) -> bytes:
    """Return an EXIF block of one tag with `many` values in `size` zero bytes."""
    entry = struct.pack("<HHHLL", 1, tag, kind, many, 26)
    return b"II*\0" + struct.pack("<L", 8) + entry + bytes(4) + bytes(size)


def orientations(kind: int = 5, width: int = 8) -> bytes:
    """Return an EXIF block with an orientation as long as a file, rationals by default."""
    many = (MANY - 10_000) // width
    return directory(0x112, kind, many, many * width)


def webp_with(chunks: bytes, flags: int) -> bytes:
    """Return a small WebP with these chunks behind its pixels; flags: of the extended header."""
    picture = pictures.scene()
    body = pictures.encoded(picture, "WEBP")[12:]
    size = struct.pack("<I", picture.width - 1)[:3] + struct.pack("<I", picture.height - 1)[:3]
    extended = b"VP8X" + struct.pack("<IB3x", 10, flags) + size
    content = b"WEBP" + extended + body + chunks
    return b"RIFF" + struct.pack("<I", len(content)) + content


def webp_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a WebP."""
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def gif_with(extension: bytes) -> bytes:
    """Return a small GIF that begins with this extension, repeated to the maximum size."""
    small = pictures.encoded(pictures.scene(), "GIF")
    start = 13 + 3 * 2 ** ((small[10] & 7) + 1)
    return small[:start] + extension * ((MANY - len(small)) // len(extension)) + small[start:]


def mpf_of_numbers() -> bytes:
    """Return a JPEG whose MPF index has 2,600 tags of 4,000 rationals, all at one offset."""
    tags, many = 2600, 4000
    entries = b"".join(struct.pack("<HHLL", tag, 5, many, 8) for tag in range(tags))
    index = b"II*\0" + struct.pack("<LH", 8, tags) + entries + bytes(4)
    return jpeg_with(segment(0xE2, b"MPF\0" + index.ljust(65_000, b"\1")), 1)


def tiff_of_numbers(tag: int, kind: int, width: int) -> bytes:
    """Return a TIFF with a tag of millions of values."""
    many = (MANY - 1000) // width
    tags = {273: (4, [8]), 278: (4, [4]), 279: (4, [16]), tag: (4, [1, 1])}
    made = bytearray(tiff(4, 4, tags, bytes(16)))
    entry = made.index(struct.pack("<HHL", tag, 4, 2))
    struct.pack_into("<HHLL", made, entry, tag, kind, many, len(made))
    return bytes(made) + bytes(many * width)


def text(name: bytes, keyword: bytes, body: bytes) -> bytes:
    """Return a text chunk of a PNG."""
    return chunk(name, keyword + b"\0" + body)


def repeated(one: bytes) -> bytes:
    """Return a PNG that repeats this chunk to the maximum size."""
    return with_chunks(one * ((MANY - 5000) // len(one)))


METADATA: Final[Mapping[str, Callable[[], bytes]]] = {
    "png profiles": lambda: repeated(chunk(b"iCCP", b"a\0\0" + packed())),
    "png 600 profiles": lambda: with_chunks(chunk(b"iCCP", b"a\0\0" + packed()) * 600),
    "png packed exif texts": lambda: repeated(
        text(b"zTXt", b"Raw profile type exif", b"\0" + packed())
    ),
    "png packed xmp texts": lambda: repeated(
        text(b"iTXt", b"XML:com.adobe.xmp", b"\1\0\0\0" + packed())
    ),
    "png exif blocks": lambda: repeated(chunk(b"eXIf", directory(0x112, 3, 1, 200))),
    "png palettes": lambda: repeated(chunk(b"PLTE", bytes(768))),
    "png transparencies": lambda: repeated(chunk(b"tRNS", bytes(256))),
    "png long palette": lambda: with_chunks(chunk(b"PLTE", bytes(MANY - 5000))),
    "png long transparency": lambda: with_chunks(chunk(b"tRNS", b"\xff" * (MANY - 5000))),
    "png turned a million times": lambda: with_chunks(chunk(b"eXIf", orientations())),
    "jpeg exif segments": lambda: jpeg_with(segment(0xE1, _EXIF + bytes(320))),
    "jpeg long exif segments": lambda: jpeg_with(segment(0xE1, _EXIF + bytes(15_900))),
    "jpeg longest exif segments": lambda: jpeg_with(segment(0xE1, _EXIF + bytes(65_000))),
    "jpeg turned a thousand times": lambda: jpeg_with(
        segment(0xE1, _EXIF + directory(0x112, 5, 8000, 64_000))
    ),
    "jpeg xmp segments": lambda: jpeg_with(segment(0xE1, _XMP + b"<x " * 20_000)),
    "jpeg photoshop segments": lambda: jpeg_with(
        segment(0xED, b"Photoshop 3.0\0" + struct.pack(">4sHHI", b"8BIM", 1028, 0, 0) * 5000)
    ),
    "jpeg profile parts": lambda: jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65_000))),
    "jpeg comments": lambda: jpeg_with(segment(0xFE, bytes(320))),
    "jpeg picture index": mpf_of_numbers,
    "jpeg tables": lambda: jpeg_with(segment(0xDB, (b"\0" + bytes(64)) * 1000)),
    "jpeg frame headers": lambda: jpeg_with(
        segment(0xC0, struct.pack(">BHHB", 8, 64, 64, 3) + bytes(65_000))
    ),
    "jpeg exif segments without an end": lambda: jpeg_with(segment(0xE1, _EXIF + bytes(320)))[:-2],
    "webp exif chunks": lambda: webp_with(webp_chunk(b"EXIF", bytes(8)) * ((MANY - 5000) // 16), 8),
    "webp unknown chunks": lambda: webp_with(webp_chunk(b"abcd", b"") * ((MANY - 5000) // 8), 0),
    "webp turned a million times": lambda: webp_with(webp_chunk(b"EXIF", orientations()), 8),
    "webp turned by shorts": lambda: webp_with(webp_chunk(b"EXIF", orientations(3, 2)), 8),
    "webp xmp": lambda: webp_with(webp_chunk(b"XMP ", b'tiff:Orientation="' * 700_000), 4),
    "gif comments": lambda: gif_with(b"!\xfe" + (b"\xff" + b"x" * 255) * 300 + b"\0"),
    "gif applications": lambda: gif_with(
        b"!\xff\x0bXMP DataXMP" + (b"\xff" + b"x" * 255) * 20 + b"\0"
    ),
    "tiff bits a sample": lambda: tiff_of_numbers(258, 3, 2),
    "tiff resolution": lambda: tiff_of_numbers(282, 5, 8),
    "tiff turned a million times": lambda: tiff_of_numbers(274, 5, 8),
    "tiff xmp of numbers": lambda: tiff_of_numbers(700, 5, 8),
    "tiff profile of numbers": lambda: tiff_of_numbers(34675, 6, 1),
    "tiff colours": lambda: tiff_of_numbers(320, 3, 2),
}
"""Each decodes to a picture, or is refused with an error that names the fault."""
