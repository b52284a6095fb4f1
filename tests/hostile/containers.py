"""Builds HEIC, AVIF and TIFF files that reference the same few bytes many times."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tests.hostile.bombs import tiff
from tests.support import heif_files
from tests.support.heif_files import File, Part

_SIDE: Final = 1_400


def metadata(items: int, extents: int, size: int) -> bytes:
    """Return a HEIC with metadata items that all consist of the same bytes, repeated."""
    configuration, picture = heif_files.coded("HEIF", 64)
    whole = Part(b"hvc1", [(0, len(picture))], (1, 2, 3))
    texts = [Part(b"mime", [(len(picture), size)] * extents)] * items
    references = [(b"cdsc", number, [1]) for number in range(2, 2 + items)]
    properties = [configuration, heif_files.size(64, 64), heif_files.depth()]
    return File(picture + bytes(size), [whole, *texts], properties, references).encoded()


def overlay(layers: int, items: int = 1, side: int = _SIDE) -> bytes:
    """Return a HEIC of 64 x 64 pixels that overlays the same large picture `layers` times."""
    content = heif_files.overlay(layers, 64, 64)
    return _derived(
        b"iovl", content, (64, 64), side, [2 + layer % items for layer in range(layers)]
    )


def grid(rows: int, columns: int, side: int = _SIDE) -> bytes:
    """Return a HEIC of 100 x 100 pixels that is a grid of the same large tile."""
    content = heif_files.grid(rows, columns, 100, 100)
    return _derived(b"grid", content, (100, 100), side, [2] * (rows * columns))


def _derived(
    kind: bytes, content: bytes, shown: tuple[int, int], side: int, parts: Sequence[int]
) -> bytes:
    configuration, picture = heif_files.coded("HEIF", side)
    properties = [configuration, heif_files.size(*shown), heif_files.depth(),
                  heif_files.size(side, side)]  # fmt: skip
    first = Part(kind, [(0, len(content))], (2, 3))
    tile = Part(b"hvc1", [(len(content), len(picture))], (1, 4, 3))
    items = [first, *[tile] * (max(parts) - 1)]
    return File(content + picture, items, properties, [(b"dimg", 1, parts)]).encoded()


def heic_frames(frames: int, side: int = _SIDE) -> bytes:
    """Return a HEIC whose item holds the same picture many times."""
    configuration, picture = heif_files.coded("HEIF", side)
    properties = [configuration, heif_files.size(side, side), heif_files.depth()]
    parts = [Part(b"hvc1", [(0, frames * len(picture))], (1, 2, 3))]
    return File(frames * picture, parts, properties).encoded()


def avif_frames(frames: int, shared: bool, side: int = _SIDE) -> bytes:  # noqa: FBT001 (rows of a table)
    """Return an AVIF whose item holds the same picture many times; shared: stored once."""
    configuration, picture = heif_files.coded("AVIF", side)
    properties = [configuration, heif_files.size(side, side), heif_files.depth()]
    extents = [(0, len(picture))] * frames if shared else [(0, frames * len(picture))]
    parts = [Part(b"av01", extents, (1, 2, 3))]
    data = picture if shared else frames * picture
    return File(data, parts, properties, brand=b"avif").encoded()


def hidden_size(name: str, shown: int, side: int = _SIDE) -> bytes:
    """Return a file that declares a small size and whose coded picture is large."""
    configuration, picture = heif_files.coded(name, side)
    properties = [configuration, heif_files.size(shown, shown), heif_files.depth()]
    kind, brand = (b"hvc1", b"heic") if name == "HEIF" else (b"av01", b"avif")
    return File(picture, [Part(kind, [(0, len(picture))], (1, 2, 3))], properties,
                brand=brand).encoded()  # fmt: skip


def profiles(pictures: int, size: int) -> bytes:
    """Return a HEIC of many pictures that share one long colour profile."""
    configuration, picture = heif_files.coded("HEIF", 64)
    profile = heif_files.box(b"colr", b"prof", bytes(size))
    properties = [configuration, heif_files.size(64, 64), heif_files.depth(), profile]
    parts = [Part(b"hvc1", [(0, len(picture))], (1, 2, 3, 4))] * pictures
    return File(picture, parts, properties).encoded()


def tiff_tiles(tiles: int, rows: int, width: int = 16, side: int = 320) -> bytes:
    """Return a TIFF of few tiles that extend far below the picture; all are the same bytes."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**16)) for _ in range(width * rows // 2**16))
    packed += packer.flush()
    tags = {
        259: (3, [8]), 322: (4, [width]), 323: (4, [rows]),
        324: (4, [8] * tiles), 325: (4, [len(packed)] * tiles),
    }  # fmt: skip
    return tiff(side, side, tags, packed + bytes(len(packed) % 2))


