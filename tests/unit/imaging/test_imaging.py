"""The decoder handles formats, orientations, modes, limits and hostile bytes of drawn pictures."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from services.shared import errors, imaging
from services.shared.imaging.probe import openers
from tests.support import pictures

LIMITS = imaging.Limits(max_bytes=2**20, max_pixels=1_000_000, max_aspect=100.0)
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000"]
MEDIA_TYPES = {"JPEG2000": "image/jp2"}
TURNED: list[tuple[str, Callable[[int], dict[str, Any]]]] = [
    ("JPEG", lambda turn: {"exif": pictures.exif(turn), "quality": 95}),
    ("PNG", lambda turn: {"exif": pictures.exif(turn)}),
    ("WEBP", lambda turn: {"exif": pictures.exif(turn), "lossless": True}),
    ("TIFF", lambda turn: {"tiffinfo": pictures.tiff_tags(turn)}),
    ("AVIF", lambda turn: {"exif": pictures.exif(turn), "quality": 95}),
    ("HEIF", lambda turn: {"exif": pictures.exif(turn), "quality": 95}),
]
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


TOO_MUCH = (errors.TooManyPixels, errors.ExtremeAspect)


def _decoded(image: bytes, target: int | None = None) -> Image.Image:
    return imaging.decode(image, LIMITS, target=target)


def _pixel(image: Image.Image, x: int = 0, y: int = 0) -> object:
    return image.getpixel((x, y))


@pytest.mark.parametrize("name", FORMATS)
def test_every_accepted_format_is_sniffed_and_decoded(name: str) -> None:
    """Header and pixels of each accepted format equal the drawn picture's."""
    image = pictures.encoded(pictures.scene(), name)
    header = imaging.probe(image, LIMITS)
    assert (header.format, header.width, header.height) == (name, 96, 64)
    assert header.media_type == MEDIA_TYPES.get(name, f"image/{name.lower()}")
    decoded = _decoded(image)
    assert decoded.mode == "RGB"
    assert pictures.difference(decoded, pictures.scene()) < 12


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(("name", "options"), TURNED, ids=[name for name, _ in TURNED])
def test_the_exif_turn_is_undone(
    name: str, options: Callable[[int], dict[str, Any]], turn: int
) -> None:
    """All eight orientations give the upright picture, in every format that stores one."""
    how = STORED[turn]
    stored = pictures.scene() if how is None else pictures.scene().transpose(how)
    decoded = _decoded(pictures.encoded(stored, name, **options(turn)))
    assert pictures.difference(decoded, pictures.scene()) < 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # the decoder ignores these outside tests
def test_broken_exif_spoils_nothing() -> None:
    """A picture with an invalid EXIF block decodes as stored."""
    rubbish = b"Exif\0\0II*\0\xff\xff\xff\xff"
    image = pictures.encoded(pictures.scene(), "JPEG", exif=rubbish, quality=95)
    assert pictures.difference(_decoded(image), pictures.scene()) < 6


