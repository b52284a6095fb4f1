"""The only image decoder: query and collection images get their pixels here, with the same limits.

Pillow, no numpy. Hostile bytes end in a named error, never in one of Pillow's own.
"""

from __future__ import annotations

import functools
import importlib
import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageFile, UnidentifiedImageError

from services.shared import jpeg
from services.shared.contracts import Box
from services.shared.errors import (
    BoxTooSmall,
    EmptyImage,
    ExtremeAspect,
    ImageTooLarge,
    SimileError,
    TooManyPixels,
    UndecodableImage,
    UnsupportedFormat,
)
from services.shared.image_cost import (
    JPEG_FAMILY,
    Reader,
    check_scans,
    check_tiles,
    decoding_bytes,
    in_scans,
)
from services.shared.orientation import (
    Edges,
    orientation_of,
    stored_edges,
    upright,
    upright_size,
)

PIXELS: Final = "pillow-v1"
"""Names what `decode` makes of an image; a change that gives other pixels needs another name."""

_MEDIA_TYPES: Final[Mapping[str, str]] = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "HEIF": "image/heif",
}

_BOX_PIXELS: Final = 16

_THUMBNAIL_QUALITY: Final = 85


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may be: bytes, pixels, longest side over shortest."""

    max_bytes: int
    max_pixels: int
    max_aspect: float


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of an image say; width and height as stored, before the EXIF turn."""

    format: str
    media_type: str
    width: int
    height: int
    progressive: bool = False
    """A JPEG in several scans: each finer than the one before, or of one colour component."""


def formats() -> tuple[str, ...]:
    """The formats accepted here, by Pillow's names."""
    return tuple(_openers())


def format_of(image: bytes) -> str:
    """The format that the first bytes claim, nothing read beyond them; empty when it is none."""
    names = (name for name, accept in _openers().items() if accept(image[:16]) is True)
    return next(names, "")


def memory_of(header: Header, target: int | None = None) -> int:
    """The most memory that `decode` takes for this image and target, in bytes, as measured."""
    shrunk = 1
    # One in several scans is held whole, however small it is wanted.
    if target is not None and header.format == "JPEG" and not header.progressive:
        short = min(header.width, header.height)
        shrunk = next((scale for scale in (8, 4, 2) if short >= scale * target), 1)
    pixels = math.ceil(header.width / shrunk) * math.ceil(header.height / shrunk)
    return decoding_bytes(header.format, pixels, progressive=header.progressive)


def sniff(image: bytes, limits: Limits) -> Header:
    """The image's header; reads no pixels.

    Raises EmptyImage, ImageTooLarge, UnsupportedFormat, UndecodableImage, TooManyPixels or
    ExtremeAspect.
    """
    with _opened(image, limits) as opened:
        name = "JPEG" if opened.format in JPEG_FAMILY else str(opened.format)
        media_type, (width, height) = _MEDIA_TYPES[name], opened.size
        return Header(name, media_type, width, height, in_scans(opened, image))


def sniff_start(image: bytes, limits: Limits) -> Header | None:
    """The header of a JPEG as most are; None where that takes `sniff`, or it would refuse it.

    A tenth of what `sniff` takes, however much stands before the size: an event loop can afford it.
    """
    if len(image) > limits.max_bytes or (frame := jpeg.frame(image)) is None:
        return None
    try:
        _check_size(frame.width, frame.height, limits)
    except SimileError:
        return None  # `sniff` says what is wrong
    return Header("JPEG", _MEDIA_TYPES["JPEG"], *frame)


def decode(
    image: bytes, limits: Limits, *, target: int | None = None, box: Box | None = None
) -> Image.Image:
    """The first frame in RGB, upright, over white where it is transparent; only the box, if any.

    target: so many pixels on the short side (of the box) are enough; a JPEG is then decoded at a
    fraction of its size, which costs a fraction of the time. Raises what `sniff` raises, and
    BoxTooSmall.
    """
    with _opened(image, limits) as opened:
        if box is not None:
            _check_box(opened, box, limits)
        if target is not None and opened.format in JPEG_FAMILY:
            opened.draft(None, _draft_size(opened, target, box))
        opened.load()
        rgb, orientation = _rgb(opened), orientation_of(opened)
        if box is not None:
            # Before the turn, which takes long on a whole photograph.
            edges = _edges(box, upright_size(rgb.size, orientation))
            rgb = rgb.crop(stored_edges(edges, rgb.size, orientation))
        return upright(rgb, orientation)


