"""A HEIF is rotated by its own properties alone, as in the standard and libheif."""

from __future__ import annotations

import pytest

from services.shared import imaging
from tests.support import pictures

LIMITS = imaging.Limits(max_bytes=2**20, max_pixels=1_000_000, max_aspect=100.0)
_UPRIGHT = b"\x12\x01\x03\0\x01\0\0\0"
"""The EXIF entry of orientation 1, little-endian, up to its value."""


def _heif(turn: int) -> bytes:
    """Return a picture whose EXIF and properties (irot, imir) agree, as phones write it."""
    return pictures.encoded(pictures.scene(), "HEIF", exif=pictures.exif(turn), quality=95)


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_properties_turn_the_picture_once(turn: int) -> None:
    """A picture with both orientations is rotated once."""
    turned = imaging.decode(_heif(turn), LIMITS)
    assert turned.size == ((96, 64) if turn == 3 else (64, 96))


def test_exif_alone_turns_nothing() -> None:
    """Only the properties rotate the picture; EXIF's orientation in a HEIF is informative."""
    image = _heif(6)
    assert b"irot" in image
    bare = image.replace(b"irot", b"free")
    assert imaging.probe(bare, LIMITS).width == 96
    decoded = imaging.decode(bare, LIMITS)
    assert decoded.size == (96, 64)
    assert pictures.difference(decoded, pictures.scene()) < 6
