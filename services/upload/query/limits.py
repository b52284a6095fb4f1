"""Defines the limits of the bodies of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.shared import imaging
from services.shared.errors import ImageTooLarge
from services.shared.settings import SharedSettings
from services.upload.query.json_body import max_json_bytes
from services.upload.settings import UploadSettings

FORM_OVERHEAD_BYTES: Final = 64 * 1024
"""The size of a form besides its images: parameters, boundaries, headers of its parts."""

_DRAIN_SHARE: Final = 0.8
"""The share of the drain's time that a batch may take."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Limits one body, which is an image or a batch.

    Attributes:
        image: the limits of each image.
        batch_images: the maximum number of images in a batch.
        batch_bytes: the maximum size of a batch's images together.
        batch_seconds: the maximum time of a batch, from its arrival to its answer.
    """

    image: imaging.Limits
    batch_images: int
    batch_bytes: int
    batch_seconds: float

    @classmethod
    def of(cls, settings: UploadSettings, shared: SharedSettings) -> BodyLimits:
        """Return the limits of the settings."""
        return cls(
            image=shared.image_limits,
            batch_images=settings.max_batch_images,
            batch_bytes=settings.batch_max_bytes,
            # A replica that stops answers the batches that it has accepted.
            batch_seconds=_DRAIN_SHARE * shared.drain_timeout_seconds,
        )

    @property
    def largest_bytes(self) -> int:
        """Return the maximum size of a body in memory."""
        # An image in JSON is held as it came, and decoded.
        of_json = max_json_bytes(self.image.max_bytes) + self.image.max_bytes
        return max(of_json, self.batch_bytes) + FORM_OVERHEAD_BYTES


def too_large(max_bytes: int) -> ImageTooLarge:
    """Return the error for an image with too many bytes."""
    return ImageTooLarge(f"an image may have {max_bytes} bytes at most; send a smaller one")
