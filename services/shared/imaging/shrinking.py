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
    """To how many pixels on the short side the model wants a JPEG decoded at least.

    None for a model whose pixels are made in another way than here.
    """
    found = _DRAFT.search(model_id)
    return int(found[1]) if found else None


def decoded_size(header: Header, target: int) -> tuple[int, int]:
    """Width and height at which an image is decoded: a JPEG's at a fraction of its own.

    Not that of a progressive one: all of its coefficients have to be held.
    """
    if header.format != "JPEG" or header.progressive:
        return header.width, header.height
    short = min(header.width, header.height)
    scale = next((scale for scale in _SCALES if short >= scale * target), 1)
    return math.ceil(header.width / scale), math.ceil(header.height / scale)


def as_bitmap(image: bytes, limits: Limits, target: int) -> bytes | None:
    """The decoded image as an uncompressed file; None where that is not within the limits.

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
