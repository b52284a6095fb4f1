"""Reads an image's header within limits, without its pixels: format, size, and what decoding costs.

Pillow, no numpy. Hostile bytes end in a named error, never in one of Pillow's own.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

from services.shared.errors import (
    EmptyImage,
    ExtremeAspect,
    ImageTooLarge,
    SimileError,
    TooManyPixels,
    UndecodableImage,
    UnsupportedFormat,
)
from services.shared.image_limits import Limits
from services.shared.imaging.formats import heif, jpeg, jpeg2000, jpeg_metadata, png, tiff, unread
from services.shared.imaging.image_cost import (
    Reader,
    check_scans,
    decoding_bytes,
    memory_errors_named,
)

_MEDIA_TYPES: Final[Mapping[str, str]] = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "HEIF": "image/heif",
    jpeg2000.FORMAT: "image/jp2",
}

_MANY_KINDS: Final = frozenset({"", "TIFF"})
"""A TIFF, or no accepted format: for these the error names the kind of file."""


_JPEG_SCALES: Final = (8, 4, 2)
"""The fractions that a JPEG can be decoded at."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Describes an image by its header; made once, and passed along with the bytes.

    Attributes:
        format: Pillow's name of the format.
        media_type: the format's media type.
        width: in pixels as stored, before the EXIF orientation.
        height: likewise.
        progressive: a JPEG in several scans: each finer than the one before, or of one colour
            component.
        decoded_pixels: the pixels that a decoder fills, where that is known; with tiles' edges
            more than are shown.
    """

    format: str
    media_type: str
    width: int
    height: int
    progressive: bool = False
    decoded_pixels: int = 0

    def decoded_size(self, target: int) -> tuple[int, int]:
        """Return width and height at which `decode` decodes for a target: a fraction of a JPEG's.

        A progressive JPEG is decoded whole, since all of its coefficients are held anyway.
        """
        if self.format != "JPEG" or self.progressive:
            return self.width, self.height
        short = min(self.width, self.height)
        scale = next((scale for scale in _JPEG_SCALES if short >= scale * target), 1)
        return math.ceil(self.width / scale), math.ceil(self.height / scale)

    def memory(self, target: int | None = None) -> int:
        """Return the maximum memory of `decode` for this target, in bytes, as measured."""
        size = (self.width, self.height) if target is None else self.decoded_size(target)
        pixels = max(math.prod(size), self.decoded_pixels)
        return decoding_bytes(self.format, pixels, progressive=self.progressive)


def formats() -> tuple[str, ...]:
    """Return the accepted formats by Pillow's names."""
    return tuple(openers())


def format_of(image: bytes) -> str:
    """Return the format that the first bytes claim; empty where it is not accepted."""
    names = (name for name, accept in openers().items() if accept(image[:16]) is True)
    return next(names, "")


@memory_errors_named()
def probe(image: bytes, limits: Limits) -> Probe:
    """Read the image's header without its pixels; of a HEIC or AVIF only the boxes are read.

    Raises EmptyImage, ImageTooLarge, UnsupportedFormat, UndecodableImage, TooManyPixels or
    ExtremeAspect; Overloaded where this machine is short of memory.
    """
    _check_bytes(image, limits)
    if (contained := _contained(image, limits)) is not None:
        return contained
    with opened_image(image, limits) as (_, found):
        return found


def probe_start(image: bytes, limits: Limits) -> Probe | None:
    """Read the header of a usual JPEG; return None where `probe` is needed, or would refuse it.

    This takes a tenth of the time of `probe`, short enough for an event loop.
    """
    if len(image) > limits.max_bytes or (frame := jpeg.frame(image)) is None:
        return None
    try:
        check_size(frame.width, frame.height, limits)
    except SimileError:
        return None  # `probe` says what is wrong
    return Probe("JPEG", _MEDIA_TYPES["JPEG"], *frame)


@functools.cache
def openers() -> Mapping[str, Callable[[bytes], bool | str]]:
    """Return the accepted formats with Pillow's tests of a file's first bytes; prepare Pillow."""
    for name in ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Avif", "Jpeg2K"):
        importlib.import_module(f"PIL.{name}ImagePlugin")
    with suppress(ImportError):  # no wheel for this platform: HEIC answers `unsupported_format`
        importlib.import_module("pi_heif").register_heif_opener()
    # Once and for the process, since warnings.catch_warnings isn't safe among threads. The rest of
    # what Pillow warns of is broken metadata, which is not used.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    # Pillow logs an error for some of the files that it refuses: the refusal says as much.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _silence_libtiff()
    accepts = {name: Image.OPEN[name][1] for name in _MEDIA_TYPES if name in Image.OPEN}
    return {name: accept for name, accept in accepts.items() if accept is not None}


