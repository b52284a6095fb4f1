"""Applies EXIF orientations: eight ways in which an image is stored turned or mirrored."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from PIL import ExifTags, Image

from services.shared.errors import UndecodableImage
from services.shared.imaging.formats import tiff

Edges = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""

_UPRIGHT: Final[dict[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that reverts each orientation."""

_AS_STORED: Final = 1
_TURNED_BY_ITSELF: Final = frozenset({"HEIF", "TIFF"})

_PREFIX: Final = b"Exif\0\0"
"""The start of an EXIF block in a JPEG; some programs write it twice, or into other formats."""

_AS_TEXT: Final = "Raw profile type exif"
_LINES_BEFORE: Final = 3
"""In a PNG's text, EXIF follows these lines as hexadecimal digits."""

_IN_XMP: Final = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')

_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
"""The orientations that swap width and height."""

_MIRRORED_X: Final = frozenset({2, 3, 7, 8})
"""The orientations whose rows are stored from right to left."""

_MIRRORED_Y: Final = frozenset({3, 4, 6, 7})
"""The orientations whose columns are stored from below."""


def orientation_of(opened: Image.Image) -> int:
    """Return the orientation from 1 (upright) to 8; 1 where the file has no valid one.

    EXIF takes precedence over XMP.

    A HEIF is rotated by its own properties (irot, imir) when it is decoded; by the standard its
    EXIF orientation is informative, and libheif's tools ignore it, too. Pillow rotates
    a TIFF when it decodes it.
    """
    if opened.format in _TURNED_BY_ITSELF:
        return _AS_STORED
    said = _in_exif(_exif(opened.info))
    return _in_xmp(opened.info) if said is None else said


def _exif(info: Mapping[Any, Any]) -> bytes:
    """Return the EXIF block of an image as a TIFF; empty without any."""
    exif = info.get("exif")
    if exif is None and isinstance(text := info.get(_AS_TEXT), str):
        with suppress(ValueError):
            exif = bytes.fromhex("".join(text.split("\n")[_LINES_BEFORE:]))
    if not isinstance(exif, bytes):
        return b""
    return exif.removeprefix(_PREFIX).removeprefix(_PREFIX)


def _in_exif(exif: bytes) -> int | None:
    """Return the orientation in an EXIF block, parsed here; None without any.

    Pillow would create an object for each value, and a tag may have millions of values.
    """
    try:
        tag = tiff.directory(exif).get(ExifTags.Base.Orientation)
    except (struct.error, UndecodableImage):
        return None
    if tag is None:
        return None
    return tag.value if tag.many == 1 else _AS_STORED


def _in_xmp(info: Mapping[Any, Any]) -> int:
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    packet = xmp.encode(errors="replace") if isinstance(xmp, str) else bytes(xmp)
    found = _IN_XMP.search(packet)
    return int(found[1]) if found else _AS_STORED


def upright(stored: Image.Image, orientation: int) -> Image.Image:
    """Turn a stored image, or a part of it, upright."""
    turn = _UPRIGHT.get(orientation)
    return stored if turn is None else stored.transpose(turn)


def upright_size(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return width and height of the upright image."""
    width, height = stored
    return (height, width) if orientation in _SIDEWAYS else stored


def stored_edges(upright: Edges, stored: tuple[int, int], orientation: int) -> Edges:
    """Convert the edges of a part of the upright image to those in the stored image."""
    left, top, right, bottom = upright
    width, height = stored
    if orientation in _SIDEWAYS:
        left, top, right, bottom = top, left, bottom, right
    if orientation in _MIRRORED_X:
        left, right = width - right, width - left
    if orientation in _MIRRORED_Y:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
