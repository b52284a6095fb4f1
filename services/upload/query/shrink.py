"""Shrinks large photographs before they are sent, if the model's input stays identical.

An embedder decodes a JPEG at the fraction of its size that its model needs, which the model's id
names. Upload does the same earlier, and sends the pixels uncompressed.
"""

from __future__ import annotations

import asyncio

from services.shared import cores
from services.shared.contracts import Box
from services.shared.imaging import Limits, Probe, shrinking


class Shrinker:
    """Shrinks as many photographs at once as there are cores; does nothing when it is off."""

    def __init__(self, limits: Limits, *, on: bool) -> None:
        self._limits = limits
        self._on = on
        self._places = asyncio.Semaphore(cores.available())

    async def shrunk(self, image: bytes, known: Probe, model_id: str, box: Box | None) -> bytes:
        """Return a smaller image with the same model input, or the image itself.

        Raises UndecodableImage, as an embedder would.
        """
        target = shrinking.target_of(model_id)
        if not self._on or target is None or box is not None or not _pays(image, known, target):
            return image
        async with self._places:
            return await asyncio.to_thread(_decoded, image, self._limits, target, known)


def _pays(image: bytes, known: Probe, target: int) -> bool:
    """Return True for a JPEG with more bytes than its shrunk pixels.

    Progressive JPEGs are excluded: all coefficients must be kept, hundreds of MB of a large one.
    """
    if known.format != "JPEG" or known.progressive:
        return False
    width, height = known.decoded_size(target)
    return 3 * width * height < len(image)


def _decoded(image: bytes, limits: Limits, target: int, known: Probe) -> bytes:
    return shrinking.as_bitmap(image, limits, target, known) or image
