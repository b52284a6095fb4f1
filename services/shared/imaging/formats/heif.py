"""Reads from a HEIC's or AVIF's boxes its size, and the number of pixels to decode.

Such a file may reference the same few bytes many times: as tiles, layers, frames. Every use
is counted, since a decoder decodes each.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.shared.errors import TooManyPixels, UndecodableImage, UnsupportedFormat
from services.shared.imaging.formats import video
from services.shared.imaging.formats.boxes import Box
from services.shared.imaging.formats.isobmff import Container, Item, container
from services.shared.imaging.formats.tracks import Track
from services.shared.imaging.reading import Fields

MAX_TIMES_SHOWN: Final = 4
"""The maximum of decoded pixels for each displayed pixel: edges of tiles, layers."""

FLOOR_PIXELS: Final = 2**20
"""Always permitted: a tiny picture may have a tile of this size."""

_MAX_DEPTH: Final = 4
_MAX_FRAMES: Final = 4
"""The maximum of frames in the first sample of a sequence, which may have hidden pictures."""

_HEVC: Final = frozenset({b"hvc1", b"hev1"})
_CODED: Final = _HEVC | {b"av01"}
_NOT_READ: Final = frozenset({b"avc1", b"evc1", b"j2k1", b"jpeg", b"lhv1", b"unci", b"vvc1"})
"""Valid codecs that no library here reads."""

_DERIVED: Final = frozenset({b"grid", b"iovl", b"iden"})
_SEQUENCE_BRANDS: Final = frozenset({b"avis", b"msf1", b"hevc", b"hevx", b"hevm", b"hevs"})
_WIDE_FIELDS: Final = 1
_CHANNELS: Final = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture of a container.

    format: AVIF or HEIF. width, height: as Pillow shows them. decoded_pixels: the pixels to
    decode or fill; those of the single channel of transparency count a quarter.
    """

    format: str
    width: int
    height: int
    decoded_pixels: int


def read(image: bytes, max_pixels: int) -> Picture:
    """Read a HEIC or AVIF file without decoding it.

    Raises UndecodableImage if it is broken or makes a decoder process the same bytes many times,
    TooManyPixels if it decodes more than `max_pixels`.
    """
    try:
        picture = _Reader(container(image)).picture()
    except struct.error as error:
        message = f"the image is truncated or corrupt: {error}"
        raise UndecodableImage(message) from error
    _check_decoded(picture, max_pixels)
    return picture


def _check_decoded(picture: Picture, max_pixels: int) -> None:
    shown, decoded = picture.width * picture.height, picture.decoded_pixels
    # Tiles extend beyond the edges, and transparency counts a quarter.
    if decoded > 1.5 * max_pixels + FLOOR_PIXELS:
        message = f"the image decodes {decoded} pixels; {max_pixels} are accepted"
        raise TooManyPixels(message)
    if decoded > MAX_TIMES_SHOWN * shown + FLOOR_PIXELS:
        message = f"the image decodes {decoded} pixels to show {shown}: save it as one layer"
        raise UndecodableImage(message)


