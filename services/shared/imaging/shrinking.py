"""Decodes images earlier than an embedder would, so that the model's input stays the same."""

from __future__ import annotations

import io
import math
import re
from typing import Final

from services.shared.errors import SimileError
from services.shared.image_limits import Limits
from services.shared.imaging.decode import PIXELS, decode
from services.shared.imaging.probe import Header, sniff

_DRAFT: Final = re.compile(rf"/{re.escape(PIXELS)}-draft([0-9]{{1,5}})-")

_SCALES: Final = (8, 4, 2)
"""The fractions that a JPEG can be decoded at."""


def target_of(model_id: str) -> int | None:
    """Return the minimum short side, in pixels, at which the model wants a JPEG decoded.

    None for a model with another preprocessing.
    """
    found = _DRAFT.search(model_id)
    return int(found[1]) if found else None


def decoded_size(header: Header, target: int) -> tuple[int, int]:
    """Return width and height at which an image is decoded: a fraction of a JPEG's own.

    A progressive JPEG is decoded whole, since all of its coefficients are held anyway.
    """
    if header.format != "JPEG" or header.progressive:
        return header.width, header.height
    short = min(header.width, header.height)
    scale = next((scale for scale in _SCALES if short >= scale * target), 1)
    return math.ceil(header.width / scale), math.ceil(header.height / scale)


def as_bitmap(image: bytes, limits: Limits, target: int) -> bytes | None:
    """Decode an image, and return it as an uncompressed file; None beyond the limits.

    Raises what `decode` raises.
    """
    small = io.BytesIO()
    decode(image, limits, target=target).save(small, "BMP")
    shrunk = small.getvalue()
    try:
        sniff(shrunk, limits)
    except SimileError:
        return None  # rounding its sides has made it too long for its width
    return shrunk
