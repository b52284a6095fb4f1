"""TIFF directories that cause far more work than their pictures are refused; valid ones are not."""

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
    """Each kind of file is refused before a library unpacks it."""
    for image in containers.variants(kind):
        for look in (imaging.probe, imaging.decode):
            with pytest.raises(errors.UndecodableImage, match="TIFF"):
                look(image, LIMITS)


@pytest.mark.parametrize("side", [16, 512, 1024])
def test_tiles_may_end_beyond_the_picture(side: int) -> None:
    """A tile of a tiny picture may be as large as that of a large picture."""
    tags = {322: (4, [side]), 323: (4, [side]), 324: (4, [8]), 325: (4, [side * side])}
    small = bombs.tiff(min(side, 40), min(side, 30), tags, bytes(side * side))
    assert imaging.decode(small, LIMITS).size == (min(side, 40), min(side, 30))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "RGBA", "CMYK"])
def test_tiffs_as_encoders_write_them_are_taken(mode: str, compression: str) -> None:
    """Several modes and compressions are accepted."""
    if compression == "jpeg" and mode in {"1", "RGBA"}:
        compression = "packbits"
    image = pictures.encoded(pictures.scene().convert(mode), "TIFF", compression=compression)
    tiff.check(image)
    assert imaging.decode(image, LIMITS).size == (96, 64)


def test_planes_may_each_have_their_strips() -> None:
    """A planar picture has a list of strips for each channel."""
    tags = {258: (3, [8] * 4), 262: (3, [2]), 273: (4, [8] * 4096), 277: (3, [4]), 278: (4, [1]),
            279: (4, [1024] * 4096), 284: (3, [2]), 338: (3, [1])}  # fmt: skip
    tiff.check(bombs.tiff(1024, 1024, tags, bytes(1024)))


def test_a_repeated_tag_is_refused() -> None:
    """Pillow and libtiff would use different ones of the two."""
    image = bytearray(pictures.encoded(pictures.scene(), "TIFF"))
    start = struct.unpack_from("<L", image, 4)[0]
    struct.pack_into("<H", image, start + 2 + 12, 256)  # the height's tag is now the width's
    with pytest.raises(errors.UndecodableImage, match="twice"):
        tiff.check(bytes(image))


def test_a_directory_that_the_files_end_cuts_is_checked_as_far_as_it_goes() -> None:
    """A truncated directory is checked, since Pillow reads it, too."""
    image = bytearray(containers.tiff_tiles(20, 2**17))
    start = struct.unpack_from("<L", image, 4)[0]
    struct.pack_into("<H", image, start, 900)
    with pytest.raises(errors.UndecodableImage, match="strips or tiles"):
        tiff.check(bytes(image))


def test_other_bytes_than_a_tiff_pass_the_check() -> None:
    """A directory outside of the file passes the check, too."""
    for image in (b"", b"II", b"II*\0", b"II*\0\xff\xff\xff\xff", b"no image at all"):
        tiff.check(image)
    tiff.check(pictures.encoded(Image.new("RGB", (8, 8)), "PNG"))
