"""The only image decoder: query and collection images get their pixels here, with the same limits.

Pillow, no numpy. Hostile bytes end in a named error, never in one of Pillow's own.
"""

from __future__ import annotations

import functools
import importlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from services.shared.errors import (
    EmptyImage,
    ExtremeAspect,
    ImageTooLarge,
    SimileError,
    TooManyPixels,
    UndecodableImage,
    UnsupportedFormat,
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
_JPEG_FAMILY: Final = ("JPEG", "MPO")
"""A JPEG of several pictures (many phones write them) is to Pillow an MPO."""

_UPRIGHT: Final[Mapping[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""

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


def formats() -> tuple[str, ...]:
    """The formats accepted here, by Pillow's names."""
    return tuple(_openers())


def sniff(image: bytes, limits: Limits) -> Header:
    """The image's header; reads no pixels.

    Raises EmptyImage, ImageTooLarge, UnsupportedFormat, UndecodableImage, TooManyPixels or
    ExtremeAspect.
    """
    with _opened(image, limits) as opened:
        name = "JPEG" if opened.format in _JPEG_FAMILY else str(opened.format)
        return Header(name, _MEDIA_TYPES[name], opened.width, opened.height)


def decode(image: bytes, limits: Limits, *, target: int | None = None) -> Image.Image:
    """The first frame in RGB, upright, over white where it is transparent.

    target: so many pixels on the short side are enough; a JPEG is then decoded at a fraction of
    its size, which costs a fraction of the time. Raises what `sniff` raises.
    """
    with _opened(image, limits) as opened:
        if target is not None and opened.format in _JPEG_FAMILY:
            opened.draft(None, (target, target))
        opened.load()
        turn = _UPRIGHT.get(_orientation(opened))
        rgb = _rgb(opened)
        return rgb if turn is None else rgb.transpose(turn)


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
        importlib.import_module("pillow_heif").register_heif_opener()
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
        with Image.open(io.BytesIO(image), formats=tuple(openers)) as opened:
            _check(opened, limits)
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
    width, height = opened.size
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
    if opened.mode in {"I", "F"}:
        message = "32-bit samples have no agreed white: save the image with 8 or 16 bits a channel"
        raise UnsupportedFormat(message)


def _orientation(loaded: ImageFile.ImageFile) -> int:
    try:
        return int(loaded.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 (broken EXIF raises anything and spoils no pixels)
        return 1


def _rgb(loaded: Image.Image) -> Image.Image:
    if loaded.mode.startswith("I;16"):
        # Pillow clips 16 bits to 8: scale first. `point` scales mode I exactly, I;16 not.
        return (
            loaded.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
        )
    if not loaded.has_transparency_data:
        return loaded.convert("RGB")
    rgba = loaded.convert("RGBA")
    white = Image.new("RGB", loaded.size, "white")
    white.paste(rgba, mask=rgba)
    return white