def test_a_jpeg_is_decoded_small_where_that_is_enough() -> None:
    """With a target, a JPEG keeps at least that many pixels on its short side before rotation."""
    picture = pictures.scene(960, 640)
    stored = picture.transpose(Image.Transpose.ROTATE_90)
    image = pictures.encoded(stored, "JPEG", exif=pictures.exif(6), quality=95)
    small = _decoded(image, target=100)
    assert small.size == (160 * 960 // 640, 160)
    assert pictures.difference(small, picture.resize(small.size)) < 6
    assert _decoded(image).size == (960, 640)


@pytest.mark.parametrize(
    ("side", "decoded"), [(799, 400), (800, 200), (1599, 400), (1600, 200), (3999, 500)]
)
def test_a_jpeg_is_decoded_at_the_smallest_fraction_that_is_enough(side: int, decoded: int) -> None:
    """The size is the smallest of an eighth, a quarter and a half that has the target's pixels."""
    limits = imaging.Limits(LIMITS.max_bytes, 20_000_000, LIMITS.max_aspect)
    image = pictures.encoded(Image.new("L", (side, 4000)), "JPEG")
    assert imaging.decode(image, limits, target=200).width == decoded


def test_a_target_never_enlarges() -> None:
    """A target above the picture's size changes nothing."""
    image = pictures.encoded(pictures.scene(), "JPEG")
    assert _decoded(image, target=5000).size == (96, 64)


def test_a_jpeg_of_several_pictures_is_a_jpeg() -> None:
    """An MPO, which phones write, counts as JPEG and gives its first picture."""
    second = Image.new("RGB", (96, 64), "white")
    image = pictures.encoded(pictures.scene(), "MPO", save_all=True, append_images=[second])
    assert imaging.probe(image, LIMITS).media_type == "image/jpeg"
    assert pictures.difference(_decoded(image, target=20), pictures.scene().resize((48, 32))) < 8


def test_cmyk_becomes_rgb() -> None:
    """A four-channel JPEG keeps its colours."""
    image = pictures.encoded(pictures.scene().convert("CMYK"), "JPEG", quality=95)
    assert pictures.difference(_decoded(image), pictures.scene()) < 6


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000"])
def test_transparency_is_white(name: str) -> None:
    """Fully transparent pixels are white, and half transparent ones half white."""
    picture = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    picture.paste((0, 0, 0, 128), (0, 0, 32, 64))
    picture.paste((0, 0, 255, 255), (0, 0, 64, 16))
    options = {"lossless": True} if name == "WEBP" else {}
    decoded = _decoded(pictures.encoded(picture, name, **options))
    expected = {(48, 48): (255, 255, 255), (16, 48): (127, 127, 127), (32, 6): (0, 0, 255)}
    for (x, y), color in expected.items():
        got = decoded.getpixel((x, y))
        assert isinstance(got, tuple)
        assert all(abs(a - b) <= 8 for a, b in zip(got, color, strict=True)), (name, x, y, got)


def test_each_palette_entry_keeps_its_own_alpha() -> None:
    """A palette PNG with alpha for each entry is white at the transparent entries only."""
    picture = Image.new("P", (3, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.putdata([0, 1, 2])
    decoded = _decoded(pictures.encoded(picture, "PNG", transparency=bytes([255, 0, 51])))
    assert [_pixel(decoded, x) for x in range(3)] == [(255, 0, 0), (255,) * 3, (204, 204, 255)]


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 7, 7)), ("P", 7)])
def test_a_colour_key_is_white(mode: str, key: object) -> None:
    """The colour that a PNG names as transparent is white."""
    picture = Image.new(mode, (2, 1), 7 if mode != "RGB" else (7, 7, 7))
    if mode == "P":
        picture.putpalette([7] * 3 * 8)
    decoded = _decoded(pictures.encoded(picture, "PNG", transparency=key))
    assert _pixel(decoded) == (255, 255, 255)


def test_grey_with_alpha_is_laid_over_white() -> None:
    """Grey with alpha keeps its grey, and is white where transparent."""
    picture = Image.new("LA", (2, 1), (40, 255))
    picture.putpixel((1, 0), (40, 0))
    decoded = _decoded(pictures.encoded(picture, "PNG"))
    assert [_pixel(decoded, x) for x in range(2)] == [(40, 40, 40), (255, 255, 255)]


def test_sixteen_bit_grey_is_scaled() -> None:
    """16-bit grey keeps its top byte, as PNG and as TIFF of either byte order."""
    values = (0, 255, 256, 0x8000, 0xFFFF)
    expected = [(value >> 8,) * 3 for value in values]
    little = Image.frombytes("I;16", (5, 1), struct.pack("<5H", *values))
    big = Image.frombytes("I;16B", (5, 1), struct.pack(">5H", *values))
    files = [
        pictures.png(5, 1, 16, 0, [struct.pack(">5H", *values)]),
        pictures.encoded(little, "TIFF"),
        pictures.encoded(big, "TIFF"),
    ]
    for image in files:
        decoded = _decoded(image)
        assert [_pixel(decoded, x) for x in range(5)] == expected