def thumbnail(image: bytes, limits: Limits, size: int) -> bytes:
    """A small JPEG of the image, its longest side at most `size`. Raises what `sniff` raises."""
    small = decode(image, limits, target=size)
    small.thumbnail((size, size))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_THUMBNAIL_QUALITY)
    return out.getvalue()


@functools.cache
def _openers() -> Mapping[str, Callable[[bytes], bool | str]]:
    """The accepted formats with Pillow's tests of a file's first bytes; prepares Pillow once."""
    for name in ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Avif"):
        importlib.import_module(f"PIL.{name}ImagePlugin")
    with suppress(ImportError):  # no wheel for this platform: HEIC answers `unsupported_format`
        importlib.import_module("pi_heif").register_heif_opener()
    # Once and for the process, since warnings.catch_warnings isn't safe among threads. The rest of
    # what Pillow warns of is broken metadata, which nobody here reads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    accepts = {name: Image.OPEN[name][1] for name in _MEDIA_TYPES if name in Image.OPEN}
    return {name: accept for name, accept in accepts.items() if accept is not None}


@contextmanager
def _opened(image: bytes, limits: Limits) -> Iterator[ImageFile.ImageFile]:
    """The image, its header read and within the limits; what breaks inside is named."""
    if not image:
        message = "the image has 0 bytes"
        raise EmptyImage(message)
    if len(image) > limits.max_bytes:
        message = f"the image has {len(image)} bytes; {limits.max_bytes} are accepted"
        raise ImageTooLarge(message)
    openers = _openers()
    # Pillow's own bound also guards what a header alone makes it allocate. It is a global: raise
    # it to what the settings allow, never lower it.
    if limits.max_pixels > (Image.MAX_IMAGE_PIXELS or 0):
        Image.MAX_IMAGE_PIXELS = limits.max_pixels
    try:
        check_tiles(image)
        with Image.open(Reader(image), formats=tuple(openers)) as opened:
            _check(opened, limits)
            check_scans(opened, image)
            yield opened
    except SimileError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        message = f"the image declares more than the {limits.max_pixels} pixels that are accepted"
        raise TooManyPixels(message) from error
    except UnidentifiedImageError as error:
        raise _unidentified(image) from error
    except Exception as error:  # hostile bytes make Pillow's plugins raise anything
        message = f"the image is truncated or corrupt: {error}"
        raise UndecodableImage(message) from error


def _unidentified(image: bytes) -> SimileError:
    if any(accept(image[:16]) is True for accept in _openers().values()):
        return UndecodableImage("the image's header is truncated or corrupt")
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


def _check_box(opened: ImageFile.ImageFile, box: Box, limits: Limits) -> None:
    left, top, right, bottom = _edges(box, upright_size(opened.size, orientation_of(opened)))
    short, long = sorted((right - left, bottom - top))
    if short < _BOX_PIXELS:
        message = f"the box holds {right - left} x {bottom - top} pixels of the image; "
        raise BoxTooSmall(message + f"draw it at least {_BOX_PIXELS} pixels wide and high")
    if long > limits.max_aspect * short:
        message = f"the box is more than {limits.max_aspect:g} times as long as wide"
        raise ExtremeAspect(message)


def _draft_size(opened: ImageFile.ImageFile, target: int, box: Box | None) -> tuple[int, int]:
    """The least size to decode at, so that the short side (of the box) has `target` pixels."""
    if box is None:
        return target, target
    left, top, right, bottom = _edges(box, upright_size(opened.size, orientation_of(opened)))
    scale = target / min(right - left, bottom - top)
    return math.ceil(opened.width * scale), math.ceil(opened.height * scale)


def _edges(box: Box, size: tuple[int, int]) -> Edges:
    """Left, top, right and bottom in pixels; never empty, never outside an image of that size."""
    width, height = size
    left = min(max(0, math.floor(box.left * width)), width - 1)
    top = min(max(0, math.floor(box.top * height)), height - 1)
    right = min(max(left + 1, math.ceil((box.left + box.width) * width)), width)
    bottom = min(max(top + 1, math.ceil((box.top + box.height) * height)), height)
    return left, top, right, bottom


def _rgb(loaded: Image.Image) -> Image.Image:
    if loaded.mode.startswith("I;16"):
        # Pillow clips 16 bits to 8: scale first. `point` scales mode I exactly, I;16 not.
        return (
            loaded.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
        )
    if not loaded.has_transparency_data:
        # `convert` copies even where there is nothing to convert.
        return loaded if loaded.mode == "RGB" else loaded.convert("RGB")
    rgba = loaded.convert("RGBA")
    white = Image.new("RGB", loaded.size, "white")
    white.paste(rgba, mask=rgba)
    return white
