"""A part of an image is cut from the right place, at the resolution needed, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from services.shared import errors, imaging
from services.shared.contracts import Box
from tests.support import pictures
from tests.unit.imaging.test_imaging import FORMATS, LIMITS, STORED, TURNED

LARGE = imaging.Limits(max_bytes=2**24, max_pixels=20_000_000, max_aspect=20.0)
CORNER = Box(0.5, 0.25, 0.5, 0.75)


def _by_hand(whole: Image.Image) -> Image.Image:
    return whole.crop((whole.width // 2, whole.height // 4, whole.width, whole.height))


@pytest.mark.parametrize("name", FORMATS)
def test_the_box_is_cut_from_every_format(name: str) -> None:
    """The box's pixels are those of the whole image, cut by hand."""
    image = pictures.encoded(pictures.scene(), name)
    part = imaging.decode(image, LIMITS, box=CORNER)
    assert pictures.difference(part, _by_hand(imaging.decode(image, LIMITS))) == 0


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(("name", "options"), TURNED, ids=[name for name, _ in TURNED])
def test_the_box_is_of_the_upright_image(
    name: str, options: Callable[[int], dict[str, Any]], turn: int
) -> None:
    """The box refers to the upright image, however the image is stored."""
    how = STORED[turn]
    stored = pictures.scene() if how is None else pictures.scene().transpose(how)
    image = pictures.encoded(stored, name, **options(turn))
    part = imaging.decode(image, LIMITS, box=CORNER, target=40)
    assert part.size == (48, 48)
    assert pictures.difference(part, _by_hand(pictures.scene())) < 8


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(("name", "options"), TURNED, ids=[name for name, _ in TURNED])
def test_cutting_and_turning_change_no_pixel(
    name: str, options: Callable[[int], dict[str, Any]], turn: int
) -> None:
    """A part equals the same part of the decoded whole, to the bit."""
    image = pictures.encoded(pictures.scene(97, 61), name, **options(turn))
    whole = imaging.decode(image, LIMITS)
    part = imaging.decode(image, LIMITS, box=Box(20 / whole.width, 0, 30 / whole.width, 0.5))
    by_hand = whole.crop((20, 0, 50, -(-whole.height // 2)))
    assert pictures.difference(part, by_hand) == 0


@pytest.mark.parametrize("turn", [1, 6])
def test_a_large_jpeg_is_decoded_as_finely_as_the_box_needs(turn: int) -> None:
    """A small box keeps its pixels; a large one is decoded at a fraction."""
    image = pictures.encoded(pictures.scene(4000, 2400), "JPEG", exif=pictures.exif(turn))
    upright = (4000, 2400) if turn == 1 else (2400, 4000)
    small = imaging.decode(image, LARGE, target=256, box=Box(0.4, 0.4, 0.1, 0.1))
    assert small.size == (upright[0] // 10, upright[1] // 10)
    large = imaging.decode(image, LARGE, target=256, box=Box(0, 0, 1, 1))
    assert min(large.size) == 300
    middle = imaging.decode(image, LARGE, target=256, box=Box(0.25, 0.25, 0.5, 0.5))
    assert 256 <= min(middle.size) < 1200


@pytest.mark.parametrize(
    ("box", "error"),
    [
        (Box(0, 0, 0.1, 1), errors.BoxTooSmall),
        (Box(0.95, 0.95, 0.05, 0.05), errors.BoxTooSmall),
        (Box(0, 0, 1, 0.02), errors.ExtremeAspect),
    ],
    ids=["narrow", "corner", "long"],
)
def test_a_box_with_too_little_in_it_is_refused(box: Box, error: type[Exception]) -> None:
    """The error names the box."""
    size = (2000, 1000) if error is errors.ExtremeAspect else (100, 100)
    limits = imaging.Limits(2**24, 20_000_000, 20.0)
    with pytest.raises(error, match="box"):
        imaging.decode(pictures.encoded(Image.new("RGB", size), "PNG"), limits, box=box)


_fractions = st.floats(-0.5, 1.5) | st.sampled_from([0.0, 1.0, 0.5, 1e-9])


@given(_fractions, _fractions, _fractions, _fractions)
def test_no_box_breaks_the_decoder(left: float, top: float, width: float, height: float) -> None:
    """Any numbers give a part of the image or a named error."""
    image = pictures.encoded(pictures.scene(), "JPEG")
    try:
        part = imaging.decode(image, LIMITS, target=16, box=Box(left, top, width, height))
    except errors.SimileError:
        return
    assert part.width >= 8
    assert part.height >= 8
