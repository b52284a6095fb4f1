"""Headers are read in the loop or in a thread, with the same result."""

from __future__ import annotations

import asyncio
import threading

import pytest

from services.shared import imaging
from services.shared.errors import DeadlineExceeded, SimileError
from services.shared.imaging import Limits, Probe
from services.upload.query.body import read_header
from tests.support.pictures import encoded, exif, scene

LIMITS = Limits(max_bytes=2**20, max_pixels=100_000, max_aspect=100.0)


@pytest.fixture
def sniffing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the threads in which headers are read."""
    threads: list[str] = []
    real = imaging.probe

    def sniff(image: bytes, limits: Limits) -> Probe:
        threads.append(threading.current_thread().name)
        return real(image, limits)

    monkeypatch.setattr(imaging, "probe", sniff)
    return threads


async def test_a_photograph_needs_no_thread(sniffing: list[str]) -> None:
    """The segments of a usual JPEG are enough, however large they are."""
    image = encoded(
        scene(), "JPEG", exif=exif(6), comment=b"x" * 60_000, icc_profile=b"y" * 200_000
    )
    header = await read_header(image + bytes(500_000), LIMITS, 60)
    assert header == Probe("JPEG", "image/jpeg", 96, 64)
    assert sniffing == []


@pytest.mark.parametrize(
    "image",
    [
        encoded(scene(), "PNG"),
        encoded(scene(), "WEBP"),
        encoded(scene(), "JPEG").replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1),
    ],
    ids=["PNG", "WebP", "a JPEG with fill bytes"],
)
async def test_headers_that_may_take_long_are_read_in_a_thread(
    image: bytes, sniffing: list[str]
) -> None:
    """Other formats, and odd JPEGs, do not block the loop."""
    header = await read_header(image, LIMITS, 60)
    assert (header.width, header.height) == (96, 64)
    assert sniffing[-1].startswith("sniff")


async def test_headers_that_take_long_block_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Slow headers have threads of their own, and each caller gets an answer in time."""
    blocked = threading.Event()

    def slow(_image: bytes, _limits: Limits) -> None:
        blocked.wait(60)

    monkeypatch.setattr(imaging, "probe", slow)
    image = encoded(scene(), "PNG")
    try:
        reading = [read_header(image, LIMITS, 0.05) for _ in range(20)]
        ended = await asyncio.gather(*reading, return_exceptions=True)
        assert {type(error) for error in ended} == {DeadlineExceeded}
        assert await asyncio.to_thread(lambda: "free") == "free"
    finally:
        blocked.set()


@pytest.mark.parametrize(
    "image",
    [
        encoded(scene(400, 300), "JPEG"),
        encoded(scene(), "JPEG") + bytes(2**20),
        b"\xff\xd8\xff and no more",
        b"no image",
        b"",
    ],
    ids=["too many pixels", "too many bytes", "a broken header", "no image", "nothing"],
)
async def test_both_ways_raise_the_same_error(image: bytes) -> None:
    """The quick check refuses nothing by itself."""
    with pytest.raises(SimileError) as whole:
        imaging.probe(image, LIMITS)
    with pytest.raises(type(whole.value)) as short:
        await read_header(image, LIMITS, 60)
    assert str(short.value) == str(whole.value)