class _Reader:
    """Adds up the decoded pixels of a container's items."""

    def __init__(self, held: Container) -> None:
        self._held = held
        self._units = video.Units()
        self._decoded = functools.cache(self._count_decoded)

    def picture(self) -> Picture:
        primary = self._held.items.get(self._held.primary)
        tracks = self._held.tracks
        if tracks and (primary is None or self._held.brand in _SEQUENCE_BRANDS):
            return self._sequence(tracks, primary)
        if primary is None:
            message = "the image has no picture"
            raise UndecodableImage(message)
        kind = self._coded_kind(self._held.primary)
        width, height = self._shown(primary, turned=kind in _HEVC)
        decoded = self._decoded(self._held.primary, 0)
        decoded += self._decoded_alpha() // _CHANNELS
        return Picture("HEIF" if kind in _HEVC else "AVIF", width, height, decoded)

    def _sequence(self, tracks: Sequence[Track], primary: Item | None) -> Picture:
        first = tracks[0]
        decoded = [self._first_frame(track) for track in tracks]
        if primary is not None:
            decoded.append(self._decoded(self._held.primary, 0))
        name = "HEIF" if first.kind in _HEVC else "AVIF"
        return Picture(name, first.width, first.height, max(decoded))

    def _first_frame(self, track: Track) -> int:
        data = self._held.image[slice(*track.first)]
        coded = self._coded(track.kind, track.properties, data)
        if coded.pictures > _MAX_FRAMES:
            message = (
                f"the first frame of the file holds {coded.pictures} pictures, and {_MAX_FRAMES} "
                "are accepted: save the image as JPEG or PNG"
            )
            raise UndecodableImage(message)
        return coded.pixels * max(1, coded.pictures)

    def _coded_kind(self, number: int, depth: int = 0) -> bytes:
        """Return the codec of an item, or of the first item that it is derived from."""
        item = self._item(number)
        if item.kind in _CODED:
            return item.kind
        parts = self._held.references.get((b"dimg", number), ())
        if item.kind not in _DERIVED or not parts or depth >= _MAX_DEPTH:
            kind = item.kind.decode("latin-1")
            message = (
                f"the image is coded as {kind!r}, which is not supported: save it as JPEG or PNG"
            )
            raise (UnsupportedFormat if item.kind in _NOT_READ else UndecodableImage)(message)
        return self._coded_kind(parts[0], depth + 1)

    def _item(self, number: int) -> Item:
        item = self._held.items.get(number)
        if item is None:
            message = "the image refers to a part that is not there"
            raise UndecodableImage(message)
        return item

    def _shown(self, item: Item, *, turned: bool) -> tuple[int, int]:
        size = item.property(b"ispe")
        if size is None:
            message = "the image does not say its size"
            raise UndecodableImage(message)
        fields = Fields(self._held.image, size.start + 4, size.end)
        width, height = fields.number(4), fields.number(4)
        for box in item.properties if turned else ():
            fields = Fields(self._held.image, box.start, box.end)
            if box.kind == b"irot" and fields.number(1) & 1:
                width, height = height, width
            elif box.kind == b"clap":
                width, height = _cropped(fields, width), _cropped(fields, height)
        return width, height

    def _decoded_alpha(self) -> int:
        """Return the decoded pixels of transparency; each tile may have an alpha plane."""
        return sum(
            self._decoded(origin, 0)
            for kind, origin in self._held.references
            if kind == b"auxl" and self._is_alpha(self._held.items.get(origin))
        )

    def _is_alpha(self, item: Item | None) -> bool:
        box = item.property(b"auxC") if item else None
        if box is None:
            return False
        name = self._held.image[box.start + 4 : min(box.end, box.start + 64)]
        return b"alpha" in name or b"auxid:1\0" in name

    def _count_decoded(self, number: int, depth: int) -> int:
        """Return the decoded or filled pixels of an item; each use counts."""
        item = self._item(number)
        if item.kind in _CODED:
            coded = self._coded(item.kind, item.properties, self._held.content(item))
            if coded.pictures > 1:
                message = (
                    f"one picture inside the file holds {coded.pictures} frames, and one is "
                    "accepted: save the image as JPEG or PNG"
                )
                raise UndecodableImage(message)
            return coded.pixels
        if item.kind not in _DERIVED or depth >= _MAX_DEPTH:
            message = "the image is put together in an unsupported way: save it as JPEG or PNG"
            raise UndecodableImage(message)
        parts = self._held.references.get((b"dimg", number), ())
        return max(self._canvas(item), sum(self._decoded(part, depth + 1) for part in parts))

    def _canvas(self, item: Item) -> int:
        """Return the pixels of the canvas of a grid or an overlay."""
        fields = Fields(self._held.content(item))
        if item.kind == b"iden":
            return 0
        fields.skip(1)
        wide = 4 if fields.number(1) & _WIDE_FIELDS else 2
        fields.skip(2 if item.kind == b"grid" else 8)
        return math.prod((fields.number(wide), fields.number(wide)))

    def _coded(self, kind: bytes, properties: Sequence[Box], data: bytes) -> video.Coded:
        boxes = [box for box in properties if box.kind in {b"hvcC", b"av1C"}]
        if not boxes:
            message = "a picture inside the image does not say how it is coded"
            raise UndecodableImage(message)
        configuration = self._held.image[boxes[0].start : boxes[0].end]
        read_codec = video.hevc if kind in _HEVC else video.av1
        return read_codec(configuration, data, self._units)


def _cropped(fields: Fields, length: int) -> int:
    """Return a side of a clean aperture, a fraction; the whole side if that is broken."""
    above, below = fields.number(4), fields.number(4)
    return min(length, max(1, round(above / below))) if above and below else length
