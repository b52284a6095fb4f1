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
    JPEG_FAMILY,
    Reader,
    check_scans,
    decoding_bytes,
    in_scans,
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


@dataclass(frozen=True, slots=True)
class Header:
    """Describes an image; width and height are as stored, before the EXIF orientation."""

    format: str
    media_type: str
    width: int
    height: int
    progressive: bool = False
    """A JPEG in several scans: each finer than the one before, or of one colour component."""
    decoded_pixels: int = 0
    """How many pixels a decoder fills, where that is known; with tiles' edges, more than shown."""


def formats() -> tuple[str, ...]:
    """Return the accepted formats by Pillow's names."""
    return tuple(_openers())


def format_of(image: bytes) -> str:
    """Return the format that the first bytes claim; empty where it is not accepted."""
    names = (name for name, accept in _openers().items() if accept(image[:16]) is True)
    return next(names, "")


def memory_of(header: Header, target: int | None = None) -> int:
    """Return the maximum memory of `decode` for this image and target, in bytes, as measured."""
    shrunk = 1
    # All coefficients of an image in several scans are held, whatever its target size.
    if target is not None and header.format == "JPEG" and not header.progressive:
        short = min(header.width, header.height)
        shrunk = next((scale for scale in (8, 4, 2) if short >= scale * target), 1)
    pixels = math.ceil(header.width / shrunk) * math.ceil(header.height / shrunk)
    pixels = max(pixels, header.decoded_pixels)
    return decoding_bytes(header.format, pixels, progressive=header.progressive)


@memory_errors_named()
def sniff(image: bytes, limits: Limits) -> Header:
    """Read the image's header without its pixels; of a HEIC or AVIF only the boxes are read.

    Raises EmptyImage, ImageTooLarge, UnsupportedFormat, UndecodableImage, TooManyPixels or
    ExtremeAspect; Overloaded where this machine is short of memory.
    """
    _check_bytes(image, limits)
    if (picture := _contained(image, limits)) is not None:
        media_type = _MEDIA_TYPES[picture.format]
        return Header(picture.format, media_type, picture.width, picture.height,
                      decoded_pixels=picture.decoded_pixels)  # fmt: skip
    with opened_image(image, limits) as opened:
        name = "JPEG" if opened.format in JPEG_FAMILY else str(opened.format)
        media_type, (width, height) = _MEDIA_TYPES[name], opened.size
        return Header(name, media_type, width, height, in_scans(opened, image))


def sniff_start(image: bytes, limits: Limits) -> Header | None:
    """Read the header of a usual JPEG; return None where `sniff` is needed, or would refuse it.

    This takes a tenth of the time of `sniff`, short enough for an event loop.
    """
    if len(image) > limits.max_bytes or (frame := jpeg.frame(image)) is None:
        return None
    try:
        _check_size(frame.width, frame.height, limits)
    except SimileError:
        return None  # `sniff` says what is wrong
    return Header("JPEG", _MEDIA_TYPES["JPEG"], *frame)


@functools.cache
def _openers() -> Mapping[str, Callable[[bytes], bool | str]]:
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
def opened_image(image: bytes, limits: Limits) -> Iterator[ImageFile.ImageFile]:
    """Open the image with its header read and its limits checked; name the errors raised inside."""
    _check_bytes(image, limits)
    _contained(image, limits)
    openers = _openers()
    # Pillow's own bound also guards what a header alone makes it allocate. This global is
    # only raised, to the limit of the settings.
    if limits.max_pixels > (Image.MAX_IMAGE_PIXELS or 0):
        Image.MAX_IMAGE_PIXELS = limits.max_pixels
    try:
        unread.check(image)
        tiff.check(image)
        read = jpeg_metadata.without_metadata(png.without_text(image))
        with Image.open(Reader(read), formats=tuple(openers)) as opened:
            _check(opened, limits)
            if opened.format == jpeg2000.FORMAT:
                jpeg2000.check(image, opened.size)
            check_scans(opened, image)
            yield opened
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


def _contained(image: bytes, limits: Limits) -> heif.Picture | None:
    """Read the boxes of a HEIC or AVIF, and check its limits; return None for other formats."""
    if format_of(image) not in {"AVIF", "HEIF"}:
        return None
    picture = heif.read(image, limits.max_pixels)
    if picture.format not in _openers():
        raise _unaccepted()
    _check_size(picture.width, picture.height, limits)
    return picture


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
    return UnsupportedFormat(f"the bytes are no image of: {', '.join(_openers())}")


def _check(opened: ImageFile.ImageFile, limits: Limits) -> None:
    _check_size(*opened.size, limits)
    if opened.mode in {"I", "F"}:
        message = "32-bit samples have no agreed white: save the image with 8 or 16 bits a channel"
        raise UnsupportedFormat(message)


def _check_size(width: int, height: int, limits: Limits) -> None:
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
