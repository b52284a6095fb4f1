"""Holds the limits under which images are read; imports nothing, so that settings can name it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an image.

    Attributes:
        max_bytes: of the file.
        max_pixels: width times height.
        max_aspect: the longest side over the shortest.
    """

    max_bytes: int
    max_pixels: int
    max_aspect: float