@pytest.mark.parametrize(
    ("color_type", "samples", "expected"),
    [
        (2, (0x8012, 0x0100, 0xFFFF), (0x80, 0x01, 0xFF)),
        (6, (0x8012, 0x0100, 0xFFFF, 0xFFFF), (0x80, 0x01, 0xFF)),
        (6, (0x8012, 0x0100, 0xFFFF, 0), (255, 255, 255)),
        (4, (0x4000, 0xFFFF), (0x40, 0x40, 0x40)),
    ],
)
def test_sixteen_bit_colour_is_scaled(
    color_type: int, samples: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """16-bit RGB, RGBA and grey with alpha keep their top bytes."""
    row = struct.pack(f">{len(samples)}H", *samples)
    assert _pixel(_decoded(pictures.png(1, 1, 16, color_type, [row]))) == expected


def test_one_bit_is_black_and_white() -> None:
    """A 1-bit picture has the values 0 and 255 only."""
    decoded = _decoded(pictures.encoded(pictures.scene().convert("1"), "PNG"))
    assert {color for _, color in decoded.getcolors() or []} == {(0, 0, 0), (255, 255, 255)}


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_without_an_agreed_white_are_refused(mode: str) -> None:
    """32-bit integers and floats are refused from the header, with advice."""
    image = pictures.encoded(Image.new(mode, (4, 4)), "TIFF")
    with pytest.raises(errors.UnsupportedFormat, match="8 or 16 bits"):
        imaging.probe(image, LIMITS)


def test_an_invalid_colour_profile_is_ignored() -> None:
    """Invalid bytes as the profile change no pixel."""
    plain = pictures.encoded(pictures.scene(), "JPEG")
    profiled = pictures.encoded(pictures.scene(), "JPEG", icc_profile=b"no profile at all")
    assert pictures.difference(_decoded(plain), _decoded(profiled)) == 0


@pytest.mark.parametrize("name", ["GIF", "WEBP"])
def test_an_animation_gives_its_first_frame(name: str) -> None:
    """Only the first picture of an animation is decoded."""
    others = [Image.new("RGB", (96, 64), (shade, 0, 0)) for shade in range(0, 250, 10)]
    image = pictures.encoded(pictures.scene(), name, save_all=True, append_images=others)
    assert pictures.difference(_decoded(image), pictures.scene()) < 12


def test_later_frames_cost_nothing() -> None:
    """A GIF whose second frame is missing decodes, since only the first frame is read."""
    one = pictures.encoded(pictures.scene(), "GIF")
    both = pictures.encoded(
        pictures.scene(), "GIF", save_all=True, append_images=[Image.new("RGB", (96, 64))]
    )
    assert pictures.difference(_decoded(both[: len(one)]), pictures.scene()) < 12


def test_a_thumbnail_is_a_small_jpeg() -> None:
    """The longest side has the requested size, and the shape is that of the upright image."""
    stored = pictures.scene(960, 640).transpose(Image.Transpose.ROTATE_90)
    image = pictures.encoded(stored, "JPEG", exif=pictures.exif(6))
    with Image.open(io.BytesIO(imaging.thumbnail(image, LIMITS, 120))) as small:
        assert (small.format, small.size) == ("JPEG", (120, 80))


def test_a_thumbnail_never_enlarges() -> None:
    """A picture smaller than its thumbnail keeps its size."""
    small = imaging.thumbnail(pictures.encoded(pictures.scene(), "PNG"), LIMITS, 400)
    assert _decoded(small).size == (96, 64)


def test_no_bytes_are_refused() -> None:
    """Zero bytes have an error of their own."""
    with pytest.raises(errors.EmptyImage):
        imaging.probe(b"", LIMITS)


def test_too_many_bytes_are_refused_unread() -> None:
    """The byte limit holds before parsing; a file of exactly the limit is accepted."""
    image = pictures.encoded(pictures.scene(), "PNG")
    exact = imaging.Limits(len(image), LIMITS.max_pixels, LIMITS.max_aspect)
    assert imaging.probe(image, exact).width == 96
    with pytest.raises(errors.ImageTooLarge):
        imaging.probe(b"\0" * (len(image) + 1), exact)


@pytest.mark.parametrize("side", [1001, 11_000, 30_000, 2**31 - 1])
def test_too_many_pixels_are_refused_by_the_header(side: int) -> None:
    """Sizes above our limit, Pillow's warning and Pillow's error give the same error."""
    image = pictures.png(side, side, 8, 0, [])
    with pytest.raises(errors.TooManyPixels):
        imaging.probe(image, LIMITS)
    with pytest.raises(errors.TooManyPixels):
        imaging.decode(image, LIMITS)


def test_a_limit_above_pillows_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit above Pillow's own takes effect, and still holds."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    wide = imaging.Limits(LIMITS.max_bytes, 400_000_000, LIMITS.max_aspect)
    assert imaging.probe(pictures.png(20_000, 20_000, 8, 0, []), wide).width == 20_000
    with pytest.raises(errors.TooManyPixels):
        imaging.probe(pictures.png(20_000, 20_001, 8, 0, []), wide)


@pytest.mark.parametrize("size", [(301, 3), (3, 301)])
def test_a_strip_is_refused(size: tuple[int, int]) -> None:
    """An aspect beyond the limit is refused, in either direction; exactly the limit is accepted."""
    with pytest.raises(errors.ExtremeAspect):
        imaging.probe(pictures.encoded(Image.new("L", size), "PNG"), LIMITS)
    assert imaging.probe(pictures.encoded(Image.new("L", (300, 3)), "PNG"), LIMITS).width == 300


@pytest.mark.parametrize(
    "image",
    [
        b"just text",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"%PDF-1.7",
        pictures.encoded(pictures.scene(), "PPM"),
        pictures.encoded(pictures.scene(), "TGA"),
        pictures.encoded(pictures.scene(), "ICO"),
        b"\0",
    ],
)
def test_other_formats_are_refused(image: bytes) -> None:
    """Other formats are named unsupported, even where Pillow could read them."""
    with pytest.raises(errors.UnsupportedFormat):
        imaging.probe(image, LIMITS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_broken_header_of_an_accepted_format_is_undecodable(name: str) -> None:
    """A file with the format's first bytes and nothing else is corrupt, not unsupported."""
    image = pictures.encoded(pictures.scene(), name)[:17]
    with pytest.raises(errors.UndecodableImage):
        imaging.probe(image, LIMITS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_in_half_is_undecodable(name: str) -> None:
    """Half a picture does not count as a whole one."""
    image = pictures.encoded(pictures.scene(), name)
    with pytest.raises(errors.UndecodableImage):
        imaging.decode(image[: len(image) // 2], LIMITS)


@pytest.mark.parametrize("name", FORMATS)
@hypothesis_settings(deadline=None, max_examples=40)
@given(noise=st.data())
def test_hostile_bytes_end_in_a_named_error(name: str, noise: st.DataObject) -> None:
    """Changed bytes give a picture or one of our errors."""
    image = bytearray(pictures.encoded(pictures.scene(24, 16), name))
    spots = st.lists(st.integers(0, min(len(image), 400) - 1), min_size=1, max_size=8)
    for spot in noise.draw(spots):
        image[spot] = noise.draw(st.integers(0, 255))
    with suppress(errors.UndecodableImage, errors.UnsupportedFormat, *TOO_MUCH):
        assert imaging.decode(bytes(image), LIMITS, target=8).mode == "RGB"


def _with_scans(image: bytes, count: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated `count` times."""
    tables, scan = image.rfind(b"\xff\xc4"), image.rfind(b"\xff\xda")
    assert 0 < tables < scan
    return image[:-2] + count * image[tables:-2] + image[-2:]


def test_a_jpeg_of_countless_scans_is_refused_unread() -> None:
    """Scans of a hundred bytes must not take the time of a whole picture each."""
    image = pictures.encoded(Image.new("RGB", (96, 64), "teal"), "JPEG", progressive=True)
    assert imaging.probe(image, LIMITS).progressive
    assert pictures.difference(_decoded(_with_scans(image, 50)), _decoded(image)) == 0
    for look in (imaging.probe, imaging.decode):
        with pytest.raises(errors.UndecodableImage, match="scans"):
            look(_with_scans(image, 100), LIMITS)


def test_bytes_after_a_picture_do_not_count_as_scans() -> None:
    """A phone's video after its JPEG may hold any bytes."""
    image = pictures.encoded(pictures.scene(), "JPEG") + 1000 * b"\xff\xda"
    assert not imaging.probe(image, LIMITS).progressive
    assert _decoded(image).size == (96, 64)


def test_threads_decode_alike() -> None:
    """Many threads get the same picture, also in the process's first moments."""
    openers.cache_clear()
    image = pictures.encoded(pictures.scene(), "AVIF")
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(_decoded, [image] * 16))
    assert all(pictures.difference(decoded[0], other) == 0 for other in decoded)
