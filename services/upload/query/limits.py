"""Defines the limits of the bodies of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.shared import imaging
from services.shared.errors import ImageTooLarge

FORM_OVERHEAD_BYTES: Final = 64 * 1024
"""The size of a form besides its images: parameters, boundaries, headers of its parts."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Limits the bytes of one body, which is an image or a batch."""

    image: imaging.Limits
    batch_images: int
    batch_bytes: int


def too_large(max_bytes: int) -> ImageTooLarge:
    """Return the error for an image with too many bytes."""
    return ImageTooLarge(f"an image may have {max_bytes} bytes at most; send a smaller one")
