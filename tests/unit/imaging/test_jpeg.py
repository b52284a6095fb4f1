"""The frame of a JPEG, read from its segments, is the one that Pillow reads, or None."""

from __future__ import annotations

import io
import random
from typing import Final

import pytest
from PIL import Image

from services.shared import imaging
from services.shared.imaging.formats import jpeg
from services.shared.imaging.formats.jpeg import Frame
from tests.hostile import bombs
from tests.support.pictures import encoded, exif, scene

LIMITS: Final = imaging.Limits(max_bytes=15 * 2**20, max_pixels=64_000_000, max_aspect=100.0)

KINDS: Final = {
    "baseline": encoded(scene(), "JPEG"),
    "progressive": encoded(scene(), "JPEG", progressive=True),
    "grey": encoded(scene().convert("L"), "JPEG"),
    "CMYK": encoded(scene().convert("CMYK"), "JPEG"),
    "with everything": encoded(
        scene(), "JPEG", exif=exif(6), comment=b"words", icc_profile=b"p" * 70_000, dpi=(72, 72),
        restart_marker_rows=1,
    ),
    "a component at a time": bombs.jpeg_scans(3, side=64, progressive=False),
    "several pictures": encoded(
        scene(), "MPO", save_all=True, append_images=[scene().rotate(180)]
    ),
}  # fmt: skip


def _by_pillow(image: bytes) -> tuple[int, int, bool] | None:
    """Return width, height and whether the JPEG is progressive, or None if Pillow can't open it."""
    try:
        with Image.open(io.BytesIO(image), formats=["JPEG", "MPO"]) as opened:
            return (*opened.size, "progressive" in opened.info)
    except Exception:  # noqa: BLE001 (broken bytes raise anything)
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_the_frame_is_what_pillow_says(kind: str) -> None:
    """Size and scans are Pillow's for every kind that encoders write, by both functions."""
    width, height, progressive = _by_pillow(KINDS[kind]) or (0, 0, False)
    in_scans = progressive or kind == "a component at a time"
    assert jpeg.frame(KINDS[kind]) == Frame(width, height, in_scans)
    assert imaging.probe_start(KINDS[kind], LIMITS) == imaging.probe(KINDS[kind], LIMITS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_jpeg_has_the_frame_that_pillow_sees(kind: str) -> None:
    """The frame determines the memory estimate, and Pillow's view determines the memory used."""
    chance, whole = random.Random(kind), KINDS[kind]  # noqa: S311 (the same in every run)
    seen = 0
    for _ in range(2000):
        image = bytearray(whole)
        # Markers and lengths are changed more often than tables.
        for _ in range(chance.randint(1, 3)):
            place = max(0, image.find(b"\xff", chance.randrange(min(len(image), 700))))
            image[(place + chance.randint(0, 9)) % len(image)] = chance.choice(
                (0, 1, 2, 0xFF, 0xC0, 0xC2, 0xDA, 0xDB, 0xE1, chance.randrange(256))
            )
        frame, expected = jpeg.frame(bytes(image)), _by_pillow(bytes(image))
        if frame and expected:
            width, height, progressive = expected
            assert (frame.width, frame.height) == (width, height)
            assert frame.in_scans or not progressive
            seen += 1
    assert seen > 100


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"\xff\xd8\xff",
        KINDS["baseline"][:100],
        KINDS["baseline"].replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1),
        KINDS["baseline"].replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        bombs.jpeg_segments(),
        encoded(scene(), "PNG"),
    ],
    ids=["nothing", "a start", "cut", "padded", "12 bits", "countless segments", "a PNG"],
)
def test_an_odd_jpeg_has_no_frame(image: bytes) -> None:
    """The decoder then reports whether the file is broken."""
    assert jpeg.frame(image) is None
