"""Metadata that affects the picture is read, and other metadata has no effect."""

from __future__ import annotations

import logging
import struct
import zlib
from typing import Final

import pytest
from PIL import Image

from services.shared import imaging
from services.shared.errors import SimileError, UndecodableImage
from services.shared.imaging.formats.jpeg_metadata import without_metadata
from tests.support import pictures

LIMITS: Final = imaging.Limits(15 * 2**20, 64_000_000, 100.0)
WIDE: Final = (64, 32)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _exif(orientation: int, kind: int = 3, many: int = 1) -> bytes:
    """Return an EXIF block with an orientation, as a value or the first of an array."""
    value = struct.pack("<HH", orientation, 0)
    if many > 1:
        value = struct.pack("<L", 26)
    entry = struct.pack("<HHHL", 1, 0x112, kind, many) + value
    return b"II*\0" + struct.pack("<L", 8) + entry + bytes(4) + bytes(8 * (many - 1))


def _jpeg(*segments: bytes) -> bytes:
    plain = pictures.encoded(Image.new("RGB", WIDE, "teal"), "JPEG")
    return plain[:2] + b"".join(segments) + plain[2:]


def _png(*chunks: bytes) -> bytes:
    plain = pictures.encoded(Image.new("RGB", WIDE, "teal"), "PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def _webp(exif: bytes) -> bytes:
    return pictures.encoded(Image.new("RGB", WIDE, "teal"), "WEBP", exif=exif)


def _exif_segment(exif: bytes) -> bytes:
    return _segment(0xE1, b"Exif\0\0" + exif)


def _xmp_segment(orientation: int) -> bytes:
    packet = f'<x tiff:Orientation="{orientation}"/>'.encode()
    return _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)


def _size(image: bytes) -> tuple[int, int]:
    return imaging.decode(image, LIMITS).size


@pytest.mark.parametrize(
    "image",
    [
        _jpeg(_exif_segment(_exif(6))),
        _jpeg(_exif_segment(_exif(6, kind=4))),
        _jpeg(_exif_segment(_exif(6)), _exif_segment(_exif(3))),
        _jpeg(_xmp_segment(6)),
        _jpeg(_exif_segment(b"II*\0"), _xmp_segment(6)),
        _png(_chunk(b"eXIf", _exif(6))),
        _webp(_exif(6)),
        _webp(b"Exif\0\0" + _exif(6)),
    ],
)
def test_an_orientation_turns_the_picture(image: bytes) -> None:
    """The orientation comes from the first EXIF block, or from XMP without EXIF."""
    assert _size(image) == WIDE[::-1]


@pytest.mark.parametrize(
    "image",
    [
        _jpeg(_exif_segment(_exif(6, many=900))),
        _jpeg(_exif_segment(_exif(6, many=900)), _xmp_segment(6)),
        _png(_chunk(b"eXIf", _exif(6, kind=5, many=900))),
        _webp(_exif(6, kind=5, many=900)),
        _webp(b"Exif\0\0"),
        _jpeg(_exif_segment(_exif(99))),
    ],
)
def test_an_orientation_that_is_no_single_number_turns_nothing(image: bytes) -> None:
    """The picture is shown as stored."""
    assert _size(image) == WIDE


def test_a_photograph_reaches_the_decoder_unchanged() -> None:
    """The bytes are not copied, since the file has each segment once."""
    others = (_segment(0xED, b"Photoshop 3.0\0"), _segment(0xE2, b"MPF\0" + bytes(90)))
    photo = _jpeg(_exif_segment(_exif(6)), _xmp_segment(6), _segment(0xFE, b"comment"), *others)
    assert without_metadata(photo) is photo


def test_repeated_segments_are_taken_out() -> None:
    """The first EXIF and XMP segments stay, and a bounded number of the others."""
    exif, xmp, comment = _exif_segment(_exif(6)), _xmp_segment(6), _segment(0xFE, b"comment")
    profile = _segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000))
    trimmed = without_metadata(_jpeg(*[exif, xmp, comment, profile] * 100))
    assert (trimmed.count(exif), trimmed.count(xmp)) == (1, 1)
    assert 1 < trimmed.count(comment) < 100
    assert 1 < trimmed.count(profile) < 20
    assert _size(trimmed) == WIDE[::-1]


@pytest.mark.parametrize(
    "image",
    [
        _jpeg(*[_segment(0xDB, b"\0" + bytes(64))] * 2000),
        _jpeg(_segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 3) + bytes(9))),
        _jpeg(*[b"\xff\xe5\0\2"] * 60_000),
    ],
)
def test_tables_frames_and_segments_without_number_are_refused(image: bytes) -> None:
    """Pillow would read each of these in Python."""
    with pytest.raises(UndecodableImage):
        imaging.probe(image, LIMITS)


def test_junk_between_segments_hides_none_of_them() -> None:
    """Junk between segments is skipped, as by Pillow."""
    exif = _exif_segment(_exif(6))
    trimmed = without_metadata(_jpeg(exif, b"junk", b"\xff\xff", exif, b"\xff\xd0", exif))
    assert trimmed.count(exif) == 1


def test_the_first_colour_profile_of_a_png_counts() -> None:
    """Further profiles are not unpacked."""
    first, second = (
        _chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(size))) for size in (300, 400)
    )
    assert len(imaging.decode(_png(first, second, second), LIMITS).info["icc_profile"]) == 300


def test_pillow_writes_no_error_about_a_file_that_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error is in the answer; log lines for hostile files would fill a disk."""
    tags = struct.pack("<H", 3)
    for tag, value in ((256, 8), (257, 8), (277, 60_000)):
        tags += struct.pack("<HHLL", tag, 4, 1, value)
    with caplog.at_level(logging.DEBUG), pytest.raises(SimileError):
        imaging.probe(b"II*\0" + struct.pack("<L", 8) + tags + bytes(4), LIMITS)
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]
