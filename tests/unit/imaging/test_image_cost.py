"""The decoder's work is bounded by the size of a file, and its memory is known in advance."""

from __future__ import annotations

import struct

import pytest
from PIL import Image

from services.shared import errors, imaging
from services.shared.imaging import image_cost
from tests.hostile import bombs
from tests.support import pictures

LIMITS = imaging.Limits(max_bytes=15 * 2**20, max_pixels=64_000_000, max_aspect=100.0)


def test_a_jpeg_with_scans_of_one_component_has_a_limit_of_scans() -> None:
    """Scans of a component are counted in any JPEG; a picture with three of them is accepted."""
    few = bombs.jpeg_scans(3, side=64, progressive=False)
    assert imaging.probe(few, LIMITS).progressive
    assert imaging.decode(few, LIMITS).size == (64, 64)
    for look in (imaging.probe, imaging.decode):
        with pytest.raises(errors.UndecodableImage, match="scans"):
            look(bombs.jpeg_scans(200, side=64, progressive=False), LIMITS)


def test_an_ordinary_jpeg_is_one_scan_whatever_follows() -> None:
    """A thumbnail in the first segments, with scans of its own, is not counted."""
    inner = pictures.encoded(pictures.scene(), "JPEG", progressive=True)
    image = pictures.encoded(pictures.scene(), "JPEG", exif=b"Exif\0\0" + inner)
    assert not imaging.probe(image, LIMITS).progressive


def test_what_is_read_in_countless_pieces_is_refused() -> None:
    """The limit holds for any format, and is far above the needs of pictures."""
    with pytest.raises(errors.UndecodableImage, match="pieces"):
        imaging.probe(bombs.jpeg_segments(), LIMITS)
    reader = image_cost.Reader(pictures.encoded(pictures.scene(1000, 800), "PNG"))
    with Image.open(reader) as opened:
        opened.load()
    assert reader.reads < image_cost.MAX_READS / 100


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_is_not_opened_when_its_tiles_are_countless(order: str, *, big: bool) -> None:
    """The limit holds in either byte order, for TIFF and BigTIFF."""
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}H", 43 if big else 42)
    if big:
        start += struct.pack(f"{order}HHQ", 8, 0, 16)
        entry = struct.pack(f"{order}QHHQQ", 1, 324, 4, 2_000_000, 8)
    else:
        start += struct.pack(f"{order}L", 8)
        entry = struct.pack(f"{order}HHHLL", 1, 324, 4, 2_000_000, 8)
    with pytest.raises(errors.UndecodableImage, match="2000000 strips or tiles"):
        imaging.probe(start + entry + bytes(64), LIMITS)


@pytest.mark.parametrize(
    "name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000"]
)
def test_the_first_bytes_name_the_format(name: str) -> None:
    """The name comes from the bytes alone; other bytes have no name."""
    assert imaging.format_of(pictures.encoded(pictures.scene(), name)[:16]) == name
    assert imaging.format_of(b"no image") == ""
    assert imaging.format_of(b"") == ""


def test_memory_is_foreseen_by_format_size_and_target() -> None:
    """A JPEG in one scan is decoded at a fraction; with several scans, it is held whole."""
    plain = imaging.Probe("JPEG", "image/jpeg", 4000, 3000)
    assert plain.memory() == 12 * 4000 * 3000
    assert plain.memory(448) == 12 * 1000 * 750
    scans = imaging.Probe("JPEG", "image/jpeg", 4000, 3000, progressive=True)
    assert scans.memory() == scans.memory(448) == 16 * 4000 * 3000
    tiled = imaging.Probe("AVIF", "image/avif", 1000, 1000, decoded_pixels=1024 * 1024)
    assert tiled.memory() == 16 * 1024 * 1024
