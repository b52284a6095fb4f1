"""Valid files of unsupported kinds are refused with 415, the kind, and advice; stderr is empty."""

from __future__ import annotations

import struct

import pytest
from PIL import Image

from services.shared import errors, imaging
from tests.support import pictures
from tests.support.tiffs import Tags, tiff

LIMITS = imaging.Limits(max_bytes=2**21, max_pixels=1_000_000, max_aspect=100.0)

_DNG: Tags = {50706: (1, [1, 4, 0, 0])}


def _compressed(number: int) -> bytes:
    return tiff(bytes(12), bits=8, photometric=2, samples=3, more={259: (3, [number])})


def _with_part(photometric: int, compression: int) -> bytes:
    """Return a small RGB preview with a second part that holds the camera's data."""
    image = tiff(bytes(12), bits=8, photometric=2, samples=3, more={330: (4, [8])})
    lines = struct.pack("<HHHLHHHHLHH", 2, 259, 3, 1, compression, 0, 262, 3, 1, photometric, 0)
    part = lines + bytes(4)
    place = len(image)
    return (
        image.replace(struct.pack("<HHLL", 330, 4, 1, 8), struct.pack("<HHLL", 330, 4, 1, place))
        + part
    )


def _jpeg(marker: int, bits: int) -> bytes:
    image = pictures.encoded(pictures.scene(), "JPEG")
    return image.replace(b"\xff\xc0\x00\x11\x08", bytes((0xFF, marker, 0, 0x11, bits)), 1)


def _heif(coding: bytes) -> bytes:
    return pictures.encoded(pictures.scene(), "HEIF").replace(b"hvc1", coding)


def _bmp_of_png() -> bytes:
    image = bytearray(pictures.encoded(pictures.scene(), "BMP"))
    image[30] = 5
    return bytes(image)


