"""Limits the cost of decoding beyond bytes and pixels: reads, scans, memory.

In some formats a few bytes cause much work, which is bounded before it is done.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from services.shared.errors import Overloaded, UndecodableImage
from services.shared.imaging.formats import jpeg

MAX_READS: Final = 200_000
"""The maximum of reads. Pillow reads a valid picture in some thousand calls of a Python loop."""

_MAX_SCANS: Final = 100
"""Encoders write about 10 scans. Each makes libjpeg visit all pixels, for only a hundred bytes."""

_MAX_SCANS_OF_LARGE: Final = 40
_LARGE_PIXELS: Final = 16_000_000

_BYTES_A_PIXEL: Final = {"JPEG": 12, "PNG": 12, "GIF": 12, "BMP": 12, "JPEG2000": 28}
_MAX_BYTES_A_PIXEL: Final = 16


@contextmanager
def memory_errors_named() -> Iterator[None]:
    """Raise Overloaded for a MemoryError: the machine lacks memory, whatever the image."""
    try:
        yield
    except MemoryError as error:
        message = "there is too little memory for the image now; try again later"
        raise Overloaded(message) from error


class Reader(io.BytesIO):
    """Reads an image's bytes in a limited number of reads.

    Millions of empty chunks, comments or segments would each take an iteration in Python, and some
    would be kept.
    """

    reads = 0
    """The number of reads so far."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes. Raises UndecodableImage."""
        self.reads += 1
        if self.reads > MAX_READS:
            message = f"the image has more than {MAX_READS} pieces"
            raise UndecodableImage(message)
        return super().read(size)


def check_scans(image: bytes, pixels: int) -> None:
    """Raise UndecodableImage for a JPEG, of several scans, that has too many for its pixels.

    libjpeg keeps all coefficients, and visits all of them for each scan. Marker bytes may also
    follow a picture, so a file with a single scan is not checked.
    """
    scans = image.count(jpeg.SCAN_START)
    limit = _MAX_SCANS_OF_LARGE if pixels > _LARGE_PIXELS else _MAX_SCANS
    if scans > limit:
        message = f"the JPEG is made of {scans} scans; {limit} are accepted"
        raise UndecodableImage(message)


def decoding_bytes(name: str, pixels: int, *, progressive: bool) -> int:
    """Return the maximum memory, in bytes, that decoding these pixels takes, as measured."""
    bytes_a_pixel = _MAX_BYTES_A_PIXEL
    if not progressive:  # a progressive JPEG needs memory for all coefficients
        bytes_a_pixel = _BYTES_A_PIXEL.get(name, _MAX_BYTES_A_PIXEL)
    return bytes_a_pixel * pixels
