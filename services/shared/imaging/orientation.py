"""Applies EXIF orientations: eight ways in which an image is stored turned or mirrored."""

from __future__ import annotations

from typing import Final

from PIL import ExifTags, Image

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
"""The operation that undoes each orientation."""

_TURNED_BY_ITSELF: Final = "HEIF"

_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
"""They swap width and height."""

_MIRRORED_X: Final = frozenset({2, 3, 7, 8})
"""Their stored rows are read from right to left."""

_MIRRORED_Y: Final = frozenset({3, 4, 6, 7})
"""Their stored columns are read from below."""


def orientation_of(opened: Image.Image) -> int:
    """Return the orientation from 1 (upright) to 8; 1 where the file has no valid one.

    A HEIF is turned by its own properties (irot, imir) when it is decoded; the standard calls its
    EXIF orientation informative, and libheif's tools heed it no more than this does.
    """
    if opened.format == _TURNED_BY_ITSELF:
        return 1
    try:
        return int(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 (broken EXIF raises anything and spoils no pixels)
        return 1


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
