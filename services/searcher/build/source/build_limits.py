"""Bounds the images of a collection: wider than those of callers, for the owner chose them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from services.searcher.settings import IndexSettings
from services.shared import imaging
from services.shared.errors import ExtremeAspect, ImageTooLarge, SimileError, TooManyPixels
from services.shared.imaging import Limits, Probe
from services.shared.settings import SharedSettings

_SETTINGS: Final[Mapping[type[SimileError], str]] = {
    ImageTooLarge: "SIMILE_INDEX_IMAGE_MAX_BYTES",
    TooManyPixels: "SIMILE_INDEX_IMAGE_MAX_PIXELS",
    ExtremeAspect: "SIMILE_IMAGE_MAX_ASPECT",
}
_JPEG_FRACTION: Final = 64
"""A JPEG is decoded at an eighth of its width and height where the model needs no more."""

_MAX_JPEG_PIXELS: Final = 10**9


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """Holds what a build reads, and what the embedders accept.

    Attributes:
        read: of a collection's images; pixels are those that are decoded.
        sent: of the images in messages, the same as for callers.
    """

    read: Limits
    sent: Limits

    @classmethod
    def of(cls, settings: IndexSettings, shared: SharedSettings) -> Self:
        """Return the limits of these settings; a build's are never narrower than callers'."""
        sent = shared.image_limits
        read = Limits(
            max(settings.image_max_bytes, sent.max_bytes),
            max(settings.image_max_pixels, sent.max_pixels),
            sent.max_aspect,
        )
        return cls(read, sent)


def probe(image: bytes, limits: Limits) -> Probe:
    """Read the header of a collection's image; of a JPEG count the pixels that are decoded.

    Raises what `imaging.probe` raises; an error of a limit names the setting that moves it.
    """
    try:
        start = imaging.probe_start(image, for_jpeg(limits))
        is_plain = start is not None and not start.progressive
        return start if start is not None and is_plain else imaging.probe(image, limits)
    except (ImageTooLarge, TooManyPixels, ExtremeAspect) as error:
        raise named(error) from error


def named(error: SimileError) -> SimileError:
    """Return the error of a limit, with the setting that admits the image."""
    return type(error)(f"{error}; raise {_SETTINGS[type(error)]} to let it in")


def for_jpeg(limits: Limits) -> Limits:
    """Convert limits on decoded pixels to limits on the pixels that a JPEG has."""
    pixels = min(_JPEG_FRACTION * limits.max_pixels, max(_MAX_JPEG_PIXELS, limits.max_pixels))
    return replace(limits, max_pixels=pixels)
