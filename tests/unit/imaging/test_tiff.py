"""TIFF directories that would make far more work than their pictures, and sound ones."""

from __future__ import annotations

import struct

import pytest
from PIL import Image

from services.shared import errors, imaging
from services.shared.imaging.formats import tiff
from tests.hostile import bombs, containers
from tests.support import pictures

LIMITS = imaging.Limits(max_bytes=15 * 2**20, max_pixels=64_000_000, max_aspect=100.0)


@pytest.mark.parametrize("kind", ["tiff tiles", "tiff tags"])
def test_work_that_a_few_bytes_repeat_is_refused_by_the_directory(kind: str) -> None:
    """Ten of each kind; nothing is unpacked."""
    for image in containers.variants(kind):
        for look in (imaging.sniff, imaging.decode):
            with pytest.raises(errors.UndecodableImage, match="TIFF"):
                look(image, LIMITS)


@pytest.mark.parametrize("side", [16, 512, 1024])
def test_tiles_may_end_beyond_the_picture(side: int) -> None:
    """A tile is as large for a tiny picture as for a large one."""
    tags = {322: (4, [side]), 323: (4, [side]), 324: (4, [8]), 325: (4, [side * side])}
    small = bombs.tiff(min(side, 40), min(side, 30), tags, bytes(side * side))
    assert imaging.decode(small, LIMITS).size == (min(side, 40), min(side, 30))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "RGBA", "CMYK"])
def test_tiffs_as_encoders_write_them_are_taken(mode: str, compression: str) -> None:
    """Of several modes and compressions."""
    if compression == "jpeg" and mode in {"1", "RGBA"}:
        compression = "packbits"
    image = pictures.encoded(pictures.scene().convert(mode), "TIFF", compression=compression)
    tiff.check(image)
    assert imaging.decode(image, LIMITS).size == (96, 64)


def test_planes_may_each_have_their_strips() -> None:
    """As many times as many strips as the picture has channels."""
    tags = {258: (3, [8] * 4), 262: (3, [2]), 273: (4, [8] * 4096), 277: (3, [4]), 278: (4, [1]),
            279: (4, [1024] * 4096), 284: (3, [2]), 338: (3, [1])}  # fmt: skip
    tiff.check(bombs.tiff(1024, 1024, tags, bytes(1024)))


def test_a_tag_that_stands_twice_is_refused() -> None:
    """Pillow and libtiff would not take the same one."""
    image = bytearray(pictures.encoded(pictures.scene(), "TIFF"))
    start = struct.unpack_from("<L", image, 4)[0]
    struct.pack_into("<H", image, start + 2 + 12, 256)  # the height's tag is the width's now
    with pytest.raises(errors.UndecodableImage, match="twice"):
        tiff.check(bytes(image))


def test_a_directory_that_the_files_end_cuts_is_checked_as_far_as_it_goes() -> None:
    """Pillow reads it, too."""
    image = bytearray(containers.tiff_tiles(20, 2**17))
    start = struct.unpack_from("<L", image, 4)[0]
    struct.pack_into("<H", image, start, 900)
    with pytest.raises(errors.UndecodableImage, match="strips or tiles"):
        tiff.check(bytes(image))


def test_what_is_no_tiff_is_left_alone() -> None:
    """Nor is a directory that lies outside of the file."""
    for image in (b"", b"II", b"II*\0", b"II*\0\xff\xff\xff\xff", b"no image at all"):
        tiff.check(image)
    tiff.check(pictures.encoded(Image.new("RGB", (8, 8)), "PNG"))
