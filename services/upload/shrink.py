"""Shrinks large photographs before they travel, where the model's input stays the same to the bit.

An embedder decodes a JPEG at the fraction of its size that its model needs, and the model's id says
which. Here the same is done earlier, and what comes out is sent as it is, uncompressed.
"""

from __future__ import annotations

import asyncio
import io
import math
import re
from typing import Final

from services.shared import cores, imaging
from services.shared.contracts import Box
from services.shared.errors import SimileError
from services.shared.imaging import Header, Limits

_DRAFT: Final = re.compile(rf"/{re.escape(imaging.PIXELS)}-draft([0-9]{{1,5}})-")


class Shrinker:
    """Shrinks as many photographs at once as there are cores; none when it is off."""

    def __init__(self, limits: Limits, *, on: bool) -> None:
        self._limits = limits
        self._on = on
        self._places = asyncio.Semaphore(cores.available())

    async def shrunk(self, image: bytes, header: Header, model_id: str, box: Box | None) -> bytes:
        """Fewer bytes of which that model makes the same input, or the image itself.

        Raises UndecodableImage, as an embedder would.
        """
        target = target_of(model_id)
        if not self._on or target is None or box is not None or not _pays(image, header, target):
            return image
        async with self._places:
            return await asyncio.to_thread(_decoded, image, self._limits, target)


def target_of(model_id: str) -> int | None:
    """To how many pixels on the short side the model wants a JPEG decoded at least.

    None for a model whose pixels are made in another way than here.
    """
    found = _DRAFT.search(model_id)
    return int(found[1]) if found else None


def _pays(image: bytes, header: Header, target: int) -> bool:
    """Whether it is a JPEG that is larger than its pixels will be.

    Not a progressive one: all of its coefficients have to be held, hundreds of MB of a large one.
    """
    if header.format != "JPEG" or header.progressive:
        return False
    sides = header.width, header.height
    scale = next((scale for scale in (8, 4, 2) if min(sides) >= scale * target), 1)
    width, height = (math.ceil(side / scale) for side in sides)
    return 3 * width * height < len(image)


def _decoded(image: bytes, limits: Limits, target: int) -> bytes:
    small = io.BytesIO()
    imaging.decode(image, limits, target=target).save(small, "BMP")
    shrunk = small.getvalue()
    try:
        imaging.sniff(shrunk, limits)
    except SimileError:
        return image  # rounding its sides has made it too long for its width
    return shrunk