def tiff_tags(tags: int, size: int) -> bytes:
    """Return a TIFF whose many tags are all the same bytes, which a reader copies for each."""
    lines = b"".join(struct.pack("<HHLL", 40_000 + tag, 1, size, 8) for tag in range(tags))
    small = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 273: 8, 278: 64, 279: 4096}
    head = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in small.items())
    start = struct.pack("<HLL", 42, 8 + size, 0)
    directory = struct.pack("<H", len(small) + tags) + head + lines + bytes(4)
    return (b"II" + start)[:8] + bytes(size) + directory


_KINDS: Final[Mapping[str, tuple[Callable[..., bytes], Sequence[tuple[Any, ...]]]]] = {
    "heic metadata": (
        metadata,
        [(100, 32, 180_000), (1_000, 32, 20_000), (2_000, 4, 20_000), (70, 1, 10),
         (64, 32, 200_000), (32, 32, 300_000), (8, 1_000, 100_000), (50, 100, 50_000),
         (1, 8_000, 100_000), (5_000, 1, 1)],
    ),
    "heic overlay": (
        overlay,
        [(2, 1), (3, 3), (4, 1), (8, 8), (8, 1), (17, 1), (60, 60), (60, 1), (250, 2), (1_000, 1)],
    ),
    "heic grid": (
        grid,
        [(1, 1), (1, 2), (2, 2), (2, 3), (4, 4), (1, 16), (8, 8), (16, 16), (30, 40), (255, 3)],
    ),
    "heic frames": (heic_frames, [(n,) for n in (2, 3, 4, 5, 8, 16, 32, 64, 100, 200)]),
    "avif frames": (
        avif_frames,
        [(2, False), (3, True), (4, False), (7, True), (16, False), (50, True), (100, False),
         (300, True), (500, False), (3_000, True)],
    ),
    "hidden size": (
        hidden_size, [(name, shown) for name in ("HEIF", "AVIF") for shown in (1, 16, 64, 256, 400)]
    ),
    "heic profiles": (
        profiles,
        [(20, 10_000_000), (100, 1_000_000), (1_000, 100_000), (4_000, 10_000), (50, 500_000),
         (200, 200_000), (30, 1_000_000), (300, 300_000), (2_000, 5_000), (500, 50_000)],
    ),
    "tiff tiles": (
        tiff_tiles,
        [(20, 2**17, 16), (500, 2**15, 16), (1, 2**20, 16), (1, 2**14, 320), (40, 2**16, 32),
         (5_000, 2**13, 16), (2, 2**16, 160), (400, 4096, 320), (20, 2**18, 16),
         (30_000, 1024, 64)],
    ),
    "tiff tags": (
        tiff_tags,
        [(60, 14_000_000), (100, 1_000_000), (900, 100_000), (900, 10_000_000), (500, 50_000),
         (2_000, 10_000), (20_000, 100), (10, 5_000_000), (5, 9_000_000), (300, 300_000)],
    ),
}  # fmt: skip

KINDS: Final = tuple(_KINDS)


@functools.cache
def variants(kind: str) -> Sequence[bytes]:
    """Return ten files of that kind; each is built once."""
    make, numbers = _KINDS[kind]
    return [make(*each) for each in numbers]
