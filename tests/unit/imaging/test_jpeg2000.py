"""JPEG 2000 is decoded at a fraction of its size, and its own header bounds the work."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from PIL import Image

from services.shared import errors, imaging
from services.shared.contracts import Box
from services.shared.imaging.formats import jpeg2000
from tests.support import pictures

LIMITS = imaging.Limits(max_bytes=2**22, max_pixels=4_000_000, max_aspect=100.0)
_SIZES = b"\xff\x51"


def _image(width: int = 96, height: int = 64, **options: Any) -> bytes:
    return pictures.encoded(pictures.scene(width, height), "JPEG2000", **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"no_jp2": True}, {"irreversible": True}, {"tile_size": (32, 32)}, {"num_resolutions": 1}],
    ids=["container", "codestream", "lossy", "tiles", "one resolution"],
)
def test_every_kind_is_read(options: dict[str, Any]) -> None:
    """Header and pixels are right, at full size and at a model's size."""
    image = _image(**options)
    header = imaging.probe(image, LIMITS)
    assert (header.media_type, header.width, header.height) == ("image/jp2", 96, 64)
    assert pictures.difference(imaging.decode(image, LIMITS), pictures.scene()) < 2
    small = imaging.decode(image, LIMITS, target=30)
    assert pictures.difference(small, pictures.scene().resize(small.size)) < 8


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "I;16"])
def test_every_mode_is_read(mode: str) -> None:
    """Grey of 8 and 16 bits, transparency, and CMYK are decoded."""
    grey = pictures.scene().convert("L")
    picture, expected = pictures.scene().convert("RGB"), pictures.scene()
    if mode == "I;16":
        words = b"".join(bytes((0, value)) for value in grey.tobytes())
        picture = Image.frombytes("I;16", grey.size, words)
    else:
        picture = picture.convert(mode)
    if mode in {"L", "LA", "I;16"}:
        expected = grey.convert("RGB")
    decoded = imaging.decode(pictures.encoded(picture, "JPEG2000"), LIMITS)
    assert pictures.difference(decoded, expected) < 2


@pytest.mark.parametrize("size", [(800, 640), (801, 640), (803, 643), (797, 637)])
def test_a_large_one_is_decoded_at_a_fraction(size: tuple[int, int]) -> None:
    """The fraction is the smallest that has the target's pixels, or the next, at any size."""
    picture = pictures.scene(*size)
    small = imaging.decode(pictures.encoded(picture, "JPEG2000"), LIMITS, target=100)
    assert 100 <= min(small.size) <= 330
    assert pictures.difference(small, picture.resize(small.size)) < 8


def test_a_box_is_decoded_as_finely_as_it_needs() -> None:
    """The box keeps at least the target's pixels, and lies at the place in the upright image."""
    image, whole = _image(1600, 1280), pictures.scene(1600, 1280)
    part = imaging.decode(image, LIMITS, target=100, box=Box(0.5, 0.5, 0.25, 0.25))
    assert 100 <= min(part.size) < 320
    expected = whole.crop((800, 640, 1200, 960)).resize(part.size)
    assert pictures.difference(part, expected) < 8


def _lying(image: bytes, place: int, width: int, height: int) -> bytes:
    """Return the file with another width and height at that place of its codestream's header."""
    lying = bytearray(image)
    start = lying.index(_SIZES) + place
    lying[start : start + 8] = struct.pack(">LL", width, height)
    return bytes(lying)


def test_a_codestream_larger_than_its_container_says_is_refused() -> None:
    """OpenJPEG would allocate memory for the size in the codestream."""
    with pytest.raises(errors.UndecodableImage, match="60000 x 60000"):
        imaging.probe(_lying(_image(), 6, 60_000, 60_000), LIMITS)


def test_countless_tiles_are_refused_unread() -> None:
    """A thousand bytes must not cause millions of tiles."""
    with pytest.raises(errors.UndecodableImage, match="6144 tiles"):
        imaging.probe(_lying(_image(), 22, 1, 1), LIMITS)


def test_countless_packets_are_refused_unread() -> None:
    """OpenJPEG allocates memory for each layer of each precinct before reading."""
    image = bytearray(_image(512, 512, precinct_size=(64, 64), quality_layers=[20, 10]))
    place = image.index(b"\xff\x52")
    sound = jpeg2000.codestream(bytes(image))
    assert sound is not None
    assert 2 * 3 * 64 <= sound.packets < 4000
    image[place + 6 : place + 8] = b"\xff\xff"
    with pytest.raises(errors.UndecodableImage, match="packets"):
        imaging.probe(bytes(image), LIMITS)


def test_a_container_without_a_codestream_is_refused() -> None:
    """A container without a codestream has no reliable size."""
    image = _image().replace(b"jp2c", b"free")
    with pytest.raises(errors.UndecodableImage, match="header"):
        imaging.probe(image, LIMITS)
    assert jpeg2000.codestream(b"") is None
    assert jpeg2000.codestream(b"\xff\x4f\xff\x51" + bytes(60)) is None
    assert jpeg2000.reduction(b"", (1, 1)) == 0
