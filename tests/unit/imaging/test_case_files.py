"""The decoder handles small files of other programs, each as is right for the file."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image

from services.shared import errors, imaging
from tests.support import pictures
from tests.support.photographs import cases_dir

LIMITS = imaging.Limits(max_bytes=15 * 2**20, max_pixels=64_000_000, max_aspect=100.0)


def _decoded(name: str) -> Image.Image:
    return imaging.decode((cases_dir() / name).read_bytes(), LIMITS)


@pytest.mark.parametrize(
    "name",
    [
        "text_chunk_over_1MB.png", "no_end_marker.jpg", "linear_light_with_profile.png",
        "jpeg_2000.jp2", "item.heic", "item.tif", "orientation_as_irot.heic",
    ],
)  # fmt: skip
def test_sound_files_are_the_picture_that_they_hold(name: str) -> None:
    """Each file nearly equals the reference, as far as its compression allows."""
    assert pictures.difference(_decoded(name), _decoded("reference.png")) < 8


def test_white_is_zero_is_its_twin() -> None:
    """Both files give the same pixels."""
    one, other = _decoded("gray16_white_is_zero.tif"), _decoded("gray16_black_is_zero.tif")
    assert pictures.difference(one, other) <= 1


def test_exif_alone_does_not_turn_a_heif() -> None:
    """The picture is shown as stored, since EXIF's orientation in a HEIF is informative."""
    assert _decoded("orientation_in_exif_alone.heic").size == (120, 160)


def test_a_white_star_is_on_a_ground_that_shows_it() -> None:
    """The picture is not blank, and has the shape of the star on blue."""
    star = _decoded("white_star_on_transparent.png").convert("L").point(_bright)
    blue = _decoded("white_star_on_blue.png").convert("L").point(_bright)
    assert star.getextrema() == (0, 255)
    assert pictures.difference(star.convert("RGB"), blue.convert("RGB")) < 8


_bright: Callable[[int], int] = lambda level: 255 * (level > 200)  # noqa: E731 (for `point`)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tiff_jpeg2000.tif", "JPEG 2000 compression"), ("tiff_jpegxl.tif", "JPEG XL compression"),
        ("tiff_webp.tif", "WebP compression"), ("jpeg_12bit.jpg", "12 bits"),
        ("camera_raw.dng", "camera raw"), ("jpeg_xl.jxl", "JPEG XL"),
    ],
)  # fmt: skip
def test_kinds_that_are_not_read_are_named(
    name: str, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The file is refused with 415, and nothing is written to stderr."""
    with pytest.raises(errors.UnsupportedFormat, match=kind):
        _decoded(name)
    assert capfd.readouterr().err == ""