def _silence_libtiff() -> None:
    """Remove the handler that prints libtiff's errors to stderr, for the whole process.

    Pillow's own errors hold the same text, and Pillow removes the handler of warnings by itself.
    Where libtiff is linked into Pillow statically, as on Windows, it can't be reached.
    """
    with suppress(AttributeError, OSError):
        # A look-up in Pillow's module also finds the libraries it is linked to.
        handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        handler(None)


@contextmanager
def opened_image(
    image: bytes, limits: Limits, known: Probe | None = None
) -> Iterator[tuple[ImageFile.ImageFile, Probe]]:
    """Open the image for its pixels, its limits checked; name the errors raised inside.

    known: the image's probe, where it was made before: its header is then not parsed again.
    """
    _check_bytes(image, limits)
    # Pillow's own bound also guards what a header alone makes it allocate. This global is
    # only raised, to the limit of the settings.
    if limits.max_pixels > (Image.MAX_IMAGE_PIXELS or 0):
        Image.MAX_IMAGE_PIXELS = limits.max_pixels
    try:
        known = known or _contained(image, limits)
        frame = jpeg.frame(image) if known is None else None
        if known is None:
            unread.check(image, frame)
            tiff.check(image)
        read = jpeg_metadata.without_metadata(png.without_text(image))
        with Image.open(Reader(read), formats=formats()) as opened:
            _check_opened(opened, limits)
            if known is None and opened.format == jpeg2000.FORMAT:
                jpeg2000.check(image, opened.size)
            found = known or _probe_of(opened, frame)
            if found.progressive:
                check_scans(image, found.width * found.height)
            yield opened, found
    except (SimileError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        message = f"the image declares more than the {limits.max_pixels} pixels that are accepted"
        raise TooManyPixels(message) from error
    except UnidentifiedImageError as error:
        raise _unidentified(image) from error
    except Exception as error:  # hostile bytes make Pillow's plugins raise anything
        if str(error).startswith("Unsupported"):
            message = f"this kind of {format_of(image)} is not read ({error}): "
            raise UnsupportedFormat(message + "save it as JPEG or PNG") from error
        message = f"the image is truncated or corrupt: {error}"
        raise UndecodableImage(message) from error


def _probe_of(opened: ImageFile.ImageFile, frame: jpeg.Frame | None) -> Probe:
    """Return the probe of an opened image; frame: that of a usual JPEG."""
    is_jpeg = opened.format in jpeg.FAMILY
    name = "JPEG" if is_jpeg else str(opened.format)
    progressive = is_jpeg and (frame is None or frame.in_scans)
    return Probe(name, _MEDIA_TYPES[name], *opened.size, progressive)


def _contained(image: bytes, limits: Limits) -> Probe | None:
    """Read the boxes of a HEIC or AVIF, and check its limits; return None for other formats."""
    if format_of(image) not in {"AVIF", "HEIF"}:
        return None
    picture = heif.read(image, limits.max_pixels)
    if picture.format not in openers():
        raise _unaccepted()
    check_size(picture.width, picture.height, limits)
    media_type, pixels = _MEDIA_TYPES[picture.format], picture.decoded_pixels
    return Probe(picture.format, media_type, picture.width, picture.height, decoded_pixels=pixels)


def _check_bytes(image: bytes, limits: Limits) -> None:
    if not image:
        message = "the image has 0 bytes"
        raise EmptyImage(message)
    if len(image) > limits.max_bytes:
        message = f"the image has {len(image)} bytes; {limits.max_bytes} are accepted"
        raise ImageTooLarge(message)


def _unidentified(image: bytes) -> SimileError:
    claimed = format_of(image)
    if claimed in _MANY_KINDS and (kind := unread.kind_of(image)):
        return kind
    if claimed:
        return UndecodableImage("the image's header is truncated or corrupt")
    return _unaccepted()


def _unaccepted() -> UnsupportedFormat:
    return UnsupportedFormat(f"the bytes are no image of: {', '.join(openers())}")


def _check_opened(opened: ImageFile.ImageFile, limits: Limits) -> None:
    check_size(*opened.size, limits)
    if opened.mode in {"I", "F"}:
        message = "32-bit samples have no agreed white: save the image with 8 or 16 bits a channel"
        raise UnsupportedFormat(message)


def check_size(width: int, height: int, limits: Limits) -> None:
    """Raise UndecodableImage, TooManyPixels or ExtremeAspect for a size outside the limits."""
    short, long = min(width, height), max(width, height)
    if short < 1:
        message = f"the image has {width} x {height} pixels"
        raise UndecodableImage(message)
    if width * height > limits.max_pixels:
        message = f"the image has {width} x {height} pixels; {limits.max_pixels} are accepted"
        raise TooManyPixels(message)
    if long > limits.max_aspect * short:
        message = f"the image has {width} x {height} pixels; crop it to at most "
        raise ExtremeAspect(message + f"{limits.max_aspect:g} times as long as wide")
