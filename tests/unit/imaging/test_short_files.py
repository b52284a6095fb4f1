"""Files with minor faults are shown: long texts in PNGs, JPEGs that end early."""

from __future__ import annotations

import random
import struct
import time
import zlib

import pytest
from PIL import Image, PngImagePlugin

from services.shared import errors, imaging
from services.shared.imaging.formats import png
from tests.support import pictures, profiles

LIMITS = imaging.Limits(max_bytes=15 * 2**20, max_pixels=4_000_000, max_aspect=100.0)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def _with_chunks(*chunks: bytes, after: bool = False) -> bytes:
    image = pictures.encoded(pictures.scene(), "PNG")
    place = len(image) - 12 if after else 33
    return image[:place] + b"".join(chunks) + image[place:]


_LONG = zlib.compress(bytes(3 * 2**20))


@pytest.mark.parametrize("after", [False, True], ids=["before the pixels", "after them"])
@pytest.mark.parametrize(
    "chunk",
    [
        _chunk(b"zTXt", b"prompt\0\0" + _LONG),
        _chunk(b"iTXt", b"prompt\0\1\0\0\0" + _LONG),
        _chunk(b"tEXt", b"prompt\0" + bytes(3 * 2**20)),
        _chunk(b"zTXt", b"Raw profile type exif\0\0" + _LONG),
        _chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + _LONG),
        _chunk(b"zTXt", b"prompt\0\0no zlib"),
        _chunk(b"tEXt", b"prompt\0words")[:-4] + b"bad!",
        _chunk(b"iCCP", b"name\0\0" + _LONG),
    ],
    ids=["zTXt", "iTXt", "tEXt", "EXIF", "XMP", "broken", "bad checksum", "profile"],
)
def test_a_pngs_texts_are_skipped(chunk: bytes, *, after: bool) -> None:
    """Texts of any length are skipped, and the picture is shown."""
    decoded = imaging.decode(_with_chunks(chunk, after=after), LIMITS)
    assert pictures.difference(decoded, pictures.scene()) == 0


def test_texts_cost_no_unpacking() -> None:
    """Ten thousand texts of 1 MB each are never unpacked."""
    packed = zlib.compress(bytes(2**20 - 1))
    texts = [_chunk(b"zTXt", b"t%d\0\0" % number + packed) for number in range(5000)]
    turns = [_chunk(b"zTXt", b"Raw profile type exif\0\0" + packed)] * 5000
    before = time.process_time()
    decoded = imaging.decode(_with_chunks(*texts, *turns), LIMITS)
    assert pictures.difference(decoded, pictures.scene()) == 0
    assert time.process_time() - before < 5  # unpacking takes 10


def test_a_turn_in_a_text_still_counts() -> None:
    """XMP in a PNG is a text that holds the orientation."""
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    text = _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    assert imaging.decode(_with_chunks(text, _chunk(b"tEXt", b"a\0b")), LIMITS).size == (64, 96)


def test_a_png_without_texts_is_not_copied() -> None:
    """The same bytes go to the decoder, also of other formats."""
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b")
    for image in (
        pictures.encoded(pictures.scene(), "PNG", icc_profile=profiles.rgb(profiles.SRGB, 2.2)),
        pictures.encoded(pictures.scene(), "JPEG"),
        b"",
    ):
        assert png.without_text(image) is image
    texts = pictures.encoded(pictures.scene(), "PNG", pnginfo=info)
    assert png.without_text(texts) == pictures.encoded(pictures.scene(), "PNG")


_PHOTO = Image.effect_mandelbrot((640, 480), (-2, -1.5, 1, 1.5), 60).convert("RGB")
_BASELINE = pictures.encoded(_PHOTO, "JPEG")
_PROGRESSIVE = pictures.encoded(_PHOTO, "JPEG", progressive=True)


@pytest.mark.parametrize("target", [None, 100])
@pytest.mark.parametrize(
    "image",
    [
        _BASELINE,
        _PROGRESSIVE,
        pictures.encoded(_PHOTO, "JPEG", restart_marker_rows=1),
        pictures.encoded(_PHOTO.convert("L"), "JPEG"),
        pictures.encoded(_PHOTO.convert("CMYK"), "JPEG"),
        pictures.encoded(Image.new("RGB", (96, 64), (128, 128, 128)), "JPEG"),
    ],
    ids=["baseline", "progressive", "restarts", "grey", "CMYK", "mid grey"],
)
def test_a_jpeg_without_its_end_marker_is_whole(image: bytes, target: int | None) -> None:
    """The picture is complete when a byte of the marker is missing, or both."""
    whole = imaging.decode(image, LIMITS, target=target)
    for cut in (1, 2):
        short = imaging.decode(image[:-cut], LIMITS, target=target)
        assert pictures.difference(whole, short) == 0


def test_a_jpeg_without_its_last_rows_is_accepted() -> None:
    """The rows that arrived are unchanged, and the missing rows are grey."""
    short = imaging.decode(_BASELINE[: int(0.97 * len(_BASELINE))], LIMITS)
    whole, upper = imaging.decode(_BASELINE, LIMITS), (0, 0, 640, 400)
    assert pictures.difference(whole.crop(upper), short.crop(upper)) == 0


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_truncated_jpeg_says_how_much_is_missing(share: float) -> None:
    """The error gives the missing share of the rows, close to the share cut away."""
    noise = Image.effect_noise((640, 480), 60)
    image = pictures.encoded(noise, "JPEG")
    with pytest.raises(errors.UndecodableImage, match="ends early") as refused:
        imaging.decode(image[: int(share * len(image))], LIMITS)
    said = int(str(refused.value).split(":")[1].split("%")[0])
    assert abs(said - 100 * (1 - share)) < 8


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_progressive_jpeg_without_its_finer_scans_is_refused(share: float) -> None:
    """All rows are present, but none in full quality."""
    cut = _PROGRESSIVE[: int(share * len(_PROGRESSIVE))]
    with pytest.raises(errors.UndecodableImage, match="ends early"):
        imaging.decode(cut, LIMITS)


def test_a_jpeg_cut_anywhere_ends_in_a_picture_or_in_a_named_error() -> None:
    """The cut may be in the header, in the tables, or in a thumbnail before the picture."""
    thumbnail = b"Exif\0\0" + pictures.encoded(pictures.scene(), "JPEG")
    chance = random.Random(1)  # noqa: S311 (the same cuts in every run)
    for options in ({}, {"progressive": True}, {"exif": thumbnail}):
        image = pictures.encoded(pictures.scene(), "JPEG", **options)
        for _ in range(60):
            cut = image[: chance.randrange(len(image))]
            try:
                short = imaging.decode(cut, LIMITS)
            except (errors.UndecodableImage, errors.EmptyImage):
                continue
            assert short.size == (96, 64)
