"""Decodes images earlier than an embedder would, so that the model's input stays the same."""

from __future__ import annotations

import io
import re
from typing import Final

from services.shared.errors import SimileError
from services.shared.image_limits import Limits
from services.shared.imaging.decode import PIXELS, decode
from services.shared.imaging.probe import Probe, check_size

_DRAFT: Final = re.compile(rf"/{re.escape(PIXELS)}-draft([0-9]{{1,5}})-")


def target_of(model_id: str) -> int | None:
    """Return the minimum short side, in pixels, at which the model wants a JPEG decoded.

    None for a model with another preprocessing.
    """
    found = _DRAFT.search(model_id)
    return int(found[1]) if found else None


def as_bitmap(image: bytes, limits: Limits, target: int, known: Probe) -> bytes | None:
    """Decode an image, and return it as an uncompressed file; None beyond the limits.

    known: the image's probe. Raises what `decode` raises.
    """
    decoded = decode(image, limits, target=target, known=known)
    try:
        check_size(*decoded.size, limits)
    except SimileError:
        return None  # rounding its sides has made it too long for its width
    file = io.BytesIO()
    decoded.save(file, "BMP")
    bitmap = file.getvalue()
    return bitmap if len(bitmap) <= limits.max_bytes else None
