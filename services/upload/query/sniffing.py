"""Looks at an image's header without holding up the event loop."""

from __future__ import annotations

import asyncio

from services.shared import imaging
from services.shared.imaging import Header, Limits


async def sniffed(image: bytes, limits: Limits) -> Header:
    """The header, by a thread only where that can take long: a thread's hop costs more than most.

    Raises what `imaging.sniff` raises.
    """
    header = imaging.sniff_start(image, limits)
    if header is not None:
        return header
    return await asyncio.to_thread(imaging.sniff, image, limits)
