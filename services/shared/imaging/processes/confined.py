"""Decodes images safely: some formats in processes of their own.

HEIC, AVIF, TIFF and JPEG 2000 files are containers around codecs. Their headers don't bound the
cost, and their libraries have crashed. All other formats are decoded in this process.
"""

from __future__ import annotations

import atexit
import functools
import io
from typing import Final

from PIL import Image

from services.shared import cores
from services.shared.contracts import Box
from services.shared.image_limits import Limits
from services.shared.imaging.decode import decode as decode_here
from services.shared.imaging.formats import jpeg2000
from services.shared.imaging.image_cost import memory_errors_named
from services.shared.imaging.probe import Probe, format_of, probe
from services.shared.imaging.processes.decoder_pool import DecoderPool
from services.shared.imaging.processes.wire import Task

CONFINED: Final = frozenset({"AVIF", "HEIF", "TIFF", jpeg2000.FORMAT})

CPU_SECONDS: Final = 0.5
CPU_SECONDS_A_MEGAPIXEL: Final = 0.1
CPU_SECONDS_A_MEGABYTE: Final = 0.3
"""The maximum CPU time of decoding: three times that of the slowest valid files measured."""

_SLACK_BYTES: Final = 128 * 2**20
_COPIES: Final = 4
"""The copies of the file's bytes that a decoder keeps beside pixels."""

_THUMBNAIL_QUALITY: Final = 85


@memory_errors_named()
def decode(
    image: bytes,
    limits: Limits,
    *,
    target: int | None = None,
    box: Box | None = None,
    known: Probe | None = None,
) -> Image.Image:
    """Return the first frame in RGB, upright, in sRGB; with a box only that part.

    Transparent pictures get a white background, or dark grey if they would vanish on white. A JPEG
    may lack its end marker and its last rows.

    target: sufficient pixels on the short side (of the box); a JPEG or JPEG 2000 is then
    decoded at a fraction of its size, which costs a fraction of the time. known: the image's probe,
    where it was made before. Raises what `probe` raises, BoxTooSmall, and for some formats
    DecodingTooSlow, DecoderCrashed and Overloaded.
    """
    if (format_of(image) if known is None else known.format) not in CONFINED:
        return decode_here(image, limits, target=target, box=box, known=known)
    known = known or probe(image, limits)
    memory = known.memory() + _COPIES * len(image) + _SLACK_BYTES
    task = Task(limits, target, box, cpu_seconds_of(known, len(image)), memory)
    return pool().decode(image, task)


@memory_errors_named()
def thumbnail(image: bytes, limits: Limits, size: int, known: Probe | None = None) -> bytes:
    """Make a small JPEG, its longest side at most `size`. Arguments and errors as of `decode`."""
    small = decode(image, limits, target=size, known=known)
    small.thumbnail((size, size))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_THUMBNAIL_QUALITY)
    return out.getvalue()


def cpu_seconds_of(known: Probe, size: int) -> float:
    """Return the CPU seconds after which the decoding of an image is aborted."""
    megapixels = max(known.decoded_pixels, known.width * known.height) / 1e6
    megabytes = size / 1e6
    return CPU_SECONDS + CPU_SECONDS_A_MEGAPIXEL * megapixels + CPU_SECONDS_A_MEGABYTE * megabytes


@functools.cache
def pool() -> DecoderPool:
    """Return the pool of this process: at most one decoding process for each core."""
    made = DecoderPool(cores.available())
    atexit.register(made.close)
    return made
