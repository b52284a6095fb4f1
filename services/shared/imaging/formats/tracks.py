"""Finds the first frame in the tracks of animated HEIF and AVIF files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.shared.errors import UndecodableImage
from services.shared.imaging.formats.boxes import Box, at_most, boxes, by_kind, full
from services.shared.imaging.reading import Fields

MAX_TRACKS: Final = 8
MAX_FRAMES: Final = 100_000

_CODED: Final = frozenset({b"av01", b"hvc1", b"hev1"})
_TABLES: Final = frozenset({b"stsd", b"stsz", b"stco", b"co64", b"stsc", b"stts", b"stss"})
_BEFORE_SIZE: Final = 24
"""The bytes of a sample entry before its width and height."""

_ENTRY_BYTES: Final = 78


@dataclass(frozen=True, slots=True)
class Track:
    """The first frame of a track, and the codec's configuration."""

    kind: bytes
    width: int
    height: int
    properties: tuple[Box, ...]
    first: tuple[int, int]
    """Start and end of the first frame in the file."""


def read_tracks(image: bytes, moov: Box) -> list[Track]:
    """Read all tracks of pictures. Raises UndecodableImage, struct.error."""
    found = [box for box in boxes(image, moov.start, moov.end) if box.kind == b"trak"]
    at_most(len(found), MAX_TRACKS, "tracks")
    tracks = (_track(image, box) for box in found)
    return [track for track in tracks if track is not None]


def _track(image: bytes, trak: Box) -> Track | None:
    """Return a track's first frame; None if its pictures are not supported."""
    table = _inside(image, trak, b"mdia", b"minf", b"stbl")
    if table is None:
        return None
    parts = by_kind(image, table.start, table.end, _TABLES)
    _check_frames(image, parts)
    if b"stsd" not in parts:
        return None
    _, _, fields = full(image, parts[b"stsd"])
    fields.skip(4)
    entry = next(boxes(image, fields.place, parts[b"stsd"].end), None)
    first = _first_frame(image, parts)
    if entry is None or entry.kind not in _CODED or first is None:
        return None
    shown = Fields(image, entry.start + _BEFORE_SIZE, entry.end)
    properties = tuple(boxes(image, entry.start + _ENTRY_BYTES, entry.end))
    return Track(entry.kind, shown.number(2), shown.number(2), properties, first)


def _first_frame(image: bytes, parts: Mapping[bytes, Box]) -> tuple[int, int] | None:
    offsets = parts.get(b"stco") or parts.get(b"co64")
    if offsets is None or b"stsz" not in parts:
        return None
    _, _, sizes = full(image, parts[b"stsz"])
    size, frames = sizes.number(4), sizes.number(4)
    _, _, places = full(image, offsets)
    if not frames or not places.number(4):
        return None
    size = size or sizes.number(4)
    start = places.number(8 if offsets.kind == b"co64" else 4)
    if start + size > len(image):
        message = "the image is cut short: its first frame lies outside of the file"
        raise UndecodableImage(message)
    return start, start + size


def _inside(image: bytes, box: Box, *path: bytes) -> Box | None:
    """Return the box at the end of a path of nested boxes, or None."""
    for kind in path:
        inner = by_kind(image, box.start, box.end, {kind}).get(kind)
        if inner is None:
            return None
        box = inner
    return box


def _check_frames(image: bytes, parts: Mapping[bytes, Box]) -> None:
    """Refuse a sequence with an unreasonable number of frames. Raises UndecodableImage."""
    chunks = 0
    for kind in parts.keys() - {b"stsd"}:
        _, _, fields = full(image, parts[kind])
        fields.skip(4 if kind == b"stsz" else 0)
        count = fields.number(4)
        at_most(count, MAX_FRAMES, "frames")
        if kind in {b"stco", b"co64"}:
            chunks = max(chunks, count)
    if b"stsc" in parts:
        at_most(_frames_in_chunks(image, parts[b"stsc"], chunks), MAX_FRAMES, "frames")


def _frames_in_chunks(image: bytes, box: Box, chunks: int) -> int:
    """Return the frames in `chunks` chunks: a row applies up to the chunk of the next row."""
    _, _, fields = full(image, box)
    frames, since, each = 0, 1, 0
    for _ in range(fields.number(4)):
        first = fields.number(4)
        frames += max(0, first - since) * each
        since, each = first, fields.number(4)
        fields.skip(4)
    return frames + max(0, chunks + 1 - since) * each
