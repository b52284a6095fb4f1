"""The ground of transparent pictures is white, or dark where they would vanish on white."""

from __future__ import annotations

from typing import Any, cast

import pytest
from PIL import Image, ImageDraw

from services.shared import imaging
from services.shared.contracts import Box
from tests.support import pictures

LIMITS = imaging.Limits(max_bytes=2**20, max_pixels=1_000_000, max_aspect=100.0)
SIZE = (128, 128)
BOX = (24, 24, 104, 104)


def _logo(shape: str, color: tuple[int, ...] = (255, 255, 255)) -> Image.Image:
    logo = Image.new("RGBA", SIZE)
    drawing = ImageDraw.Draw(logo)
    if shape == "disc":
        drawing.ellipse(BOX, fill=color)
    elif shape == "frame":
        drawing.rectangle(BOX, outline=color, width=12)
    else:
        drawing.polygon([(64, 20), (108, 104), (20, 104)], fill=color)
    return logo


def _decoded(picture: Image.Image, name: str = "PNG", **options: Any) -> Image.Image:
    return imaging.decode(pictures.encoded(picture, name, **options), LIMITS)


def _levels(picture: Image.Image) -> tuple[int, int]:
    """Return the darkest and the lightest grey."""
    return cast("tuple[int, int]", picture.convert("L").getextrema())


def _over(logo: Image.Image, color: str) -> Image.Image:
    ground = Image.new("RGB", SIZE, color)
    ground.paste(logo, mask=logo)
    return ground


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000"])
def test_white_shapes_are_distinguishable(name: str) -> None:
    """White shapes on transparent differ in every format with transparency."""
    options = {"lossless": True} if name == "WEBP" else {}
    decoded = [_decoded(_logo(shape), name, **options) for shape in ("disc", "frame", "roof")]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert pictures.difference(decoded[one], decoded[other]) > 20
    assert decoded[0].getpixel((0, 0)) != (255, 255, 255)
    assert _levels(decoded[0].crop((60, 60, 68, 68)))[0] > 250


@pytest.mark.parametrize(
    "color",
    [(255, 255, 255, 255), (255, 255, 255, 90), (240, 244, 248, 255), (255, 250, 235, 255)],
    ids=["white", "half seen", "grey", "cream"],
)
def test_nearly_white_pictures_have_a_dark_ground(color: tuple[int, ...]) -> None:
    """A nearly white shape of any opacity contrasts with its ground."""
    low, high = _levels(_decoded(_logo("disc", color)))
    assert low == 64
    assert high >= 120


@pytest.mark.parametrize(
    "color",
    [(0, 0, 0, 255), (200, 30, 30, 255), (255, 255, 0, 255), (150, 220, 255, 255), (0, 0, 0, 20)],
    ids=["black", "red", "yellow", "pale blue", "a shadow"],
)
def test_other_pictures_keep_their_white_ground(color: tuple[int, ...]) -> None:
    """Shapes that contrast with white are laid over white, to the bit."""
    logo = _logo("disc", color)
    assert pictures.difference(_decoded(logo), _over(logo, "white")) == 0


def test_a_white_logo_with_a_spot_of_colour_has_a_dark_ground() -> None:
    """The white part decides, since it is nearly all of the logo."""
    logo = _logo("disc")
    ImageDraw.Draw(logo).ellipse((60, 60, 72, 72), fill=(230, 90, 20, 255))
    assert _decoded(logo).getpixel((0, 0)) == (64, 64, 64)


def test_pictures_that_show_nothing_or_all_are_white() -> None:
    """Pictures without visible pixels, and opaque ones, need no other ground."""
    assert _decoded(Image.new("RGBA", SIZE)).getextrema() == ((255, 255),) * 3
    page = Image.new("RGBA", SIZE, (255, 255, 255, 255))
    assert _decoded(page).getextrema() == ((255, 255),) * 3


def test_a_part_has_the_ground_of_its_picture() -> None:
    """The box is cut after the ground of the whole picture was chosen."""
    image = pictures.encoded(_logo("disc"), "PNG")
    part = imaging.decode(image, LIMITS, box=Box(0, 0, 0.25, 0.25))
    whole = imaging.decode(image, LIMITS)
    assert pictures.difference(part, whole.crop((0, 0, 32, 32))) == 0


def test_a_thumbnail_has_the_same_ground() -> None:
    """A thumbnail shows the shape that the model gets."""
    small = imaging.thumbnail(pictures.encoded(_logo("disc"), "PNG"), LIMITS, 64)
    assert _levels(imaging.decode(small, LIMITS))[0] < 90