KINDS = [
    (_compressed(34712), "JPEG 2000 compression"),
    (_compressed(50002), "JPEG XL compression"),
    (_compressed(50001), "WebP compression"),
    (_compressed(34887), "LERC compression"),
    (_compressed(40000), "compression 40000"),
    (tiff(bytes(16), bits=32, photometric=1, more={339: (3, [3])}), "floating-point samples of 32"),
    (tiff(bytes(8), bits=16, photometric=1, more={339: (3, [3])}), "floating-point samples of 16"),
    (tiff(bytes(8), bits=16, photometric=1, more={339: (3, [2])}), "signed samples of 16"),
    (tiff(bytes(48), bits=32, photometric=2, samples=3), "32 bits a channel"),
    (tiff(bytes(16), bits=32, photometric=0), "32 bits a channel"),
    (tiff(bytes(18), bits=12, photometric=2, samples=3), "12, 12, 12 bits a channel"),
    (tiff(bytes(24), bits=16, photometric=2, samples=3, planes=3), "separate planes"),
    (tiff(bytes(8), bits=16, photometric=32803), "camera raw"),
    (tiff(bytes(4), bits=8, photometric=1, more=_DNG), "camera raw"),
    (tiff(bytes(4), bits=8, photometric=1, more=_DNG, order=">"), "camera raw"),
    (_with_part(32803, 1), "camera raw"),
    (_with_part(2, 34713), "camera raw"),
    (b"II*\0\x10\0\0\0CR\x02\0" + bytes(50), "camera raw"),
    (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "camera raw"),
    (b"FUJIFILMCCD-RAW 0201", "camera raw"),
    (_jpeg(0xC1, 12), "JPEG with 12 bits"),
    (_jpeg(0xC3, 8), "lossless JPEG"),
    (_bmp_of_png(), "this kind of BMP"),
    (_heif(b"avc1"), "coded as 'avc1'"),
    (_heif(b"j2k1"), "coded as 'j2k1'"),
    (b"\xff\x0a\xfa\x1f\x41", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"8BPS\0\1", "Photoshop"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    (b"%PDF-1.7", "PDF"),
    (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "container of the kind 'isom'"),
]  # fmt: skip


@pytest.mark.parametrize(("image", "kind"), KINDS, ids=[kind for _, kind in KINDS])
def test_the_kind_and_the_way_out_are_named(image: bytes, kind: str) -> None:
    """The error is UnsupportedFormat, from the header or from the pixels, never "corrupt"."""
    with pytest.raises(errors.UnsupportedFormat, match=kind) as refused:
        imaging.probe(image, LIMITS)
    assert "save it" in str(refused.value) or "develop it" in str(refused.value)


@pytest.mark.parametrize("cut", [5, 9, 30, 60])
def test_a_broken_header_is_still_called_broken(cut: int) -> None:
    """A file whose kind can't be read is corrupt, not unsupported."""
    image = pictures.encoded(pictures.scene(), "TIFF")
    with pytest.raises(errors.UndecodableImage):
        imaging.decode(image[:cut], LIMITS)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_no_library_writes_to_stderr(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A line of libtiff would mix with the JSON of the log."""
    image = bytearray(pictures.encoded(pictures.scene(), "TIFF", compression=compression))
    image[40:80] = b"\xaa" * 40
    with pytest.raises(errors.UndecodableImage):
        imaging.decode(bytes(image), LIMITS)
    assert capfd.readouterr().err == ""


_STEPS = (0, 80, 175, 255)


@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero_is_no_negative(order: str) -> None:
    """16 bits with white as 0 give the same pixels as with black as 0."""
    words = [value * 257 for value in _STEPS]
    black = tiff(struct.pack(f"{order}4H", *words), bits=16, photometric=1, order=order)
    negative = struct.pack(f"{order}4H", *(65535 - word for word in words))
    white = tiff(negative, bits=16, photometric=0, order=order)
    expected = [(value,) * 3 for value in _STEPS]
    assert _row(black) == expected
    if order == "<":
        assert _row(white) == expected
    else:  # Pillow does not read this one
        with pytest.raises(errors.UnsupportedFormat, match="16 bits a channel"):
            imaging.probe(white, LIMITS)


@pytest.mark.parametrize(
    ("bits", "black", "white"),
    [(1, b"\x50", b"\xa0"), (4, b"\x05\xaf", b"\xfa\x50"), (8, bytes(_STEPS), bytes(_STEPS[::-1]))],
    ids=["1", "4", "8"],
)  # fmt: skip
def test_white_is_zero_of_fewer_bits(bits: int, black: bytes, white: bytes) -> None:
    """White as 0 with 1, 4 and 8 bits gives the same pixels as black as 0."""
    one, other = tiff(black, bits=bits, photometric=1), tiff(white, bits=bits, photometric=0)
    assert _row(one) == _row(other)


def test_twelve_bits_of_grey_are_not_black() -> None:
    """12 bits are scaled by their own maximum."""
    image = tiff(b"\x00\x05\x55\xaa\xaf\xff", bits=12, photometric=1)
    assert _row(image) == [(0,) * 3, (85,) * 3, (170,) * 3, (255,) * 3]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_sixteen_bit_colour_of_a_tiff_is_scaled(order: str, extra: int) -> None:
    """Colours are scaled with and without alpha, in both byte orders."""
    colors = [10, 20, 30, 255, 40, 50, 60, 255, 70, 80, 90, 255, 200, 210, 220, 255]
    words = struct.pack(f"{order}16H", *(value * 257 for value in colors))
    image = tiff(
        words, bits=16, photometric=2, samples=4, order=order, more={338: (3, [extra])}
    )  # fmt: skip
    assert _row(image) == [(10, 20, 30), (40, 50, 60), (70, 80, 90), (200, 210, 220)]


def test_planes_of_eight_bits_are_put_together() -> None:
    """Red, green and blue planes are joined."""
    image = tiff(
        bytes([10, 40, 20, 50, 30, 60]), bits=8, photometric=2, samples=3, planes=3, width=2
    )
    assert _row(image) == [(10, 20, 30), (40, 50, 60)]


def _row(image: bytes) -> list[object]:
    decoded = imaging.decode(image, LIMITS)
    assert isinstance(decoded, Image.Image)
    return [decoded.getpixel((x, 0)) for x in range(decoded.width)]
